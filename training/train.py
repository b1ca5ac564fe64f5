"""Trains the built-in model: word vectors, a structured start, then a fixed number of steps on made-up sittings.

    python -m training.train --out out/training      # from scratch, resumes from its last checkpoint
    python -m training.train --out out/settled --start out/training/model.pt --steps 160 --rate 4e-4
    python -m training.train --out out/skewed --start out/settled/model.pt --skew 0.5 --steps 160 --rate 4e-4

The same seed and arguments give the same data in the same order; no step depends on the clock. Two workers of one
thread each average their gradients: on two busy cores that is a third faster than one worker of two threads.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F

from training import structured_start, tokenizer, wordvectors
from training.batches import Batch, Encoder, chunk, copying_practice
from training.generator import Generator, Recipe
from training.model import Model, Shape

COPYING_EVERY = 20  # one step in so many is pure copying practice
SAVE_EVERY = 100
REPORT_EVERY = 25


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result."""

    seed: int = 1
    steps: int = 2000
    tokens: int = 2400  # of a worker's batch
    workers: int = 2
    rate: float = 1.3e-3
    embedding_rate: float = 0.3  # of `rate`
    matching_rate: float = 0.3  # of `rate`, for queries and keys
    flat: float = 0.5  # share of the run before the rate falls
    choice: float = 0.5  # weight of the attention loss on choosing
    request: float = 0.3  # weight of the attention loss on carrying the request
    begin: float = 0.2  # weight of the attention loss on finding a value
    copy: float = 0.2  # weight of the attention loss on copying on
    supervised: int = 2000  # step from which attention is left alone
    vector_steps: int = 2000
    corpus: int = 6000
    strange: float = Recipe.strange  # early share of sittings with a kind's words replaced by invented ones
    familiar: float = 0.08  # the same at the end
    fade: tuple[float, float] = (0.4, 0.7)  # shares of the run between which the one becomes the other
    skew: float = 1.0
    settled: float = 0.85  # share of the run after which more tools are equivalent and fewer requests unserved
    fine: bool = False  # a fine-tuning run: no warming up of the data, no structured start


def recipe_at(plan: Plan, step: int) -> Recipe:
    """The data at a step: few tools and true names first, more of both kinds of noise later.

    Invented words teach reading first and then make room: tools described in other words than the request need what
    words mean. At the end fewer requests stay unserved, and more tools are equivalent. A fine-tuning run has many
    sittings of the suite's tools side by side, which are what the model is mostly offered.
    """
    late = Recipe(skew=plan.skew, strange=plan.familiar)
    if plan.fine:
        alike = 0.3 if plan.skew == 1 else 0.5
        return replace(late, equivalents=alike, lexical=0.12, wordy=0.06, unserved=0.03, suite=0.35, kin=0.6)
    if step >= plan.settled * plan.steps:
        return replace(late, equivalents=0.5, lexical=0.16, wordy=0.08, unserved=0.06)
    most = 3 if step < 80 else 5 if step < 300 else 10
    names = 0.4 * min(1.0, step / 800)
    faded = min(1.0, max(0.0, (step / plan.steps - plan.fade[0]) / (plan.fade[1] - plan.fade[0])))
    strange = plan.strange + faded * (plan.familiar - plan.strange)
    return Recipe(most=most, random_names=names, skew=plan.skew, strange=strange)


def rate_at(plan: Plan, step: int) -> float:
    done = step / plan.steps
    warming = min(1.0, (step + 1) / (20 if plan.fine else 100))
    return plan.rate * warming * (1.0 if done < plan.flat else max(0.02, (1 - done) / (1 - plan.flat)))


def prepare(plan: Plan, out: Path, start: Path | None) -> None:
    """What training stands on, made once: the vocabulary and the word vectors."""
    torch.set_num_threads(1)  # two threads wait for each other more than they save
    out.mkdir(parents=True, exist_ok=True)
    words, vectors = out / "tokenizer.json", out / "vectors.pt"
    if start is not None:
        shutil.copyfile(start.with_name("tokenizer.json"), words)
        return
    if not words.exists():
        tokenizer.save(tokenizer.build(tokenizer.corpus(plan.seed, plan.corpus)), words)
    if not vectors.exists():
        torch.save(wordvectors.learn(tokenizer.read(words), plan.seed, plan.vector_steps), vectors)


class Trainer:
    def __init__(self, plan: Plan, out: Path, start: Path | None, worker: int = 0) -> None:
        self.plan, self.out, self.worker = plan, out, worker
        self.generator = Generator(plan.seed)
        self.vocabulary = tokenizer.read(out / "tokenizer.json")
        self.encoder = Encoder(self.vocabulary)
        torch.manual_seed(plan.seed)
        self.model = Model(Shape(self.vocabulary.get_vocab_size()))
        self.supervised = {
            "choice": (structured_start.CHOICE_LAYER, structured_start.CHOICE_HEADS, plan.choice),
            "request": (structured_start.REQUEST_LAYER, structured_start.REQUEST_HEADS, plan.request),
            "begin": (structured_start.BEGIN_LAYER, structured_start.BEGIN_HEADS, plan.begin),
            "copy": (structured_start.COPY_LAYER, structured_start.COPY_HEADS, plan.copy),
        }
        self.step = self.chunk = self.saved = 0
        checkpoint = out / "checkpoint.pt"
        if not checkpoint.exists():
            self._first_weights(start)
        named = [(n, p) for n, p in self.model.named_parameters() if p.dim() == 2 and "embedding" not in n]
        matrices = [p for n, p in named if not n.endswith(("query.weight", "key.weight"))]
        matches = [p for n, p in named if n.endswith(("query.weight", "key.weight"))]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.05, "share": 1.0},
                {"params": matches, "weight_decay": 0.05, "share": plan.matching_rate},
                {"params": [self.model.embedding.weight], "weight_decay": 0.0, "share": plan.embedding_rate},
                {"params": vectors, "weight_decay": 0.0, "share": 1.0},
            ],
            lr=plan.rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        if checkpoint.exists():
            self._resume(checkpoint)

    def _first_weights(self, start: Path | None) -> None:
        if start is not None:
            self.model.load_state_dict(torch.load(start, weights_only=True)["weights"])
        else:
            vectors = torch.load(self.out / "vectors.pt", weights_only=True)
            structured_start.lay_out(self.model, self.vocabulary, vectors, self.plan.seed)

    def _resume(self, checkpoint: Path) -> None:
        saved = torch.load(checkpoint, weights_only=True)
        # The number of steps decides only when the rate begins to fall: until then it may still be changed.
        flat = saved["step"] <= self.plan.flat * min(self.plan.steps, saved["plan"]["steps"])
        if saved["plan"] | ({"steps": self.plan.steps} if flat else {}) != asdict(self.plan):
            raise SystemExit(f"error: {checkpoint} is of another plan\nhint: remove {self.out} or name another --out")
        self.model.load_state_dict(saved["weights"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step, self.chunk = saved["step"], saved["chunk"]

    def _save(self, name: str, whole: bool) -> None:
        if self.worker:
            return
        state: dict[str, Any] = {
            "plan": asdict(self.plan),
            "shape": asdict(self.model.shape),
            "weights": self.model.state_dict(),
        }
        if whole:
            state |= {"optimiser": self.optimiser.state_dict(), "step": self.step, "chunk": self.chunk}
        part = self.out / (name + ".part")
        torch.save(state, part)
        part.replace(self.out / name)

    def _batches(self) -> Iterator[tuple[Batch, bool]]:
        """Endless; checkpoints are written between chunks, so that a resumed run sees the same data."""
        while True:
            if self.chunk and self.step - self.saved >= SAVE_EVERY:
                self._save("checkpoint.pt", whole=True)
                self.saved = self.step
            recipe = recipe_at(self.plan, self.step)
            batches = list(chunk(self.generator, self.encoder, recipe, self.plan.seed, self.chunk, self.plan.tokens))
            whole = len(batches) // self.plan.workers * self.plan.workers
            for batch in batches[self.worker : whole : self.plan.workers]:
                if not self.plan.fine and self.step % COPYING_EVERY == 0:
                    size = self.vocabulary.get_vocab_size()
                    number = self.step * self.plan.workers + self.worker
                    yield copying_practice(size, self.plan.seed, number, self.plan.tokens), True
                yield batch, False
            self.chunk += 1

    def run(self) -> None:
        self.saved, began, first = self.step, time.time(), self.step
        sums = dict.fromkeys(("answer", "name", *self.supervised, "right"), 0.0)
        counted = seen = 0
        for batch, practice in self._batches():
            if self.step >= self.plan.steps:
                break
            losses = self._learn(batch, practice)
            seen += len(batch.ids)
            if not practice:
                counted += 1
                for key, value in losses.items():
                    sums[key] += value
            self.step += 1
            if self.step % REPORT_EVERY == 0 and counted and not self.worker:
                spent = time.time() - began
                left = spent / (self.step - first) * (self.plan.steps - self.step)
                shown = " ".join(f"{key} {value / counted:.3f}" for key, value in sums.items())
                speed = f"{self.plan.workers * seen / spent:.0f} tokens/s {left:.0f} s left"
                print(f"step {self.step}/{self.plan.steps} {shown} {speed}", flush=True)
                sums, counted = dict.fromkeys(sums, 0.0), 0
        self._save("model.pt", whole=False)

    def _learn(self, batch: Batch, practice: bool) -> dict[str, float]:
        plan, model = self.plan, self.model
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(plan, self.step) * group["share"]
        counted = batch.weights.nonzero().squeeze(1)
        target, weight = batch.ids[counted], batch.weights[counted]
        streams = model.streams(batch.ids, batch.layout, only=counted - 1)
        logits = model.logits(streams[-1])
        each = F.cross_entropy(logits, target, reduction="none")
        loss = (each * weight).sum() / weight.sum()
        result = {"answer": loss.item()}
        supervision = 0.0 if plan.fine else max(0.0, 1 - self.step / plan.supervised)
        for name, (layer, heads, share) in self.supervised.items():
            points = batch.points[name]
            if len(points) and supervision:
                attention = model.attention_loss(layer, heads, streams[layer], batch.layout, points)
                result[name] = attention.item()
                loss = loss + share * supervision * attention
        if not practice:
            first = weight == 5.0
            result["name"] = each[first].mean().item() if first.any() else 0.0
            result["right"] = (logits[first].argmax(1) == target[first]).float().mean().item() if first.any() else 0.0
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # Meanings stay as the word vectors have them: those of words in training would drift away from all others.
        meanings = model.embedding.weight.grad
        assert meanings is not None  # noqa: S101
        meanings[:, structured_start.MEANING.start : structured_start.MEANING.stop] = 0
        self._average()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.optimiser.step()
        return result

    def _average(self) -> None:
        """The gradients of all workers, averaged."""
        if self.plan.workers == 1:
            return
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.plan.workers
        for gradient, part in zip(
            gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))


def work(worker: int, plan: Plan, out: Path, start: Path | None, meeting: str) -> None:
    """One worker of a run, in a process of its own."""
    torch.set_num_threads(1)
    if plan.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=worker, world_size=plan.workers)
    Trainer(plan, out, start, worker).run()
    if plan.workers > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and of the result, model.pt")
    parser.add_argument("--start", type=Path, help="fine-tune these weights (a model.pt) instead of starting anew")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--rate", type=float, default=Plan.rate)
    parser.add_argument(
        "--skew", type=float, default=Plan.skew, help="weight of equivalent tools by place: skew ** rank"
    )
    parser.add_argument("--workers", type=int, default=Plan.workers)
    options = parser.parse_args()
    plan = Plan(
        options.seed,
        options.steps,
        rate=options.rate,
        skew=options.skew,
        workers=options.workers,
        fine=options.start is not None,
    )
    prepare(plan, options.out, options.start)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (plan, options.out, options.start, str(Path(folder) / "meeting"))
        if plan.workers == 1:
            work(0, *arguments)
        else:
            multiprocessing.spawn(work, arguments, nprocs=plan.workers)  # type: ignore[attr-defined, no-untyped-call]


if __name__ == "__main__":
    main()
