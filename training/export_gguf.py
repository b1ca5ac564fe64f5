"""Writes a trained model as a GGUF file: weights, tokenizer, chat template, and where it comes from.

python -m training.export_gguf out/training/model.pt gateway/models/builtin/toolkit-tiny-q8_0.gguf --name toolkit-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants

from training import provenance
from training.model import Shape
from training.tokenizer import PAD, SPECIAL

TEMPLATE = Path(__file__).with_name("chat_template.jinja")
KINDS = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
NAMES = {
    "attention_norm": "attn_norm",
    "feed_norm": "ffn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
CONTROL = (PAD, "<|im_start|>", "<|im_end|>")


def write(checkpoint: Path, out: Path, name: str, kind: str, commit: str) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    shape, plan = Shape(**saved["shape"]), saved["plan"]
    words = json.loads(checkpoint.with_name("tokenizer.json").read_text(encoding="utf-8"))
    part = out.with_name(out.name + ".part")
    writer = GGUFWriter(part, "llama")
    _describe(writer, shape, plan, name, kind, commit)
    _tokenizer(writer, words)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8"))
    for tensor, values in saved["weights"].items():
        _tensor(writer, _gguf_name(tensor), values.float().numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)


def _describe(writer: GGUFWriter, shape: Shape, plan: dict[str, Any], name: str, kind: str, commit: str) -> None:
    writer.add_name(name)
    writer.add_description("A demonstration model that chooses tools. Trained from scratch on made-up text.")
    writer.add_license("apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(KINDS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_string("toolkit.commit", commit)
    writer.add_uint32("toolkit.seed", plan["seed"])
    writer.add_string("toolkit.data", provenance.data_hash(plan["seed"]))
    writer.add_string("toolkit.plan", json.dumps(plan, sort_keys=True))


def _tokenizer(writer: GGUFWriter, words: dict[str, Any]) -> None:
    vocabulary: dict[str, int] = words["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = [
        TokenType.CONTROL if token in CONTROL else TokenType.USER_DEFINED if token in SPECIAL else TokenType.NORMAL
        for token in tokens
    ]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in words["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary["<|im_start|>"])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_pad_token_id(vocabulary[PAD])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _gguf_name(tensor: str) -> str:
    if tensor == "embedding.weight":
        return "token_embd.weight"
    if tensor == "norm.weight":
        return "output_norm.weight"
    _, layer, part, _ = tensor.split(".")
    return f"blk.{layer}.{NAMES[part]}.weight"


def _tensor(writer: GGUFWriter, name: str, values: np.ndarray[Any, Any], kind: str) -> None:
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(name, values.astype(np.float32))
    elif kind == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        type_ = KINDS[kind][0]
        writer.add_tensor(name, quants.quantize(values, type_), raw_dtype=type_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="toolkit-tiny")
    parser.add_argument("--kind", choices=KINDS, default="Q8_0")
    parser.add_argument("--commit", default=None, help="what the file names as its commit (default: that of this tree)")
    options = parser.parse_args()
    write(options.checkpoint, options.out, options.name, options.kind, options.commit or provenance.commit())
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
