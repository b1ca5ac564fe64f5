"""A model as a judge of two answers: does it prefer the one that it reads first? Every pair is judged in both orders,
as a score from 1 to 9 and as a choice, and held against a reference score.

A score says how much better the second answer is: 1 the first is far better, 5 equally good, 9 the second is.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
from pydantic import Field, TypeAdapter

from agents.chat_model import ChatModel, Message, ModelError, OpenAIChatModel
from agents.experiments.inference import Estimate, cluster_mean, cluster_p, cluster_share
from agents.experiments.runner import Pace, ask_all
from agents.experiments.trials import VERSION, Journal, read_journal
from toolkit.core.config import Strict, read_yaml, validate
from toolkit.core.errors import UsageError
from toolkit.core.paths import bundled, write_text

Form = Literal["score", "choice"]
FORMS: tuple[Form, ...] = ("score", "choice")
JUDGEMENTS = "judgements.jsonl"
SETTINGS = "judge.json"
MIDDLE = 5

_SCORE = """Compare two answers to a question. Rate them with one whole number from 1 to 9:
1 means that Answer 1 is far better, 5 that both are equally good, 9 that Answer 2 is far better.

Question: {ask}

Answer 1: {first}

Answer 2: {second}

Reply with the number only."""
_CHOICE = """Compare two answers to a question and say which is better.

Question: {ask}

Answer 1: {first}

Answer 2: {second}

Reply with 1 if Answer 1 is better, with 2 if Answer 2 is better, nothing else."""


class Pair(Strict):
    """Two answers and the score they deserve."""

    ask: str
    first: str
    second: str
    reference: int = Field(ge=1, le=9)


class PairsFile(Strict):
    name: str
    about: str = ""
    pairs: list[Pair] = Field(min_length=2)


@dataclass(frozen=True)
class Judgement:
    """One reply. `swapped`: the pair's second answer stood first. `value` is the score 1 to 9, or the answer chosen, 1
    or 2, as the model saw them; None if the reply held neither, with the reply in `text`."""

    model: str
    pair: int
    form: Form
    swapped: bool
    value: int | None
    text: str
    error: bool = False

    @property
    def key(self) -> tuple[str, int, str, bool]:
        return (self.model, self.pair, self.form, self.swapped)

    def line(self) -> str:
        return json.dumps({"v": VERSION, **asdict(self)}, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Verdict:
    """What the judgements of one model show.

    `first_score`: how many points of the scale the answer read first is favoured by; `first_choice`: how much more
    often than half it is chosen. `exact`, `within_one`: agreement of the score with the reference, `rank` Spearman's
    correlation with it. `consistent`: share of pairs whose two orders name the same winner (or both a tie), `mirrored`
    those whose two scores are mirror images. `middle`: share of fives; `scores` how often each score was given.
    """

    model: str
    judgements: int
    invalid: int
    first_score: Estimate
    first_score_p: float
    first_choice: Estimate
    first_choice_p: float
    exact: Estimate
    within_one: Estimate
    rank: float
    consistent: Estimate
    mirrored: Estimate
    consistent_choice: Estimate
    middle: Estimate
    scores: Mapping[int, int]


_JUDGEMENT = TypeAdapter(Judgement)


def load_pairs(path: Path | None) -> list[Pair]:
    """The pairs in `path`, or those that come with the toolkit."""
    path = path or bundled("judge/pairs.yaml")
    return validate(PairsFile, read_yaml(path), str(path)).pairs


def prompt(pair: Pair, form: Form, swapped: bool) -> list[Message]:
    """What the judge is asked."""
    first, second = (pair.second, pair.first) if swapped else (pair.first, pair.second)
    text = (_SCORE if form == "score" else _CHOICE).format(ask=pair.ask, first=first, second=second)
    return [{"role": "user", "content": text}]


def understood(text: str, form: Form) -> int | None:
    """The number that a reply gives: the only one of the scale in it, or the one after its last colon."""
    top = 9 if form == "score" else 2
    found = re.findall(r"(?<![\d.])([1-9])(?:\s*/\s*9)?(?![\d.]*\d)", text)
    numbers = {int(number) for number in found}
    if len(numbers) == 1 and (number := numbers.pop()) <= top:
        return number
    tail = re.search(r":\s*\**([1-9])\**\s*\.?\s*$", text)
    if tail and int(tail[1]) <= top:
        return int(tail[1])
    return None


async def run_judge(
    models: Sequence[str],
    pairs: Sequence[Pair],
    *,
    base_url: str,
    api_key: str | None,
    out: Path,
    concurrency: int = 4,
    max_tokens: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """Ask every model about every pair in both orders and forms; the same call on the same folder goes on. Raises
    UsageError if the folder holds judgements of other pairs."""
    _same(out, pairs, max_tokens)
    path = out / JUDGEMENTS
    kept = {j.key: j for j in read_journal(path, _JUDGEMENT)} if path.exists() else {}
    wanted = [(number, form, swapped) for form in FORMS for number in range(len(pairs)) for swapped in (False, True)]
    total = len(wanted) * len(models)
    left = {m: [item for item in wanted if (m, *item) not in kept or kept[m, *item].error] for m in models}
    done = total - sum(map(len, left.values()))
    progress(done, total)
    with Journal(path) as journal:
        for model in models:
            pace = Pace(concurrency)
            async with httpx.AsyncClient() as client:
                asked = OpenAIChatModel(base_url, api_key, model, client, retries=4, sleep=pace.wait)

                async def ask(item: tuple[int, Form, bool], asked: ChatModel = asked) -> str:
                    number, form, swapped = item
                    reply = await asked.ask(prompt(pairs[number], form, swapped), max_tokens=max_tokens)
                    return reply.text

                def ended(item: tuple[int, Form, bool], text: str, *, error: bool = False, model: str = model) -> None:
                    nonlocal done
                    value = None if error else understood(text, item[1])
                    judgement = Judgement(model, *item, value, text[:200], error)
                    kept[judgement.key] = judgement
                    journal.write(judgement)
                    done += 1
                    progress(done, total)

                def failed(item: tuple[int, Form, bool], error: ModelError) -> None:
                    ended(item, error.message, error=True)

                await ask_all(left[model], ask, pace=pace, done=ended, failed=failed)
    return [verdict(model, [j for j in kept.values() if j.model == model], pairs) for model in models]


def verdict(model: str, judgements: Sequence[Judgement], pairs: Sequence[Pair]) -> Verdict:
    """Measure one model's judgements. Pairs are the sampling unit; one with an unusable judgement is left out of what
    needs both orders, and counted in `invalid`."""
    held = {(j.pair, j.form, j.swapped): j.value for j in judgements}
    values = [j.value for j in judgements if j.form == "score" and j.value is not None]
    scored = _both(held, "score", len(pairs))
    chosen = _both(held, "choice", len(pairs))
    numbers = np.array([number for number, *_ in scored], dtype=int)
    straight = np.array([one for _, one, _ in scored], dtype=float)
    swapped = np.array([other for _, _, other in scored], dtype=float)
    reference = np.array([pairs[number].reference for number in numbers], dtype=float)
    turned = 10 - swapped  # as the pair is written
    favour = MIDDLE - (straight + swapped) / 2
    first = np.array([((one == 1) + (other == 1)) / 2 - 0.5 for _, one, other in chosen])

    def off(limit: float) -> Estimate:
        hits = (np.abs(straight - reference) <= limit).astype(float) + (np.abs(turned - reference) <= limit)
        return cluster_share(hits / 2)

    return Verdict(
        model=model,
        judgements=len(judgements),
        invalid=sum(j.value is None for j in judgements),
        first_score=cluster_mean(favour, grain=0.5),
        first_score_p=cluster_p(favour, grain=0.5),
        first_choice=cluster_mean(first, grain=0.5),
        first_choice_p=cluster_p(first, grain=0.5),
        exact=off(0),
        within_one=off(1),
        rank=_rank((straight + turned) / 2, reference),
        consistent=cluster_share((np.sign(straight - MIDDLE) == np.sign(turned - MIDDLE)).astype(float)),
        mirrored=cluster_share((straight == turned).astype(float)),
        consistent_choice=cluster_share(np.array([float(one != other) for _, one, other in chosen])),
        middle=cluster_share(((straight == MIDDLE).astype(float) + (swapped == MIDDLE)) / 2),
        scores={score: values.count(score) for score in range(1, 10)},
    )


def _both(held: Mapping[tuple[int, Form, bool], int | None], form: Form, count: int) -> list[tuple[int, int, int]]:
    """(pair, as written, swapped) for each pair with two usable judgements."""
    found = []
    for number in range(count):
        one, other = held.get((number, form, False)), held.get((number, form, True))
        if one is not None and other is not None:
            found.append((number, one, other))
    return found


def _rank(one: np.ndarray, other: np.ndarray) -> float:
    from scipy import stats

    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def _same(out: Path, pairs: Sequence[Pair], max_tokens: int) -> None:
    document = {"pairs": [pair.model_dump() for pair in pairs], "max_tokens": max_tokens}
    path = out / SETTINGS
    if not path.exists():
        write_text(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != document:
        raise UsageError(f"{out} holds judgements of other pairs or settings", hint=f"--out {out}-2")
