"""Time from the start of serving to the first token: `models serve` against llama.cpp's server alone, in turn.

Bare is the same llama.cpp in a child of its own, started by hand with the same options and asked as soon as it
answers. What the command adds before it starts the child (imports, the file's header) is in its time. Two models: the
built-in one of 5 MB, where that is most of the time, and one with random weights of 720 MiB, still smaller than any
in the catalogue.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx

from benchmarks._made_models import Made, write
from gateway.process import free_port
from gateway.settings import Settings
from gateway.upstreams.discovery import builtin_specs
from gateway.upstreams.llamacpp import LlamaServerSpec, arguments, spec_for
from gateway.upstreams.xllamacpp_server import _cores

ROUNDS = 9
LARGE = Made("llama", layers=8, width=1536, heads=12, kv_heads=4, head=128, feed_forward=6144, vocabulary=32_768)
BARE = """
import json, sys, xllamacpp
options = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx = options["--model"], int(options["--port"]), int(options["--ctx-size"])
params.n_parallel, params.cpuparams.n_threads = int(options["--parallel"]), int(options["--threads"])
params.cache_ram_mib, params.use_jinja, params.ui, params.verbosity = int(options["--cache-ram"]), True, False, 3
params.endpoint_metrics = True
server = xllamacpp.Server(params)
sys.stdin.read()
"""


def main() -> None:
    """Print, for both models, the median of both ways and the median of the ratios and differences, pair by pair."""
    print("the built-in model")
    _compare("toolkit-tiny", replace(builtin_specs(Settings())[0], slots=1, threads=1))
    with tempfile.TemporaryDirectory() as folder:
        path = write(LARGE, Path(folder) / "large.gguf")
        print(f"random weights, {path.stat().st_size / 2**20:.0f} MiB")
        _compare(str(path), spec_for(path, path.stem, Settings(), slots=1, threads=_cores()))


def _compare(typed: str, spec: LlamaServerSpec) -> None:
    ours = ["-P", "-m", "toolkit.cli.main", "models", "serve", typed, "--port"]
    pairs = [(_timed([sys.executable, *ours], spec), _timed(None, spec)) for _ in range(ROUNDS)]
    served, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"  toolkit models serve  {served * 1000:6.0f} ms to the first token")
    print(f"  llama.cpp alone       {bare * 1000:6.0f} ms")
    print(f"  difference            {statistics.median(a - b for a, b in pairs) * 1000:6.0f} ms")
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"  ratio                 {ratio:6.2f}   (bar: at most 1.05)", flush=True)


def _timed(command: list[str] | None, spec: LlamaServerSpec) -> float:
    port = free_port()
    if command is None:
        flat = arguments(replace(spec, port=port))
        options = dict(zip(flat[::2], flat[1::2], strict=True))
        argv = [sys.executable, "-c", BARE, json.dumps(options)]
    else:
        argv = [*command, str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return _until_first_token(port, start)
    finally:
        process.terminate()
        process.communicate()


def _until_first_token(port: int, start: float) -> float:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": True}
    with httpx.Client(timeout=60, trust_env=False) as client:
        while time.perf_counter() - start < 60:
            try:
                with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                    if answer.status_code == 200:
                        for line in answer.iter_lines():
                            if line.startswith("data: {"):
                                return time.perf_counter() - start
            except httpx.TransportError:
                time.sleep(0.005)
    raise RuntimeError("no first token within a minute")


if __name__ == "__main__":
    main()
