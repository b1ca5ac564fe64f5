"""The process that owns a running gateway: llama.cpp servers, the LiteLLM proxy, their order of start and stop.

`supervise` runs in the foreground until it is told to stop. `start` and `stop` manage one in the background;
`running` says what is up. One gateway a state folder: a file lock holds that, and the system drops it with us.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

import psutil
from filelock import FileLock, Timeout

from gateway import lifeline, litellm_config, mcp, proxy
from gateway.mends import NAMES
from gateway.process import Child, free_port, port_is_free, python_module, tail
from gateway.settings import Settings, load_settings
from gateway.upstreams.discovery import command_of, discover_all, served_by
from gateway.upstreams.served import ServedModel
from toolkit.core.errors import ToolkitError, from_os_error
from toolkit.core.paths import data_dir, private_dir, state_dir, write_text

Note = Callable[[str], None]
RESTARTS = 3  # of one child, before the gateway gives up on it


@dataclass(frozen=True)
class RunningModel:
    """A model as the gateway announces it."""

    name: str
    upstream: str
    context: int | None
    max_output: int | None
    api_base: str | None
    local: bool
    note: str
    trained: int | None = None


@dataclass(frozen=True)
class Running:
    """A gateway that answers. `pids` are its processes by name; `url` has no trailing slash and no `/v1`."""

    pid: int
    started: float
    url: str
    models: tuple[RunningModel, ...]
    pids: dict[str, int]
    log: str
    mends: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()

    def model(self, name: str) -> RunningModel | None:
        """The model of that name, or None."""
        return next((model for model in self.models if model.name == name), None)


def record_path() -> Path:
    return state_dir() / "gateway.json"


def log_path() -> Path:
    return state_dir() / "logs" / "gateway.log"


def running() -> Running | None:
    """The gateway of this state folder, if its supervisor is alive and it has answered."""
    try:
        record = json.loads(record_path().read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        # Another process may have been given the number since.
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - record["started"]) > 1:
            return None
    except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    record["models"] = tuple(RunningModel(**model) for model in record["models"])
    for names in ("mends", "mcp"):
        record[names] = tuple(record.get(names, ()))
    return Running(**record)


def master_key() -> str:
    """The proxy's own key: made once, kept in a file that only the user can read."""
    path = data_dir() / "master.key"
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        private_dir(path.parent)
        write_text(path, f"sk-{secrets.token_urlsafe(32)}\n", mode=0o600)
        return path.read_text(encoding="utf-8").strip()


def supervise(settings: Settings, *, note: Note, ready: Callable[[Running], None]) -> None:
    """Start everything, call `ready` once the proxy answers, and run until SIGTERM or SIGINT.

    Raises ToolkitError if it cannot start. Whatever was started is stopped, in reverse order, on every way out.
    """
    listen = settings.gateway
    private_dir(state_dir())
    with ExitStack() as stack:
        stack.enter_context(_only_one())
        if not port_is_free(listen.host, listen.port):
            raise ToolkitError(
                f"port {listen.port} on {listen.host} is in use{_by_whom(listen.port)}",
                hint=f"toolkit gateway up --port {free_port(listen.host)}",
            )
        stopping = stack.enter_context(_stop_signals())
        children: dict[str, _Restartable] = {}

        def start(
            name: str, argv: Sequence[str], answers: str, env: dict[str, str] | None = None, *, needed: bool = True
        ) -> None:
            log = state_dir() / "logs" / f"{name}.log"
            child = _Restartable(name, argv, answers, env, log, listen.start_timeout, needed=needed)
            stack.callback(child.stop)
            child.start(stopping)
            children[name] = child

        discovered = discover_all(settings)
        for remark in discovered.notes:
            note(remark)
        models = list(discovered.models)
        for spec in discovered.to_start:
            note(f"starting llama.cpp on {spec.name}")
            spec = replace(spec, port=spec.port or free_port())
            start(f"llamacpp-{_file_safe(spec.name)}", command_of(spec), f"http://127.0.0.1:{spec.port}/health")
            models.extend(served_by(spec, settings))
        if not models:
            raise ToolkitError(
                "there is no model to serve: none was found running, pulled, built in or named in the settings",
                hint="toolkit models list",
            )

        servers = mcp.planned(settings.mcp)
        for server in servers:
            note(f"starting the MCP server {server.name}")
            start(f"mcp-{server.name}", server.command, f"{server.url}/health", server.environment, needed=False)
        note("starting the proxy")
        config = state_dir() / "litellm.yaml"
        write_text(config, _as_yaml(litellm_config.build(models, settings, servers)), mode=0o600)
        url = f"http://{_in_url(listen.host)}:{listen.port}"
        start(
            "proxy",
            python_module(
                "gateway.proxy",
                *("--config", str(config), "--host", listen.host, "--port", str(listen.port)),
                *("--num_workers", str(listen.workers)),
                *("--timeout_worker_healthcheck", "60"),  # a worker that imports LiteLLM on a busy machine is not dead
            ),
            f"{url}/health/liveliness",
            proxy.environment(
                keys_url=settings.keys.url,
                master_key=master_key(),
                unknown_price=settings.keys.unknown_price,
                state=str(state_dir()),
                mcp=servers,
            ),
        )

        def record() -> Running:
            """Write down what runs, for `running` to find."""
            found = Running(
                pid=os.getpid(),
                started=psutil.Process().create_time(),
                url=url,
                models=tuple(_announced(model) for model in models),
                pids={"supervisor": os.getpid()} | {name: child.pid for name, child in children.items()},
                log=str(log_path()),
                mends=NAMES,
                mcp=tuple(settings.mcp),
            )
            write_text(record_path(), json.dumps(asdict(found), indent=2), mode=0o600)
            return found

        stack.callback(lambda: record_path().unlink(missing_ok=True))
        ready(record())
        while not stopping.wait(0.5):
            for child in [child for child in children.values() if not child.running()]:
                note(f"{child.name} ended; starting it again")
                try:
                    child.start(stopping)
                except ToolkitError as error:
                    if child.needed:
                        raise
                    note(f"{error.message}\nthe gateway goes on without {child.name}")
                    del children[child.name]
                record()
        note("stopping")


class _Restartable:
    """One child of the supervisor and how to start it again."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        answers: str,
        env: dict[str, str] | None,
        log: Path,
        timeout: float,
        *,
        needed: bool,
    ) -> None:
        self.name, self._argv, self._answers, self._env, self.needed = name, argv, answers, env, needed
        self._log, self._timeout = log, timeout
        self._starts = 0
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    def running(self) -> bool:
        return self._child is not None and self._child.running()

    def start(self, stopping: threading.Event) -> None:
        self.stop()
        self._starts += 1
        if self._starts > RESTARTS + 1:
            raise ToolkitError(
                f"{self.name} ended {self._starts - 1} times; the end of its log:\n{tail(self._log)}",
                hint=f"less {self._log}",
            )

        def give_up_if_stopping() -> None:
            if stopping.is_set():
                raise KeyboardInterrupt

        self._child = Child(self.name, self._argv, log=self._log, env=self._env)
        self._child.wait_until(self._answers, timeout=self._timeout, between=give_up_if_stopping)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


def start(config: Path | None, flags: Mapping[str, Any], *, note: Note) -> Running:
    """Start a gateway in the background and wait until it answers; it stays until `stop`.

    `flags` are settings by `section__key`. Raises the ToolkitError that it ran into. Ctrl-C while waiting stops
    it again.
    """
    process = _launch(config, flags, stays=True)
    try:
        found = _until_ready(process, note)
    except BaseException:
        _end(process)
        raise
    process.returncode = 0  # it outlives us on purpose: no warning that it still runs
    return found


@contextmanager
def attached(config: Path | None, flags: Mapping[str, Any], *, note: Note) -> Iterator[Running]:
    """A gateway for the time of a `with` block; it also ends when this process is killed."""
    process = _launch(config, flags, stays=False)
    try:
        yield _until_ready(process, note)
    finally:
        _end(process)


def _launch(config: Path | None, flags: Mapping[str, Any], *, stays: bool) -> "subprocess.Popen[str]":
    log_path().parent.mkdir(parents=True, exist_ok=True)
    how = {"config": str(config) if config else None, "flags": dict(flags), "stays": stays}
    with log_path().open("ab") as log:
        return subprocess.Popen(
            python_module("gateway.supervisor", json.dumps(how)),
            stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            text=True,
        )


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()  # its children see the end of their lifeline
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _until_ready(process: "subprocess.Popen[str]", note: Note) -> Running:
    with cast(TextIO, process.stdout) as reports:
        for line in reports:
            report = json.loads(line)
            if "note" in report:
                note(report["note"])
            elif "error" in report:
                raise ToolkitError(report["error"], hint=report["hint"])
            elif "ready" in report:
                found = running()
                if found is not None:
                    return found
    raise ToolkitError(
        f"the gateway ended before it answered; the end of its log:\n{tail(log_path())}", hint=f"less {log_path()}"
    )


def stop(found: Running, *, timeout: float = 30.0) -> None:
    """Stop a running gateway and wait until its processes are gone."""
    family = []
    for pid in found.pids.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(pid))
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    record_path().unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """The background process: settings and flags as one JSON argument; reports as JSON lines until it is ready."""
    how: dict[str, Any] = json.loads(arguments[0])
    if not how["stays"]:
        lifeline.watch()
    config = Path(how["config"]) if how["config"] else None
    reports: TextIO | None = sys.stdout

    def report(**content: str | None) -> None:
        if reports is not None:
            with contextlib.suppress(BrokenPipeError):
                reports.write(json.dumps(content) + "\n")
                reports.flush()

    def log(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201

    def note(text: str) -> None:
        log(text)
        report(note=text)

    def ready(found: Running) -> None:
        nonlocal reports
        report(ready=found.url)
        reports = None
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    try:
        supervise(load_settings(config, **how["flags"]), note=note, ready=ready)
    except (ToolkitError, OSError) as error:
        known = error if isinstance(error, ToolkitError) else from_os_error(error)
        if known is None:
            raise
        log(f"error: {known.message}")
        report(error=known.message, hint=known.hint)
        return known.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _only_one() -> Iterator[None]:
    lock = FileLock(state_dir() / "gateway.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ToolkitError("a gateway is already running or starting here", hint="toolkit gateway status") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the handlers before are put back."""
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announced(model: ServedModel) -> RunningModel:
    base = model.litellm_params.get("api_base")
    return RunningModel(
        name=model.name,
        upstream=model.upstream,
        context=model.context,
        max_output=model.max_output,
        api_base=str(base) if base else None,
        local=model.local,
        note=model.note,
        trained=model.trained,
    )


def _as_yaml(document: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _by_whom(port: int) -> str:
    with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        for connection in psutil.net_connections("inet"):
            at = connection.laddr[1] if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def _in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104  every address: we reach it at our own
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _file_safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
