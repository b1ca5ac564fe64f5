"""Where code that nobody has read may run: which isolation this machine offers, and one session in it.

Knows nothing of MCP. `bubblewrap` is CPython in namespaces of its own: no network, no file of this machine but
the interpreter and the system's libraries (read-only), a scratch folder in memory. `monty` is a restricted
interpreter of a subset of Python in a process of its own. `none` is this user's account, and asked for by name.
"""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from toolkit.core.units import format_bytes

Isolation = Literal["bubblewrap", "monty", "none"]
SCRATCH = "/scratch"
_WORKER = Path(__file__).with_name("worker.py")
_WATCH_EVERY = 0.1


@dataclass(frozen=True)
class Limits:
    """What one session may take: seconds a call, bytes of memory, scratch and output, processes."""

    seconds: float = 30.0
    memory: int = 1 << 30
    scratch: int = 64 << 20
    output: int = 20_000  # shown to the model
    flood: int = 8 << 20  # written before the session is ended
    processes: int = 32
    open_files: int = 128


class Answer(NamedTuple):
    """What a piece of code did. `ended` says why the session is gone, or is None if it lives on."""

    output: str
    result: str | None
    error: str | None
    ended: str | None
    truncated: bool
    seconds: float


class Session(Protocol):
    """A running interpreter that keeps its variables."""

    async def run(self, code: str) -> Answer:
        """Run one piece of code; calls must not overlap. Never raises for what the code does."""

    async def close(self) -> None:
        """End it and all it started. Idempotent."""


@functools.cache
def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed and this kernel lets this user make the namespaces."""
    program = shutil.which("bwrap")
    if program is None or sys.platform != "linux":
        return False
    try:
        done = subprocess.run(
            [*_bubblewrap(program, Limits()), sys.executable, "-I", "-S", "-c", "pass"],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def monty_works() -> bool:
    """Whether the restricted interpreter is installed for this platform."""
    from importlib.util import find_spec

    return find_spec("pydantic_monty") is not None


def best() -> Isolation | None:
    """The strongest isolation that works here; None if there is none."""
    if bubblewrap_works():
        return "bubblewrap"
    return "monty" if monty_works() else None


def _bubblewrap(program: str, limits: Limits) -> list[str]:
    """argv up to the command to run: everything unshared, everything read-only but a bounded scratch folder."""
    command = [program, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if _knows(program, "--disable-userns"):
        command += ["--disable-userns"]
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # Root outside is root to the settings of the kernel whatever the namespace says, so they are read-only.
    command += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for folder, size in (("/dev/shm", 1 << 20), ("/tmp", 16 << 20), (SCRATCH, limits.scratch)):  # noqa: S108
        command += ["--size", str(size), "--tmpfs", folder]
    # After the folders in memory: an environment may lie below /tmp.
    for prefix in dict.fromkeys((str(Path(sys.base_prefix).resolve()), sys.base_prefix, sys.prefix)):
        if not Path(prefix).is_relative_to("/usr"):
            command += ["--ro-bind", prefix, prefix]
    command += ["--ro-bind", str(_WORKER), "/worker.py", "--remount-ro", "/", "--chdir", SCRATCH]
    return command


@functools.cache
def _knows(program: str, option: str) -> bool:
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=20, check=False)
    return option in shown.stdout + shown.stderr


class _Pipe:
    """Reads a descriptor as it fills, keeps the first `keep` bytes, counts the rest."""

    def __init__(self, descriptor: int, keep: int, on_data: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.keep = keep
        self.kept = bytearray()
        self.count = 0
        self._on_data = on_data
        asyncio.get_running_loop().add_reader(descriptor, self.read)

    def read(self) -> None:
        """Take what is there now, without waiting."""
        while self.descriptor >= 0:
            try:
                chunk = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            if not chunk:
                self.close()
                self._on_data()
                return
            self.count += len(chunk)
            self.kept += chunk[: max(0, self.keep - len(self.kept))]
            self._on_data()
            if len(chunk) < 1 << 16:
                return

    def close(self) -> None:
        if self.descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


class ProcessSession:
    """A CPython session in a child process, with or without bubblewrap around it. POSIX only."""

    def __init__(self, limits: Limits, *, bubblewrap: bool) -> None:
        self.limits = limits
        self.bubblewrap = bubblewrap
        self._process: asyncio.subprocess.Process | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._changed = asyncio.Event()
        self._output: _Pipe
        self._answers: _Pipe

    async def _start(self) -> asyncio.subprocess.Process:
        limits = {
            "memory": self.limits.memory,
            "file_size": self.limits.scratch,
            "open_files": self.limits.open_files,
            # Counted per user: outside a namespace of its own it would count the user's other processes too.
            "processes": self.limits.processes if self.bubblewrap else 0,
        }
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "MPLBACKEND": "Agg",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if self.bubblewrap:
            program = shutil.which("bwrap") or "bwrap"
            command = [*_bubblewrap(program, self.limits), sys.executable, "-I", "-X", "utf8", "/worker.py"]
            folder = "/"
            environment |= {"HOME": SCRATCH, "TMPDIR": "/tmp"}  # noqa: S108
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="toolkit-python-", ignore_cleanup_errors=True)
            folder = self._scratch.name
            command = [sys.executable, "-I", "-X", "utf8", str(_WORKER)]
            environment |= {"HOME": folder, "TMPDIR": folder}
        output_read, output_write = os.pipe()
        answers_read, answers_write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, json.dumps(limits), str(answers_write),
                stdin=asyncio.subprocess.PIPE, stdout=output_write, stderr=output_write,
                pass_fds=(answers_write,), env=environment, cwd=folder, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(output_write)
            os.close(answers_write)
        self._output = _Pipe(output_read, self.limits.output * 4, self._changed.set)
        self._answers = _Pipe(answers_read, 1 << 20, self._changed.set)
        self._process = process
        return process

    async def run(self, code: str) -> Answer:
        """Run one piece of code within the limits; ends the session where it breaks one."""
        began = time.monotonic()
        process = self._process or await self._start()
        self._output.kept.clear()
        self._answers.kept.clear()
        self._output.count = 0
        self._wake()
        ended: str | None = None
        try:
            if process.stdin is not None:
                process.stdin.write(json.dumps({"code": code}).encode() + b"\n")
                await process.stdin.drain()
            ended = await self._until_answered(process, began)
        except (BrokenPipeError, ConnectionResetError):
            ended = "the interpreter had ended"
        except asyncio.CancelledError:
            await self.close()
            raise
        self._output.read()
        answer = _parsed(bytes(self._answers.kept))
        if ended is None and answer is None:
            ended = "the interpreter ended without an answer"
        text = self._output.kept.decode("utf-8", "replace")
        truncated = self._output.count > len(self._output.kept) or len(text) > self.limits.output
        if ended is None and not self._calm():
            ended = "it left processes behind that start others faster than they can be stopped"
        if ended is not None:
            await self.close()
        result, error = answer if answer is not None and ended is None else (None, None)
        return Answer(text[: self.limits.output], result, error, ended, truncated, time.monotonic() - began)

    async def _until_answered(self, process: asyncio.subprocess.Process, began: float) -> str | None:
        """Wait for the answer; why the session must end, or None."""
        exited = asyncio.ensure_future(process.wait())
        try:
            while b"\n" not in self._answers.kept:
                left = began + self.limits.seconds - time.monotonic()
                if left <= 0:
                    return f"it ran longer than {self.limits.seconds:g} s"
                if self._output.count > self.limits.flood:
                    return f"it printed more than {format_bytes(self.limits.flood)}"
                if exited.done():
                    self._answers.read()
                    return None if b"\n" in self._answers.kept else _exit_reason(exited.result())
                if (reason := self._excess()) is not None:
                    return reason
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({changed, exited}, timeout=min(left, _WATCH_EVERY), return_when="FIRST_COMPLETED")
                changed.cancel()
            return None
        finally:
            exited.cancel()

    def _excess(self) -> str | None:
        """Which limit all processes together break. Memory is what is resident, shared pages counted once each."""
        tree = _below(self._process)
        if len(tree) > self.limits.processes:
            return f"it started more than {self.limits.processes} processes"
        if sum(_resident(pid) for pid in tree) > self.limits.memory:
            return f"it took more than {format_bytes(self.limits.memory)} of memory"
        return None

    def _calm(self) -> bool:
        """Between calls nothing runs unwatched: stop the interpreter, end what it started. Whether that was possible.

        Everything is stopped before anything is ended, since what is stopped cannot start another in the meantime.
        """
        if self._process is None:
            return False
        # Under bubblewrap: bwrap, the namespace's first process, the interpreter. Else the process itself.
        keep = [self._process.pid]
        for _ in range(2 if self.bubblewrap else 0):
            children = _children(keep[-1])
            if not children:
                return False
            keep.append(min(children))  # the oldest: the interpreter came before anything it started
        if self.bubblewrap:  # without, a stopped one would not see its parent go
            _kill(keep[-1], signal.SIGSTOP)
        known: set[int] = set()
        for _ in range(20):
            new = set(_below(self._process)) - known - set(keep)
            if not new:
                break
            for pid in new:
                _kill(pid, signal.SIGSTOP)
            known |= new
        else:
            return False
        for pid in known:
            _kill(pid, signal.SIGKILL)
        return True

    def _wake(self) -> None:
        if self.bubblewrap:
            for pid in _below(self._process):
                _kill(pid, signal.SIGCONT)

    async def close(self) -> None:
        """End the process and everything below it."""
        process, self._process = self._process, None
        if process is None:
            return
        tree = _below(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        for pid in tree:
            _kill(pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        self._output.close()
        self._answers.close()
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.cleanup)


def _below(process: asyncio.subprocess.Process | None) -> list[int]:
    """The ids of every process below one that still runs, children before grandchildren."""
    found: list[int] = []
    waiting = [process.pid] if process is not None and process.returncode is None else []
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    try:  # the kernel's own list: reading all processes, as psutil does, costs more than most calls
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  a name is all that is needed
        return [int(child) for task in tasks for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        if sys.platform == "linux" and Path("/proc/self/task", str(os.getpid()), "children").exists():
            return []  # it has ended
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _resident(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _parsed(line: bytes) -> tuple[str | None, str | None] | None:
    """The worker's answer, which the code may have forged: two texts or nothing, and bounded."""
    try:
        document = json.loads(line.split(b"\n", 1)[0])
        result, error = document["result"], document["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(part is None or isinstance(part, str) for part in (result, error)):
        return None
    return (result and result[:20_010], error and error[-20_010:])


def _exit_reason(code: int) -> str:
    number = -code if code < 0 else code - 128
    with contextlib.suppress(ValueError):
        return f"the interpreter was ended by {signal.Signals(number).name}"
    return f"the interpreter exited with code {code}"


@dataclass
class MontySession:
    """A session of the restricted interpreter. `pool` is an entered `pydantic_monty.AsyncMonty`."""

    limits: Limits
    pool: Callable[[], Awaitable[Any]]
    _session: Any = None
    _mount: Any = None
    _scratch: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    async def _start(self) -> Any:
        import pydantic_monty

        self._scratch = tempfile.TemporaryDirectory(prefix="toolkit-python-", ignore_cleanup_errors=True)
        self._mount = pydantic_monty.MountDir(
            host_path=self._scratch.name,
            virtual_path=SCRATCH,
            mode="read-write",
            write_bytes_limit=self.limits.scratch,
            memory_usage_limit=self.limits.scratch,
        )
        limits = pydantic_monty.ResourceLimits(
            max_feed_duration_secs=self.limits.seconds,
            max_memory=self.limits.memory,
            max_recursion_depth=1000,
            max_total_sleep_secs=self.limits.seconds,
        )
        pool = await self.pool()
        self._session = await pool.checkout(script_name="<code>", limits=limits).__aenter__()
        return self._session

    async def run(self, code: str) -> Answer:
        """Run one piece of code within the limits; ends the session where it breaks one."""
        import pydantic_monty

        began = time.monotonic()
        streams = pydantic_monty.CollectStreams(self.limits.flood)
        result = error = ended = None
        try:
            session = self._session or await self._start()
            async with asyncio.timeout(self.limits.seconds + 2):
                value = await session.feed_run(code, print_callback=streams, mount=self._mount, cwd=SCRATCH)
            result = None if value is None else repr(value)[:20_000]
        except TimeoutError:
            ended = f"it ran longer than {self.limits.seconds:g} s"
        except pydantic_monty.MontyCrashedError as crash:
            ended = f"it ran longer than {self.limits.seconds:g} s" if crash.timed_out else "the interpreter crashed"
        except pydantic_monty.MontyError as fault:
            error = str(fault)[-20_000:]
            if "TimeoutError" in error:
                ended, error = f"it ran longer than {self.limits.seconds:g} s", None
            elif "MemoryError" in error:
                ended, error = f"it took more than its memory or output: {error}", None
        except asyncio.CancelledError:
            await self.close()
            raise
        text = "".join(part for _, part in streams.output)
        if ended is None and self._scratch_size() > self.limits.scratch:
            ended = f"its scratch folder held more than {format_bytes(self.limits.scratch)}"
        if ended is not None:
            await self.close()
        cut = len(text) > self.limits.output
        return Answer(text[: self.limits.output], result, error, ended, cut, time.monotonic() - began)

    def _scratch_size(self) -> int:
        if self._scratch is None:
            return 0
        return sum(path.lstat().st_size for path in Path(self._scratch.name).rglob("*"))

    async def close(self) -> None:
        """Give the worker back and remove the scratch folder."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):  # a crashed worker cannot be handed back in order
                await session.__aexit__(None, None, None)
        if self._mount is not None:
            self._mount.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._mount = self._scratch = None
