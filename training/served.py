"""A GGUF file behind llama.cpp's own server: requests as a client sends them, and exact probabilities of tools."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

CHILD = """
import json, sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_parallel, p.port, p.n_ctx = sys.argv[1], int(sys.argv[2]), 0, 4096 * int(sys.argv[2])
p.cpuparams.n_threads, p.use_jinja, p.warmup, p.ui = int(sys.argv[3]), True, False, False
p.cache_ram_mib = p.verbosity = 0
began = time.perf_counter()
server = xllamacpp.Server(p)
print(json.dumps({"url": server.listening_address, "seconds": time.perf_counter() - began}), flush=True)
sys.stdin.read()
"""
CALL = '<tool_call>\n{"name": "'


class Served:
    """One running server. `ask` is what any OpenAI client does; `probabilities` reads the model itself."""

    def __init__(self, url: str) -> None:
        self.load_seconds = 0.0  # from llama.cpp's start to its first healthy answer; Python's start is not in it
        self.client = httpx.Client(base_url=url, timeout=60)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        response = self.client.post(path, json=body)
        response.raise_for_status()
        return response.json()

    def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        body = {"messages": messages, "temperature": 0, "max_tokens": 160, **options}
        answer = self.post("/v1/chat/completions", body | ({"tools": tools} if tools else {}))
        choice: dict[str, Any] = answer["choices"][0]
        return choice

    def probabilities(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[float]:
        """P(tool | a tool is called), exact: the names' token tries are walked, one forward pass a branching."""
        prompt = self.post("/apply-template", {"messages": messages, "tools": tools})["prompt"] + CALL
        names = [tool["function"]["name"] for tool in tools]
        base = self._tokens(prompt)
        paths = [self._tokens(prompt + name + '"')[len(base) :] for name in names]
        result = []
        for path in paths:
            chance = 1.0
            for depth in range(len(path)):
                options = sorted(
                    {other[depth] for other in paths if other[:depth] == path[:depth] and len(other) > depth}
                )
                if len(options) > 1:
                    chance *= self._branch(base + path[:depth], options)[path[depth]]
            result.append(chance)
        return result

    def _branch(self, tokens: list[int], options: list[int]) -> dict[int, float]:
        body = {
            "prompt": tokens,
            "n_predict": 1,
            "n_probs": len(options),
            "logit_bias": [[option, 40.0] for option in options],
            "post_sampling_probs": True,
            "samplers": [],
            "temperature": 1.0,
        }
        found = self.post("/completion", body)["completion_probabilities"][0]["top_probs"]
        chances = {entry["id"]: entry["prob"] for entry in found if entry["id"] in options}
        total = math.fsum(chances.values())
        return {option: chances.get(option, 0.0) / total for option in options}

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return tokens


@contextmanager
def serve(model: Path, slots: int = 1, threads: int = 1) -> Iterator[Served]:
    """The model behind a server in a child process, which ends with this block (and with this process)."""
    command = [sys.executable, "-P", "-c", CHILD, str(model), str(slots), str(threads)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin is not None  # noqa: S101
    assert child.stdout is not None  # noqa: S101
    try:
        told = next((json.loads(line) for line in child.stdout if line.startswith(b'{"url"')), None)
        if told is None:
            raise RuntimeError(f"llama.cpp did not load {model}")
        began = time.perf_counter()
        server = Served(told["url"])
        with server.client:
            _wait(server)
            server.load_seconds = told["seconds"] + time.perf_counter() - began
            yield server
    finally:
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _wait(server: Served) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if server.client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise RuntimeError("llama.cpp's server did not become ready within 30 seconds")
