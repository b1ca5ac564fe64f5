"""A GGUF file of the size of a small real model, with random weights: what it costs to ask is real, what it answers is
not. It has the built-in model's tokenizer, and lists tools as JSON, as most models' templates do.
"""

from pathlib import Path

import gguf
import numpy as np

from gateway.models.builtin import BALANCED

WIDTH, LAYERS, HEADS, KV_HEADS, WIDE, CONTEXT = 1024, 24, 16, 4, 2816, 16_384


def write(path: Path, *, seed: int = 0) -> Path:
    """Write the file, 300 MB; the same seed gives the same bytes."""
    random = np.random.default_rng(seed)
    known = gguf.GGUFReader(str(BALANCED)).fields
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokens = list(known["tokenizer.ggml.tokens"].contents())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(list(known["tokenizer.ggml.token_type"].contents()))
    writer.add_token_merges(list(known["tokenizer.ggml.merges"].contents()))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_listing_json(str(known["tokenizer.chat_template"].contents())))
    for name in ("token_embd", "output"):
        _add(writer, f"{name}.weight", random.standard_normal((len(tokens), WIDTH), dtype=np.float32) * 0.02)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    kv = WIDTH // HEADS * KV_HEADS
    for layer in range(LAYERS):
        for name, shape in (
            ("attn_q", (WIDTH, WIDTH)),
            ("attn_k", (kv, WIDTH)),
            ("attn_v", (kv, WIDTH)),
            ("attn_output", (WIDTH, WIDTH)),
            ("ffn_gate", (WIDE, WIDTH)),
            ("ffn_up", (WIDE, WIDTH)),
            ("ffn_down", (WIDTH, WIDE)),
        ):
            _add(writer, f"blk.{layer}.{name}.weight", random.standard_normal(shape, dtype=np.float32) * 0.02)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _listing_json(template: str) -> str:
    """The built-in model's template with each tool as JSON, which is how larger models have it."""
    head, rest = template.split("{%- for tool in tools -%}")
    _, tail = rest.split("{{- ']' -}}\n{%- endfor -%}")
    return head + "{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}" + tail


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray) -> None:
    quantised = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
