"""A Llama-architecture transformer as llama.cpp runs it (RMS norm, interleaved rotary positions, SwiGLU, tied output).

Knows nothing of tools or data. Several branches may follow one shared trunk: `Layout` says which tokens they are, so
that everything but attention runs on one flat list of tokens without padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch stand: trunks, each followed by independent branches that see it and themselves.

    positions: [tokens]; trunks: [trunks, longest trunk] and branches: [branches, longest branch], indices of tokens,
    where padded the index of any token; back: [tokens], the place of each token in (trunks, branches) flattened;
    parents: [branches]; sees: [branches, 1, longest branch, longest trunk + longest branch], true where a branch's
    token may attend.
    """

    positions: Tensor
    trunks: Tensor
    branches: Tensor
    back: Tensor
    parents: Tensor
    sees: Tensor

    def by_branch(self, x: Tensor) -> Tensor:
        """Tokens [tokens, ...] as each branch sees them: [branches, longest trunk + longest branch, ...]."""
        return torch.cat((x[self.trunks][self.parents], x[self.branches]), 1)


@dataclass(frozen=True)
class Shape:
    vocabulary: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    context: int = 4096
    rope_base: float = 100_000_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def angles(shape: Shape, positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [positions, head_width / 2]."""
    frequency = shape.rope_base ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
    turned = torch.outer(torch.arange(positions).float(), frequency)
    return turned.cos(), turned.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding of interleaved pairs, llama.cpp's "norm" kind. Pairs are the last dimension's."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = Norm(shape.width, shape.epsilon)
        self.feed_norm = Norm(shape.width, shape.epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, layout: Layout, only: Tensor | None = None) -> Tensor:
        """The stream [tokens, width] after this block; of the tokens `only` (indices, all in branches) where given."""
        tokens, width = x.shape
        h = self.attention_norm(x)
        q, k, v = (part(h).view(tokens, self.heads, -1) for part in (self.query, self.key, self.value))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        branches = attend(q[layout.branches], layout.by_branch(k), layout.by_branch(v), layout.sees)
        if only is None:
            length = layout.trunks.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
            trunks = attend(q[layout.trunks], k[layout.trunks], v[layout.trunks], causal)
            mixed = torch.cat((trunks.reshape(-1, width), branches.reshape(-1, width)))[layout.back]
        else:
            mixed = branches.reshape(-1, width)[layout.back[only] - layout.trunks.numel()]
            x = x[only]
        x = x + self.output(mixed)
        h = self.feed_norm(x)
        fed: Tensor = self.down(F.silu(self.gate(h)) * self.up(h))
        return x + fed


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of q, k, v [rows, length, heads, head_width]; `mask` [rows or 1, 1, queries, keys] is true where seen.

    PyTorch's own kernel in 32 bits: half as fast again as written out, and bfloat16 is slow where a CPU lacks it.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


class Model(nn.Module):
    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 if "embedding" in name else parameter.shape[1] ** -0.5
                if name.endswith(("output.weight", "down.weight")):
                    scale /= math.sqrt(2 * shape.layers)
                nn.init.normal_(parameter, 0, scale)
        cosine, sine = angles(shape, shape.context)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def streams(self, ids: Tensor, layout: Layout, only: Tensor | None = None) -> list[Tensor]:
        """The residual stream [tokens, width] before each block, and after the last one normalised.

        Where `only` is given (indices of tokens in branches), the last one is computed of those alone: in training
        most tokens of the last block would be computed for nothing.
        """
        cosine, sine = self.cosine[layout.positions][:, None], self.sine[layout.positions][:, None]
        x = self.embedding(ids)
        streams = []
        for number, block in enumerate(self.blocks, start=1):
            streams.append(x)
            x = block(x, cosine, sine, layout, only if number == len(self.blocks) else None)
        return [*streams, self.norm(x)]

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight)

    def attention_loss(self, layer: int, heads: slice, stream: Tensor, layout: Layout, points: Tensor) -> Tensor:
        """-log of the attention that `heads` of `layer` pay from one place to another, averaged.

        `points` is [n, 3]: a branch, the place in it that asks, the place (in trunk and branch) it should attend to.
        """
        block = self.blocks[layer]
        assert isinstance(block, Block)  # noqa: S101
        width, count = self.shape.head_width, heads.stop - heads.start
        rows = slice(heads.start * width, heads.stop * width)
        h = block.attention_norm(stream)
        cosine, sine = self.cosine[layout.positions][:, None], self.sine[layout.positions][:, None]
        keys = rotate(F.linear(h, block.key.weight[rows]).view(len(h), count, width), cosine, sine)
        branch, asks, target = points.unbind(1)
        token = layout.branches[branch, asks]
        queries = F.linear(h[token], block.query.weight[rows]).view(len(points), count, width)
        queries = rotate(queries, cosine[token], sine[token])
        seen = layout.by_branch(keys)[branch]
        scores = torch.einsum("nkhd,nhd->nhk", seen.float(), queries.float()) / math.sqrt(width)
        scores = scores.masked_fill(~layout.sees[branch, 0, asks][:, None], -1e9)
        chosen = F.log_softmax(scores, -1).gather(2, target[:, None, None].expand(-1, count, 1))
        return -chosen.mean()
