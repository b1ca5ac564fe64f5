"""Word vectors learned before the transformer: a request's bag of words against the description of its tool.

Two minutes on a CPU that save the transformer most of an hour: it starts out knowing that *umbrella* goes with
*forecast*. Vectors belong to canonical words (no space, lower case), so all spellings of a word share one.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.generator import Generator
from training.tokenizer import canonical, listed

WIDTH = 64
PAIRS = 224


def canonical_ids(tokenizer: Tokenizer) -> Tensor:
    """For each token the number of its canonical form (numbers are 0, 1, 2 ... in order of first use)."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(canonical(token), len(numbers)) for token in listed(tokenizer)])


class Pair:
    """Requests and descriptions drawn from the catalogue and from the lists of near-synonyms."""

    def __init__(self, seed: int) -> None:
        self.generator = Generator(seed)
        self.random = random.Random(seed)

    def draw(self) -> tuple[str, str, str]:
        """A request, a description with its name, and what marks two pairs as the same kind."""
        r, g = self.random, self.generator
        shape = r.random()
        if shape < 0.65:
            kind = g._any_kind()
            tool = g.tool(kind, 0.1, set())
            name = tool.name.replace("_", " ").replace("-", " ")
            about = tool.description if tool.description and r.random() < 0.6 else f"{name} {tool.description}"
            request, _ = g.request(kind)
            return request, about, kind.name
        if shape < 0.85:
            noun, verb = r.choice(g.data.nouns), r.choice(g.data.verbs)
            return f"{r.choice(verb)} {r.choice(noun)}", f"{r.choice(verb)} {r.choice(noun)}", f"{verb[0]} {noun[0]}"
        words = [g._word() for _ in range(r.randint(1, 5))]
        return " ".join(words[: r.randint(1, len(words))]), " ".join(words), " ".join(words)


def bag(tokenizer: Tokenizer, ids: Tensor, texts: list[str]) -> Tensor:
    """[texts, longest] of canonical numbers + 1; 0 pads."""
    rows = [ids[torch.tensor(encoding.ids)] + 1 for encoding in tokenizer.encode_batch(texts)]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def learn(tokenizer: Tokenizer, seed: int, steps: int) -> Tensor:
    """Vectors [vocabulary, WIDTH] by contrast within batches (each request against every description of the batch)."""
    torch.manual_seed(seed)
    ids = canonical_ids(tokenizer)
    table = nn.Embedding(int(ids.max()) + 2, WIDTH, padding_idx=0)
    nn.init.normal_(table.weight, 0, 0.15)
    scale = nn.Parameter(torch.tensor(0.0))
    optimiser = torch.optim.Adam([table.weight, scale], lr=1e-2)
    pairs = Pair(seed)

    def pool(numbers: Tensor) -> Tensor:
        kept = (numbers != 0).float().unsqueeze(-1)
        pooled: Tensor = (table(numbers) * kept).sum(1) / kept.sum(1).clamp(min=1).sqrt()
        return pooled

    for step in range(steps):
        drawn = [pairs.draw() for _ in range(PAIRS)]
        requests = pool(bag(tokenizer, ids, [pair[0] for pair in drawn]))
        abouts = pool(bag(tokenizer, ids, [pair[1] for pair in drawn]))
        scores = requests @ abouts.T * scale.exp()
        marks = [pair[2] for pair in drawn]
        numbers = {mark: index for index, mark in enumerate(marks)}
        which = torch.tensor([numbers[mark] for mark in marks])
        same = (which[:, None] == which[None]) & ~torch.eye(PAIRS, dtype=torch.bool)
        scores = scores.masked_fill(same, -1e9)
        target = torch.arange(PAIRS)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % 250 == 0:
            right = (scores.argmax(1) == target).float().mean()
            print(
                f"word vectors: step {step + 1} of {steps}, loss {loss.item():.3f}, right of {PAIRS}: {right:.2f}",
                flush=True,
            )
    return table.weight.detach()[ids + 1]
