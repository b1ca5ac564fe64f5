"""What of a model's build decides its memory: which layers keep a KV cache, how wide, and over how many tokens.

Read from a GGUF header, or written down in the catalogue. Sources: llama.cpp's per-architecture code
(`load_arch_hparams`) for the patterns that files do not carry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.models.gguf import Header

# Sliding-window patterns that llama.cpp knows by architecture where the file has no pattern of its own: of every
# N layers the last is global (first, where the sign is negative).
_PATTERNS: Mapping[str, int] = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "llama4": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": -4,
}
# Architectures whose memory is not, or not only, a KV cache of this form: estimated as if all layers were global.
_OTHER = ("mamba", "rwkv", "jamba", "granitehybrid", "nemotron_h", "falcon-h1", "lfm2", "plamo2", "qwen3next", "qwen35")
MAX_LAYERS = 1024  # twice what llama.cpp takes; more is a hostile file
_LATENT = ("deepseek2", "deepseek3", "glm-dsa", "minicpm3", "plm", "kimi-linear", "mistral4")


@dataclass(frozen=True)
class Layers:
    """`count` layers alike: numbers kept for each token in K and in V (heads times head size), and over what."""

    count: int
    k: int
    v: int
    sliding: bool = False


@dataclass(frozen=True)
class Architecture:
    """A model's memory shape. Layers that reuse another layer's KV are not listed.

    `width`, `feed_forward` (active experts counted), `query` and `per_layer` size the compute buffer; 0 if unknown.
    `exact` is False where the arithmetic is known to be only an upper bound or a guess.
    """

    name: str
    layers: tuple[Layers, ...]
    context: int
    window: int = 0
    width: int = 0
    feed_forward: int = 0
    query: int = 0
    per_layer: int = 0
    exact: bool = True


def from_header(header: Header) -> Architecture:
    """The memory shape a GGUF header tells of. Missing or senseless values make it inexact, never fail."""
    blocks = _int(header.own("block_count"))
    if blocks > MAX_LAYERS:
        blocks = 0
    heads = _each(header.own("attention.head_count"), blocks)
    kv_heads = _each(header.own("attention.head_count_kv"), blocks) or heads
    width = _int(header.own("embedding_length"))
    head = width // heads[0] if heads and heads[0] else 0
    k, v = _int(header.own("attention.key_length")) or head, _int(header.own("attention.value_length")) or head
    k_sliding = _int(header.own("attention.key_length_swa")) or k
    v_sliding = _int(header.own("attention.value_length_swa")) or v
    window = _int(header.own("attention.sliding_window"))
    sliding = _sliding(header, blocks) if window else [False] * blocks
    own = _layers_with_kv(header, blocks)
    groups: dict[tuple[int, int, bool], int] = {}
    for layer in range(own if kv_heads else 0):
        kind = (
            kv_heads[layer] * (k_sliding if sliding[layer] else k),
            kv_heads[layer] * (v_sliding if sliding[layer] else v),
            sliding[layer],
        )
        groups[kind] = groups.get(kind, 0) + 1
    used = max(1, _int(header.own("expert_used_count")))
    expert = max(_each(header.own("expert_feed_forward_length"), blocks), default=0)
    dense = max(_each(header.own("feed_forward_length"), blocks), default=0)
    name = header.architecture
    return Architecture(
        name=name,
        layers=tuple(Layers(count, k, v, swa) for (k, v, swa), count in sorted(groups.items()) if k or v),
        context=header.context_length or 0,
        window=window if any(sliding) else 0,
        width=width,
        feed_forward=max(dense, (expert or dense) * used) if _int(header.own("expert_count")) else dense,
        query=max(heads, default=0) * max(k, k_sliding),
        per_layer=_int(header.own("embedding_length_per_layer_input")) * blocks,
        exact=bool(groups) and not name.startswith(_OTHER) and name not in _LATENT,
    )


def _sliding(header: Header, blocks: int) -> list[bool]:
    pattern = header.own("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) >= blocks:
        return [bool(value) for value in pattern[:blocks]]
    period = pattern if isinstance(pattern, int) and pattern > 0 else _PATTERNS.get(header.architecture, 0)
    if period == 0:
        return [False] * blocks  # llama.cpp reads the key but slides no layer
    if period < 0:
        return [layer % -period != 0 for layer in range(blocks)]
    return [layer % period < period - 1 for layer in range(blocks)]


def _layers_with_kv(header: Header, blocks: int) -> int:
    """Layers from the first that own their KV; the later ones reuse it."""
    if header.architecture == "gemma3n":
        return min(blocks, 20)
    return max(0, blocks - _int(header.own("attention.shared_kv_layers")))


def _int(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0


def _each(value: Any, blocks: int) -> list[int]:
    """A value that is one number for all layers or a list with one for each."""
    if isinstance(value, list):
        return [_int(one) for one in (value + value[-1:] * blocks)[:blocks]] if value else []
    return [_int(value)] * blocks if _int(value) else []
