"""Time from the start of serving to the first token: `models serve` against llama.cpp's server alone, in turn.

Bare is the same llama.cpp in a child of its own, started by hand with the same options and llama.cpp's own defaults for
the rest (it warms up, and reads the file once more to fit it to a graphics card), and asked as soon as it answers.
What the command adds before it starts the child (imports, the file's header) is in its time. Two models: one with
random weights that is as large as the smallest of the catalogue (its file is in the system's cache: from a disk both
would wait longer), for the ratio; and the built-in one of 5 MB, where that addition is most of the time, to show how
much it is.
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
from gateway.upstreams.llamacpp import LlamaServerSpec, arguments, builtin_specs, spec_for
from gateway.upstreams.server_options import cores

ROUNDS = 15
PATIENCE = 60.0  # seconds for one start
LARGE = Made("llama", layers=22, width=2048, heads=16, kv_heads=4, head=128, feed_forward=8192, vocabulary=65_536)
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
    with tempfile.TemporaryDirectory() as folder:
        path = write(LARGE, Path(folder) / "large.gguf", repeating=True)
        print(f"random weights, {path.stat().st_size / 2**30:.1f} GiB   (bar: a ratio of at most 1.05)", flush=True)
        _compare(str(path), spec_for(path, path.stem, Settings(), slots=1, threads=cores()))
    print("the built-in model", flush=True)
    _compare("toolkit-tiny", replace(builtin_specs(Settings())[0], slots=1, threads=1))


def _compare(typed: str, spec: LlamaServerSpec) -> None:
    ours = ["-P", "-m", "toolkit.cli.main", "models", "serve", typed, "--port"]
    _timed(None, spec)  # brings the file into the cache
    pairs = []
    for turn in range(ROUNDS):
        found = {}
        # Each goes first in turn, so that what the machine does meanwhile favours neither.
        for by_us in (True, False) if turn % 2 else (False, True):
            found[by_us] = _timed([sys.executable, *ours] if by_us else None, spec)
        pairs.append((found[True], found[False]))
    served, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"  toolkit models serve  {served * 1000:6.0f} ms to the first token")
    print(f"  llama.cpp alone       {bare * 1000:6.0f} ms")
    print(f"  difference            {statistics.median(a - b for a, b in pairs) * 1000:6.0f} ms")
    print(f"  ratio                 {statistics.median(a / b for a, b in pairs):6.3f}", flush=True)


def _timed(command: list[str] | None, spec: LlamaServerSpec) -> float:
    port = free_port()
    if command is None:
        flat = arguments(replace(spec, port=port))
        options = dict(zip(flat[::2], flat[1::2], strict=True))
        argv = [sys.executable, "-c", BARE, json.dumps(options)]
    else:
        argv = [*command, str(port)]
    start = time.perf_counter()
    # A session of its own, as the command gives its child: Linux shares the cores out among sessions.
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return _until_first_token(port, start)
    finally:
        process.terminate()
        process.communicate()


def _until_first_token(port: int, start: float) -> float:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": True}
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        while time.perf_counter() - start < PATIENCE:
            try:
                with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                    if answer.status_code == 200:
                        for line in answer.iter_lines():
                            if line.startswith("data: {"):
                                return time.perf_counter() - start
            except httpx.TransportError:
                pass
            time.sleep(0.01)  # asking without a pause would take one of the cores that the model is loaded with
    raise RuntimeError(f"no first token within {PATIENCE:g} s")


if __name__ == "__main__":
    main()
