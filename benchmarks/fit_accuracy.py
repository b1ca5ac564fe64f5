"""What `toolkit models fit` says against what llama.cpp reports it allocated, on made models of each architecture."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks._made_models import KINDS, write
from gateway.models import fit, gguf
from gateway.models.architecture import from_header
from gateway.process import free_port, python_module
from gateway.upstreams.llamacpp import LlamaServerSpec, arguments

CASES = ((4096, 1, "f16"), (8192, 2, "f16"), (16_384, 1, "q8_0"), (32_768, 1, "q4_0"))
_BUFFER = re.compile(r"(model|KV|compute) buffer size\s*=\s*([0-9.]+) MiB")


class Row(NamedTuple):
    """MiB: what was estimated, what llama.cpp reported."""

    kind: str
    context: int
    slots: int
    kv: str
    estimated: float
    reported: float
    kv_estimated: float
    kv_reported: float

    @property
    def error(self) -> float:
        """Relative error of the total."""
        return self.estimated / self.reported - 1


def compare(kind: str, folder: Path, context: int, slots: int, kv: str) -> Row:
    """Estimate and measure one made model."""
    path = folder / f"{kind}.gguf"
    if not path.exists():
        write(KINDS[kind], path)
    header = gguf.read_file(path)
    weights = sum(tensor.size for tensor in header.tensors)
    need = fit.memory(from_header(header), weights, context, slots=slots, kv=kv)
    spec = LlamaServerSpec(path, kind, context=context, slots=slots, threads=1, kv=kv, cache_ram_mib=0)  # type: ignore[arg-type]
    reported = report(spec)
    mib = 2**20
    return Row(kind, context, slots, kv, need.total / mib, sum(reported.values()), need.kv / mib, reported["KV"])


def report(spec: LlamaServerSpec) -> dict[str, float]:
    """What llama.cpp says it allocated when it starts on `spec`: MiB of model, KV and compute buffers."""
    from dataclasses import replace

    argv = python_module("gateway.upstreams.xllamacpp_server", *arguments(replace(spec, port=free_port())))
    process = subprocess.Popen(
        [*argv, "--verbosity", "4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found = {"model": 0.0, "KV": 0.0, "compute": 0.0}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            for what, size in _BUFFER.findall(line):
                found[what] += float(size)
            if "listening on" in line:
                return found
    finally:
        process.kill()
        process.communicate()
    raise RuntimeError(f"llama.cpp did not start on {spec.gguf}")


def main() -> None:
    """Print the table of the docs."""
    print("| model | context | slots | KV type | estimated MiB | llama.cpp MiB | error | KV estimated | KV llama.cpp |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for context, slots, kv in CASES:
                row = compare(kind, Path(folder), context, slots, kv)
                worst = max(worst, abs(row.error))
                print(
                    f"| {kind} | {context:,} | {slots} | {kv} | {row.estimated:.2f} | {row.reported:.2f} | "
                    f"{row.error:+.1%} | {row.kv_estimated:.2f} | {row.kv_reported:.2f} |",
                    flush=True,
                )
    print(f"\nlargest error: {worst:.1%} (bar: 3 %)")


if __name__ == "__main__":
    sys.exit(main())
