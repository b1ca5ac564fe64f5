"""A first set of weights in which the parts needed for reading tools are already laid out, instead of noise alone.

The residual stream is divided into what a token is, what it means, what came before it, and the meaning of its
neighbourhood. Everything not set here stays random, and everything trains on. Why this is done: with random weights
two hours on two cores teach names of tools by heart; from this start half an hour teaches to read (`README.md`).
"""

from __future__ import annotations

import math

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.conversation import END, NAMED
from training.model import Block, Model
from training.tokenizer import SPACE, canonical, listed

CONSTANT = 0
SPACED, CAPITAL = 1, 2
CLOSES = 3  # the end of a turn
BALLAST = 4  # makes all tokens equally long, so that the first norm changes no proportion between them
IDENTITY = range(5, 64)
MEANING = range(64, 128)
PREVIOUS = range(128, 192)
BAG = range(192, 256)

Z = 0.1  # scale of an identity dimension
DEPTH = 8.0  # logits that a place outside a window lacks
REACH = 1000  # distances in tokens for which windows are fitted
CONSTANT_SEEN = 3.3  # the constant dimension after the first norm

SLOW = 0.0015  # rotary frequencies below this hardly turn within a prompt: content may live there

# Heads by task; training supervises the last two groups (`train.py`).
PREVIOUS_HEAD = 0
BAG_HEADS = {1: 20, 2: 24}  # head: tokens that its bag of words takes in
COPY_HEADS = slice(0, 2)
REQUEST_HEADS = slice(2, 3)
CHOICE_HEADS = slice(0, 3)
BEGIN_HEADS = slice(0, 2)
COPY_LAYER, REQUEST_LAYER, CHOICE_LAYER, BEGIN_LAYER = 1, 1, 2, 3


def lay_out(model: Model, tokenizer: Tokenizer, vectors: Tensor, seed: int) -> None:
    """Set embeddings and the first three blocks. `vectors` is [vocabulary, 64], from `wordvectors.learn`."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _embed(model, tokenizer, vectors, random)
        for block in model.blocks:
            block.output.weight.mul_(0.15)  # type: ignore[operator, union-attr]
            block.down.weight.mul_(0.15)  # type: ignore[operator, union-attr]
        _read_identity(model)
        _Heads(model, 0).neighbourhood()
        _Heads(model, 1).copying(random)
        mark = model.embedding.weight[tokenizer.token_to_id(SPACE + NAMED), IDENTITY.start : IDENTITY.stop]
        _Heads(model, 2).choosing(random, mark / mark.norm())
        _Heads(model, 3).beginning(random)


def _embed(model: Model, tokenizer: Tokenizer, vectors: Tensor, random: torch.Generator) -> None:
    """Tokens that differ in case or space alone share identity and meaning, and differ in a flag."""
    table = model.embedding.weight
    table.normal_(0, 0.005, generator=random)
    table[:, CONSTANT] = 3 * Z
    identities: dict[str, Tensor] = {}
    loud = vectors.norm(dim=1).quantile(0.8)
    louder = vectors.norm(dim=1, keepdim=True).clamp(min=1.3 * loud) / (1.3 * loud)  # what is too loud is damped
    table[:, MEANING.start : MEANING.stop] = vectors / louder / loud * Z * 8
    for index, token in enumerate(listed(tokenizer)):
        name = canonical(token)
        if name not in identities:
            identities[name] = torch.randn(len(IDENTITY), generator=random) * Z
        table[index, IDENTITY.start : IDENTITY.stop] = identities[name]
        table[index, CLOSES] = 6 * Z if token == END else 0.0
        table[index, SPACED] = (2 if token.startswith(SPACE) else -2) * Z
        table[index, CAPITAL] = (2 if token.removeprefix(SPACE)[:1].isupper() else -2) * Z
    table[:, BALLAST] = 0
    lengths = table.norm(dim=1)
    table[:, BALLAST] = (lengths.max() ** 2 - lengths**2).sqrt()


def _read_identity(model: Model) -> None:
    """The last norm lets through which token it is, and nothing that only makes tokens alike in length or meaning."""
    model.norm.weight[[CONSTANT, BALLAST, *MEANING]] = 0.0


class _Heads:
    """Writes single attention heads of one layer."""

    def __init__(self, model: Model, layer: int) -> None:
        block = model.blocks[layer]
        assert isinstance(block, Block)  # noqa: S101
        self.block = block
        self.width = model.shape.head_width
        self.dimensions = model.shape.width
        half = self.width // 2
        self.frequencies = [model.shape.rope_base ** (-2 * index / self.width) for index in range(half)]
        self.slow = [index for index in range(self.width) if self.frequencies[index // 2] < SLOW]

    def neighbourhood(self) -> None:
        """One head brings the previous token's identity; two average the meaning of the words before."""
        what = [SPACED, CAPITAL, CLOSES, *IDENTITY]
        self._write(PREVIOUS_HEAD, *self._previous(), what, [dim + PREVIOUS.start for dim in what], 0.75 * Z)
        for head, tokens in BAG_HEADS.items():
            self._write(head, *self._window(tokens), list(MEANING), list(BAG), 3 * Z)

    def copying(self, random: torch.Generator) -> None:
        """Heads that copy what once followed this token (induction), and one that carries the request.

        Copies are quieter than the token itself: the choice reads here which token a name begins with.
        """
        what = [CAPITAL, *IDENTITY]
        for head, asked in self._shares(COPY_HEADS, IDENTITY, len(self.slow), random):
            query, key = self._match(asked, [dim + PREVIOUS.start for dim in asked], 2.0)
            self._write(head, query, key, what, what, Z)
        for head in range(REQUEST_HEADS.start, REQUEST_HEADS.stop):
            self._write(head, *self._last_close(), list(BAG), list(MEANING), 6 * Z)

    def choosing(self, random: torch.Generator, mark: Tensor) -> None:
        """Heads that compare the request's words with those around each name, and copy the name's first piece."""
        what = [CAPITAL, *IDENTITY]
        *slots, marks = self.slow
        for head, asked in self._shares(CHOICE_HEADS, BAG, len(slots), random):
            query, key = self._match([dim - BAG.start + MEANING.start for dim in asked], asked, 1.6)
            query[marks, CONSTANT] = 5.0
            key[marks, PREVIOUS.start + IDENTITY.start : PREVIOUS.start + IDENTITY.stop] = 5.0 * mark
            noise = torch.randn(2, *query.shape, generator=random) * 0.02
            self._write(head, query + noise[0], key + noise[1], what, what, 2 * Z)

    def beginning(self, random: torch.Generator) -> None:
        """Heads that copy the first piece of a value; where it begins is learned."""
        what = [CAPITAL, *IDENTITY]
        for head in range(BEGIN_HEADS.start, BEGIN_HEADS.stop):
            query, key = torch.randn(2, self.width, self.dimensions, generator=random) * 0.03
            self._write(head, query, key, what, what, 2 * Z)

    def _shares(
        self, heads: slice, dimensions: range, size: int, random: torch.Generator
    ) -> list[tuple[int, list[int]]]:
        """For each head `size` of the dimensions: together all of them, then some of them again."""
        order = [dimensions[index] for index in torch.randperm(len(dimensions), generator=random).tolist()] * 4
        return [
            (head, order[turn * size : (turn + 1) * size]) for turn, head in enumerate(range(heads.start, heads.stop))
        ]

    def _previous(self) -> tuple[Tensor, Tensor]:
        """Query and key that attend to the place before, whatever it holds."""
        query, key = torch.zeros(self.width, self.dimensions), torch.zeros(self.width, self.dimensions)
        for pair, weight in enumerate((3.0, 3.0, 3.0, 3.0, 2.0)):
            key[2 * pair, CONSTANT] = weight
            query[2 * pair, CONSTANT] = weight * math.cos(self.frequencies[pair])
            query[2 * pair + 1, CONSTANT] = -weight * math.sin(self.frequencies[pair])
        return query, key

    def _window(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Query and key that attend alike to the last `tokens` places and hardly to any before, whatever they hold."""
        reach = torch.arange(REACH).double()
        weight = torch.where(
            reach < tokens, 20.0, torch.where(reach < tokens + 4, 0.0, torch.where(reach < 60, 2.0, 0.3))
        )
        return self._fall(torch.where(reach < tokens, 0.0, -DEPTH), weight)

    def _last_close(self) -> tuple[Tensor, Tensor]:
        """Query and key that attend to the last end of a turn: ends attract, the more the nearer."""
        reach = torch.arange(REACH).double()
        query, key = self._fall((-0.4 * reach).clamp(min=-DEPTH), torch.where(reach < 60, 5.0, 0.3))
        slot = self.slow[-1]
        query[slot, CONSTANT], key[slot, CLOSES] = 1.7, 1.7
        return query, key

    def _fall(self, wanted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key whose product is the logit `wanted` at each distance, by least squares over the rotary pairs.

        Where -DEPTH is wanted, lower is as good. Inside a window 0 is wanted, since the constant that carries the
        product is not the same at all tokens.
        """
        turned = torch.arange(REACH).double()[:, None] * torch.tensor(self.frequencies, dtype=torch.double)
        waves = torch.cat((turned.cos(), turned.sin()), 1)
        ridge = 1e-4 * torch.eye(waves.shape[1], dtype=torch.double)
        wanted, weight = wanted.double(), weight.double()
        low = wanted <= -DEPTH
        for _ in range(60):
            found = torch.linalg.solve(waves.T @ (waves * weight[:, None]) + ridge, waves.T @ (weight * wanted))
            wanted = torch.where(low, (waves @ found).clamp(max=-DEPTH), wanted)
        even, odd = found.float().view(2, -1) * math.sqrt(self.width) / CONSTANT_SEEN**2
        query, key = torch.zeros(self.width, self.dimensions), torch.zeros(self.width, self.dimensions)
        loud = 1.5
        key[0::2, CONSTANT] = loud
        query[0::2, CONSTANT], query[1::2, CONSTANT] = even / loud, -odd / loud
        return query, key

    def _match(self, asked: list[int], offered: list[int], sharpness: float) -> tuple[Tensor, Tensor]:
        query, key = torch.zeros(self.width, self.dimensions), torch.zeros(self.width, self.dimensions)
        for slot, mine, theirs in zip(self.slow, asked, offered, strict=False):
            query[slot, mine] = sharpness
            key[slot, theirs] = sharpness
        return query, key

    def _write(self, head: int, query: Tensor, key: Tensor, moved: list[int], to: list[int], loudness: float) -> None:
        rows = slice(head * self.width, (head + 1) * self.width)
        value, output = torch.zeros(self.width, self.dimensions), torch.zeros(self.dimensions, self.width)
        for slot, (source, target) in enumerate(zip(moved, to, strict=True)):
            value[slot, source] = 1.0
            output[target, slot] = loudness
        self.block.query.weight[rows] = query
        self.block.key.weight[rows] = key
        self.block.value.weight[rows] = value
        self.block.output.weight[:, rows] = output
