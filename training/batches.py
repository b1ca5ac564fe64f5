"""Turns sittings into tensors: ids, layout, loss weights, and the points where attention is supervised.

A sitting's opening is a trunk and its conversations are branches: each sees the opening and itself, at the positions
it would have alone. So the tools are read once for many decisions, and different right answers to the same tools
stand in one batch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.conversation import (
    ANSWER_OPEN,
    END,
    NAME_OPEN,
    START,
    Call,
    Decision,
    Sitting,
    render_answer,
    render_opening,
)
from training.generator import Generator, Recipe
from training.model import Layout
from training.tokenizer import canonical, listed

FIRST_PIECE, NAME_PIECE, OPENING_PIECE, PROMPT_PIECE = 5.0, 3.0, 3.0, 0.1
PROMPT_SHARE = 0.08
MOST_COPIES = 10  # of a decision, that are supervised


@dataclass(frozen=True)
class Branch:
    ids: list[int]
    weights: list[float]
    choices: list[tuple[int, int]]  # place in the branch that asks, place in the trunk that holds the answer
    requests: list[tuple[int, int]]  # place in the branch that asks, place in the branch where the request ends
    begins: list[tuple[int, int]]  # place in the branch before a value, place in the branch of its first token
    copies: list[tuple[int, int]]  # place in a value, place in the branch of the token that comes next


@dataclass(frozen=True)
class Row:
    ids: list[int]
    weights: list[float]
    branches: list[Branch]

    @property
    def tokens(self) -> int:
        return len(self.ids) + sum(len(branch.ids) for branch in self.branches)


@dataclass(frozen=True)
class Batch:
    """`ids` and `weights` (of each token as a target): [tokens]; `points`: by name, for `Model.attention_loss`."""

    ids: Tensor
    weights: Tensor
    layout: Layout
    points: dict[str, Tensor]


class Encoder:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id(END)
        self.name_open = len(tokenizer.encode(NAME_OPEN).ids)
        self.canonical = [canonical(token) for token in listed(tokenizer)]

    def row(self, sitting: Sitting, noise: random.Random) -> Row:
        opening = render_opening(sitting.system, sitting.tools)
        encoded = self.tokenizer.encode(opening)
        names = self._name_places(sitting, opening, encoded.offsets)
        sink = max((place for place, token in enumerate(encoded.ids) if token == self.end), default=-1)
        branches = []
        for decision in sitting.decisions:
            before = self.tokenizer.encode(decision.before + ANSWER_OPEN).ids
            answer = self.tokenizer.encode(render_answer(decision.answer)).ids
            decides, named = len(before) - 1, len(before) + self.name_open - 1
            spoken = max(place for place, token in enumerate(before) if token == self.end)
            asks, target = [decides, named], sink
            if decision.right is not None:
                target = names[decision.right]
            elif sitting.tools and f"{START}tool\n" not in decision.before:
                asks = [decides]
            else:
                asks = []
            weights = self._prompt_weights(len(before), noise) + self._answer_weights(decision, len(answer))
            choices, requests = [(ask, target) for ask in asks], [(ask, spoken) for ask in asks]
            begins, copies = self._values(decision)
            branches.append(Branch(before + answer, weights, choices, requests, begins, copies))
        return Row(list(encoded.ids), [0.0] * len(encoded.ids), branches)

    def _values(self, decision: Decision) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Where the values of a call stand in the request, as pairs of places in the branch: what `Branch` holds."""
        if not isinstance(decision.answer, Call):
            return [], []
        asked = self.tokenizer.encode(decision.before + ANSWER_OPEN)
        answer_text = render_answer(decision.answer)
        answer = self.tokenizer.encode(answer_text)
        sources = {offset[0]: place for place, offset in enumerate(asked.offsets)}
        start = decision.before.rindex(f"{START}user\n")
        request = decision.before[start:].lower()
        begins, copies, at = [], [], answer_text.index('"arguments"')
        for value in decision.answer.arguments.values():
            text = json.dumps(value, ensure_ascii=False).strip('"')
            at = answer_text.index(text, at)
            found = request.rfind(text.lower())
            if found >= 0:
                for place, (begin, end) in enumerate(answer.offsets):
                    source = sources.get(start + found + begin - at)
                    source = sources.get(start + found + begin - at - 1) if source is None else source
                    if not at <= begin < end <= at + len(text) or source is None:
                        continue
                    if self.canonical[asked.ids[source]] != self.canonical[answer.ids[place]]:
                        continue
                    pair = (len(asked.ids) + place - 1, source)
                    (begins if begin == at else copies).append(pair)
            at += len(text)
        return begins, copies[:MOST_COPIES]

    def _prompt_weights(self, length: int, noise: random.Random) -> list[float]:
        """A few tokens of the prompt are predicted too. The first of a part never is: what precedes it varies."""
        return [PROMPT_PIECE if place and noise.random() < PROMPT_SHARE else 0.0 for place in range(length)]

    def _answer_weights(self, decision: Decision, length: int) -> list[float]:
        weights = [1.0] * length
        weights[0] = OPENING_PIECE
        if isinstance(decision.answer, Call):
            named = len(self.tokenizer.encode(NAME_OPEN + decision.answer.name + '",').ids)
            weights[self.name_open : named] = [NAME_PIECE] * (named - self.name_open)
            weights[self.name_open] = FIRST_PIECE
        return weights

    def _name_places(self, sitting: Sitting, opening: str, offsets: list[tuple[int, int]]) -> list[int]:
        """For each tool the token at which its quoted name begins."""
        starts = {offset[0]: index for index, offset in enumerate(offsets) if offset[0] != offset[1]}
        places = []
        at = opening.index(f"{START}tools") + len(f"{START}tools") if sitting.tools else 0
        for tool in sitting.tools:
            places.append(starts[at + 1 + len(tool.before_name())])
            at += 1 + len(tool.render())
        return places


def collate(rows: list[Row]) -> Batch:
    longest = max(1, *(len(row.ids) for row in rows))
    widest = max(len(branch.ids) for row in rows for branch in row.branches)
    ids: list[int] = []
    weights: list[float] = []
    positions: list[int] = []
    back: list[int] = []
    trunks: list[list[int]] = []
    branches: list[list[int]] = []
    parents: list[int] = []
    lengths: list[tuple[int, int]] = []
    points: dict[str, list[tuple[int, int, int]]] = {"choice": [], "request": [], "begin": [], "copy": []}

    def add(part: Row | Branch, first: int, slot: int, length: int) -> list[int]:
        start = len(ids)
        ids.extend(part.ids)
        weights.extend(part.weights)
        positions.extend(range(first, first + len(part.ids)))
        back.extend(range(slot, slot + len(part.ids)))
        return list(range(start, start + len(part.ids))) + [0] * (length - len(part.ids))

    for number, row in enumerate(rows):
        trunks.append(add(row, 0, number * longest, longest))
        for branch in row.branches:
            this = len(branches)
            branches.append(add(branch, len(row.ids), len(rows) * longest + this * widest, widest))
            parents.append(number)
            lengths.append((len(row.ids), len(branch.ids)))
            points["choice"].extend((this, ask, target) for ask, target in branch.choices)
            for name, pairs in (("request", branch.requests), ("begin", branch.begins), ("copy", branch.copies)):
                points[name].extend((this, ask, longest + target) for ask, target in pairs)
    trunk_lengths, _ = torch.tensor(lengths).unbind(1)
    sees = torch.zeros(len(branches), 1, widest, longest + widest, dtype=torch.bool)
    sees[:, :, :, :longest] = (torch.arange(longest) < trunk_lengths[:, None])[:, None, None]
    sees[:, :, :, longest:] = torch.ones(widest, widest, dtype=torch.bool).tril()
    layout = Layout(
        torch.tensor(positions),
        torch.tensor(trunks),
        torch.tensor(branches),
        torch.tensor(back),
        torch.tensor(parents),
        sees,
    )
    tensors = {name: torch.tensor(found, dtype=torch.long).reshape(-1, 3) for name, found in points.items()}
    return Batch(torch.tensor(ids), torch.tensor(weights), layout, tensors)


def chunk(
    generator: Generator, encoder: Encoder, recipe: Recipe, seed: int, number: int, tokens: int
) -> Iterator[Batch]:
    """The batches of chunk `number`: the same for the same seed, whatever came before."""
    generator.random.seed(f"{seed}:{number}")
    noise = random.Random(f"{seed}:{number}:noise")
    rows = [encoder.row(generator.sitting(recipe), noise) for _ in range(96)]
    rows.sort(key=lambda row: len(row.ids))
    groups: list[list[Row]] = [[]]
    for row in rows:
        if groups[-1] and sum(other.tokens for other in groups[-1]) + row.tokens > tokens:
            groups.append([])
        groups[-1].append(row)
    noise.shuffle(groups)
    yield from (collate(group) for group in groups)


def copying_practice(vocabulary: int, seed: int, number: int, tokens: int) -> Batch:
    """Random pieces repeated: pure practice in copying; only the repetitions count.

    Half of it uses few different pieces, so that the one before does not tell which comes next.
    """
    noise = random.Random(f"{seed}:{number}:copying")
    length = 128
    rows = []
    for _ in range(tokens // length):
        period = noise.randint(12, 50)
        few = [noise.randrange(5, vocabulary) for _ in range(noise.randint(5, 12))]
        alone = noise.random() < 0.5
        piece = [noise.choice(few) if alone else noise.randrange(5, vocabulary) for _ in range(period)]
        ids = (piece * (length // period + 1))[:length]
        rows.append(Row([], [], [Branch(ids, [0.0] * (period + 1) + [1.0] * (length - period - 1), [], [], [], [])]))
    return collate(rows)
