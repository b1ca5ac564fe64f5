"""One Python session inside the isolation: reads code from a pipe, runs it, answers what its last expression is.

Runs as a file of its own (standard library only) where nothing else of the project exists. What it says is not
trusted by the other end: the code it runs shares its process. argv: the JSON of the limits; stdin: one JSON line
per piece of code; descriptor 3: one JSON line per answer; stdout and stderr belong to the code.
"""

import ast
import contextlib
import json
import os
import queue
import sys
import threading
import traceback

MAX_REPR = 20_000


def limit(limits: dict[str, int]) -> None:
    """Lower what this process and its children may take, for good."""
    import resource

    def lower(which: int, value: int) -> None:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))

    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        lower(resource.RLIMIT_AS, limits["memory"])
    lower(resource.RLIMIT_FSIZE, limits["file_size"])
    lower(resource.RLIMIT_NOFILE, limits["open_files"])
    lower(resource.RLIMIT_CORE, 0)
    if limits["processes"]:
        lower(resource.RLIMIT_NPROC, limits["processes"])


def run(code: str, names: dict[str, object]) -> dict[str, object]:
    """Run `code` in `names`; the repr of its last expression, or the traceback without our own frames."""
    try:
        tree = ast.parse(code, "<code>")
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, "<code>", "exec"), names)  # noqa: S102  running code is what this is for
        if not isinstance(last, ast.Expr):
            return {"result": None, "error": None}
        value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names)  # noqa: S307
        if value is None:
            return {"result": None, "error": None}
        names["_"] = value
        text = repr(value)
        return {"result": text if len(text) <= MAX_REPR else text[:MAX_REPR] + "...", "error": None}
    except BaseException as error:
        kept = traceback.TracebackException.from_exception(error, limit=20, compact=True)
        kept.stack = traceback.StackSummary.from_list([frame for frame in kept.stack if frame.filename != __file__])
        return {"result": None, "error": "".join(kept.format())[-MAX_REPR:]}


def main() -> None:
    """Answer each piece of code until the other end closes the pipe; then end at once, whatever still runs."""
    limits, answers = json.loads(sys.argv[1]), int(sys.argv[2])
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    control = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.set_inheritable(answers, False)

    def receive() -> None:
        with os.fdopen(control, encoding="utf-8") as lines:
            for line in lines:
                waiting.put(json.loads(line)["code"])
        os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    limit(limits)
    names: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}
    sys.argv = [""]
    while True:
        answer = run(waiting.get(), names)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        line = json.dumps(answer, ensure_ascii=True).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]


if __name__ == "__main__":
    main()
