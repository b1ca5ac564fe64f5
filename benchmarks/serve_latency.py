"""Time from the start of serving to the first token: `models serve` against llama.cpp's server alone, in turn.

Bare is the same llama.cpp in a child of its own, started by hand with the same options and asked as soon as it
answers. What the command adds before it starts the child (imports, the file's header) is in its time.
"""

import json
import statistics
import subprocess
import sys
import time

import httpx

from gateway.process import free_port
from gateway.settings import Settings
from gateway.upstreams.discovery import builtin_specs
from gateway.upstreams.llamacpp import LlamaServerSpec, arguments

ROUNDS = 9
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
    """Print the median of both and the median of the ratios and differences, pair by pair."""
    from dataclasses import replace

    spec = replace(builtin_specs(Settings())[0], slots=1, threads=1)
    pairs = [(_ours(spec), _bare(spec)) for _ in range(ROUNDS)]
    ours, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"toolkit models serve  {ours * 1000:6.0f} ms to the first token")
    print(f"llama.cpp alone       {bare * 1000:6.0f} ms")
    print(f"difference            {statistics.median(a - b for a, b in pairs) * 1000:6.0f} ms")
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"ratio                 {ratio:6.2f}   (bar: 1.05, which a model that takes seconds to load meets)")


def _ours(spec: LlamaServerSpec) -> float:
    command = ["-m", "toolkit.cli.main", "models", "serve", spec.name, "--port"]
    return _timed([sys.executable, "-P", *command], spec)


def _bare(spec: LlamaServerSpec) -> float:
    return _timed(None, spec)


def _timed(command: list[str] | None, spec: LlamaServerSpec) -> float:
    from dataclasses import replace

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
