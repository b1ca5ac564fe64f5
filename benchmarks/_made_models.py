"""Small GGUF files of real architectures with random weights, written with the `gguf` package.

They say nothing sensible; llama.cpp loads and serves them, so its memory report can be held against the estimate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TEMPLATE = (
    "{%- for message in messages -%}{{ message['role'] }}: {{ message['content'] }}\n{% endfor -%}"
    "{%- if add_generation_prompt -%}assistant:{%- endif -%}"
)


@dataclass(frozen=True)
class Made:
    """What to make. `pattern` marks the sliding layers; `experts` 0 means dense; `shared` layers own no KV. `speaks` is
    a GGUF file whose tokenizer and chat template it takes; tools are then listed as JSON, as most models have them.
    """

    architecture: str
    layers: int = 4
    width: int = 256
    heads: int = 8
    kv_heads: int = 4
    head: int = 32
    head_sliding: int = 0
    kv_heads_global: int = 0
    feed_forward: int = 512
    vocabulary: int = 1024
    context: int = 32_768
    window: int = 0
    pattern: tuple[bool, ...] = ()
    shared: int = 0
    per_layer: int = 0
    experts: int = 0
    experts_used: int = 0
    name: str = "made"
    speaks: Path | None = None
    quantised: bool = False  # Q8_0 instead of F16
    extra: Mapping[str, Any] = field(default_factory=dict)

    def sliding(self, layer: int) -> bool:
        return bool(self.pattern) and self.pattern[layer % len(self.pattern)]

    def head_of(self, layer: int) -> int:
        return self.head_sliding if self.head_sliding and self.sliding(layer) else self.head

    def kv_heads_of(self, layer: int) -> int:
        return self.kv_heads_global if self.kv_heads_global and not self.sliding(layer) else self.kv_heads


KINDS: Mapping[str, Made] = {
    "llama": Made("llama"),
    "mistral": Made("llama", layers=6, width=320, heads=8, kv_heads=2, head=64, feed_forward=1024, vocabulary=4096),
    "gemma2": Made("gemma2", layers=6, window=512, head=64, heads=4, kv_heads=2),
    "gemma3": Made("gemma3", layers=12, window=512, head=64, heads=4, kv_heads=1, vocabulary=8192),
    "gemma4": Made(
        "gemma4",
        layers=10,
        heads=4,
        kv_heads=2,
        head=128,
        head_sliding=64,
        window=512,
        pattern=(True, True, True, True, False),
        shared=5,
        per_layer=32,
        vocabulary=4096,
    ),
    "gemma4-dense": Made(
        "gemma4",
        layers=12,
        heads=8,
        kv_heads=4,
        kv_heads_global=2,
        head=128,
        head_sliding=64,
        window=1024,
        pattern=(True, True, True, True, True, False),
    ),
    "moe": Made("llama", layers=4, experts=8, experts_used=2, feed_forward=256),
    "qwen3moe": Made("qwen3moe", layers=6, head=64, kv_heads=2, heads=4, experts=16, experts_used=4, feed_forward=128),
}


DRAWN = 2**22  # numbers of a large tensor that are drawn before they repeat, where it is only to be large


def write(made: Made, path: Path, *, seed: int = 0, repeating: bool = False) -> Path:
    """Write the file; the same `made` and `seed` give the same bytes. `repeating`: for gigabytes in seconds."""
    random = np.random.default_rng(seed)
    spoken = gguf.GGUFReader(str(made.speaks)).fields if made.speaks else None
    if spoken:
        made = replace(made, vocabulary=len(spoken["tokenizer.ggml.tokens"].contents()))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), made.architecture)
    _metadata(writer, made)
    if spoken:
        _speaking(writer, spoken)
    else:
        _babbling(writer, made.vocabulary)
    for name, shape in _tensors(made):
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
        else:
            count = min(int(np.prod(shape)), DRAWN) if repeating else int(np.prod(shape))
            values = np.resize(random.standard_normal(count, dtype=np.float32) * 0.05, shape)
            if made.quantised:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(writer: gguf.GGUFWriter, made: Made) -> None:
    writer.add_name(made.name)
    writer.add_context_length(made.context)
    writer.add_embedding_length(made.width)
    writer.add_block_count(made.layers)
    writer.add_feed_forward_length(made.feed_forward)
    writer.add_head_count(made.heads)
    if made.kv_heads_global:
        writer.add_head_count_kv([made.kv_heads_of(layer) for layer in range(made.layers)])
    else:
        writer.add_head_count_kv(made.kv_heads)
    writer.add_key_length(made.head)
    writer.add_value_length(made.head)
    writer.add_rope_dimension_count(made.head)
    writer.add_layer_norm_rms_eps(1e-5)
    if made.window:
        writer.add_sliding_window(made.window)
    if made.head_sliding:
        writer.add_key_length_swa(made.head_sliding)
        writer.add_value_length_swa(made.head_sliding)
        writer.add_rope_dimension_count_swa(made.head_sliding)
    if made.pattern:
        writer.add_sliding_window_pattern([made.sliding(layer) for layer in range(made.layers)])
    if made.architecture == "gemma4":
        writer.add_shared_kv_layers(made.shared)
        writer.add_embedding_length_per_layer_input(made.per_layer)
    if made.experts:
        writer.add_expert_count(made.experts)
        writer.add_expert_used_count(made.experts_used)
        writer.add_expert_feed_forward_length(made.feed_forward)
    for key, value in made.extra.items():
        writer.add_string(key, value)
    if made.quantised:
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(made.vocabulary)


def _babbling(writer: gguf.GGUFWriter, size: int) -> None:
    """A tokenizer of bytes and of numbered tokens that mean nothing."""
    letters = _byte_letters()
    tokens = ["<s>", "</s>", *letters, *(f"<{number}>" for number in range(size - len(letters) - 2))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)


def _speaking(writer: gguf.GGUFWriter, known: Mapping[str, Any]) -> None:
    """The built-in model's tokenizer and template, or that of one like it, from its file's fields."""

    def held(name: str) -> Any:
        return known[f"tokenizer.{name}"].contents()

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(held("ggml.tokens")))
    writer.add_token_types(list(held("ggml.token_type")))
    writer.add_token_merges(list(held("ggml.merges")))
    writer.add_bos_token_id(int(held("ggml.bos_token_id")))
    writer.add_eos_token_id(int(held("ggml.eos_token_id")))
    writer.add_add_bos_token(False)
    head, rest = str(held("chat_template")).split("{%- for tool in tools -%}")
    _, tail = rest.split("{{- ']' -}}\n{%- endfor -%}")
    writer.add_chat_template(head + "{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}" + tail)


def _tensors(made: Made) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, slowest dimension first, as numpy has it."""
    gemma = made.architecture.startswith("gemma")
    width, wide = made.width, made.feed_forward
    yield "token_embd.weight", (made.vocabulary, width)
    yield "output_norm.weight", (width,)
    if not gemma:
        yield "output.weight", (made.vocabulary, width)
    if made.per_layer:
        yield "per_layer_token_embd.weight", (made.vocabulary, made.per_layer * made.layers)
        yield "per_layer_model_proj.weight", (made.per_layer * made.layers, width)
        yield "per_layer_proj_norm.weight", (made.per_layer,)
    if made.architecture == "gemma4":
        yield "rope_freqs.weight", (made.head // 2,)
    for layer in range(made.layers):
        block, head, kv = f"blk.{layer}", made.head_of(layer), made.kv_heads_of(layer)
        owns = layer < made.layers - made.shared
        yield f"{block}.attn_norm.weight", (width,)
        yield f"{block}.attn_q.weight", (made.heads * head, width)
        if owns:
            yield f"{block}.attn_k.weight", (kv * head, width)
            yield f"{block}.attn_v.weight", (kv * head, width)
        yield f"{block}.attn_output.weight", (width, made.heads * head)
        if made.architecture in ("gemma3", "gemma4", "qwen3moe"):
            yield f"{block}.attn_q_norm.weight", (head,)
            if owns:
                yield f"{block}.attn_k_norm.weight", (head,)
        if gemma:
            yield f"{block}.post_attention_norm.weight", (width,)
            yield f"{block}.post_ffw_norm.weight", (width,)
        yield f"{block}.ffn_norm.weight", (width,)
        if made.experts:
            yield f"{block}.ffn_gate_inp.weight", (made.experts, width)
            yield f"{block}.ffn_gate_exps.weight", (made.experts, wide, width)
            yield f"{block}.ffn_up_exps.weight", (made.experts, wide, width)
            yield f"{block}.ffn_down_exps.weight", (made.experts, width, wide)
        else:
            yield f"{block}.ffn_gate.weight", (wide, width)
            yield f"{block}.ffn_up.weight", (wide, width)
            yield f"{block}.ffn_down.weight", (width, wide)
        if made.per_layer:
            yield f"{block}.inp_gate.weight", (made.per_layer, width)
            yield f"{block}.proj.weight", (width, made.per_layer)
            yield f"{block}.post_norm.weight", (width,)


def _byte_letters() -> list[str]:
    """The 256 letters a byte-level vocabulary starts with (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [256 + place for place, _ in enumerate(sorted(set(range(256)) - set(plain)))]
    return [chr(code) for code in [*plain, *rest]]
