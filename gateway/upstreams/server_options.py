"""The options that our own llama.cpp children take, by llama-server's names: one list for every engine.

Imports nothing that takes time: a server that starts waits for it.
"""

import argparse
import os

KV_TYPES = ("f16", "q8_0", "q4_0")
FLASH = ("auto", "on", "off")


def parse(program: str, arguments: list[str]) -> argparse.Namespace:
    """The options in `arguments`; wrong ones end the process, as argparse does."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--n-gpu-layers", type=int, default=-1)
    parser.add_argument("--cache-type-k", choices=KV_TYPES, default="f16")
    parser.add_argument("--cache-type-v", choices=KV_TYPES, default="f16")
    parser.add_argument("--flash-attn", choices=FLASH, default="auto")
    parser.add_argument("--cache-ram", type=int, default=512)
    parser.add_argument("--mmproj")
    parser.add_argument("--verbosity", type=int, default=3)
    return parser.parse_args(arguments)


def cores() -> int:
    """Cores this process may use: a second thread on the same core only slows llama.cpp down."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
