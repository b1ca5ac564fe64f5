"""What the tests and measurements of virtual keys stand on: a stand-in upstream, real proxies, a real Postgres.

Every helper is a context manager that stops what it started, by its process.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from gateway.litellm_config import build
from gateway.process import Child, free_port, python_module
from gateway.proxy import environment
from gateway.settings import Settings
from gateway.upstreams.served import Price, ServedModel

MASTER = "sk-master-of-the-rig-0123456789abcdef"
PRICE = Price(input=10_000_000_000, output=10_000_000_000)  # ten dollars a million tokens: 10,000 nano-dollars each
STAND_IN = Path(__file__).with_name("_keys_upstream.py")


@dataclass(frozen=True)
class Upstream:
    """The stand-in for a hosted API."""

    url: str

    def counts(self) -> dict[str, Any]:
        """What it was asked, and what it would bill."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/counts", timeout=10).json()
        return answer


@dataclass(frozen=True)
class Proxy:
    """A running gateway proxy."""

    url: str
    child: Child

    def client(self, secret: str, **options: Any) -> httpx.Client:
        """A client that sends this key."""
        options.setdefault("timeout", 60)
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {secret}"}, **options)


@contextlib.contextmanager
def upstream(folder: Path, **env: str) -> Iterator[Upstream]:
    """The stand-in on a free port."""
    port = free_port()
    child = Child("upstream", [sys.executable, str(STAND_IN), str(port)], log=folder / "upstream.log", env=env)
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health", timeout=30)
        yield Upstream(f"http://127.0.0.1:{port}")
    finally:
        child.stop()


def models(upstream_url: str) -> list[ServedModel]:
    """One model for every behaviour of the stand-in, all priced, a free and an unpriced one, and one (`listed`) with
    the price that LiteLLM's own table has."""

    def served(name: str, price: Price | None = PRICE, upstream_name: str | None = None, **more: Any) -> ServedModel:
        params = {
            "model": f"hosted_vllm/{upstream_name or name}",
            "api_base": f"{upstream_url}/v1",
            "api_key": "none",
        }
        return ServedModel(name=name, upstream="vllm", litellm_params=params, price=price, local=False, **more)

    dear = {"model": "openai/gpt-4o", "api_base": f"{upstream_url}/v1", "api_key": "none"}
    return [
        ServedModel(name="listed", upstream="openai", litellm_params=dear, price=None, local=False),
        *(served(name) for name in ("echo", "slow", "drips", "breaks", "fails", "embed")),
        served("caches", replace(PRICE, cache_read=1_000_000_000, cache_write=12_000_000_000)),
        served("free", Price(), "echo"),
        served("unpriced", None, "echo"),
        served("small", Price(), "echo", context=4096, max_output=1024),
        served("free-then-paid", Price(), "fails"),
        served("paid-then-free", PRICE, "fails"),
    ]


FALLBACKS = [{"free-then-paid": ["echo"]}, {"paid-then-free": ["free"]}]


def document(upstream_url: str, *, hooks: bool = True) -> dict[str, Any]:
    """LiteLLM's configuration for the stand-in's models, as the gateway builds it."""
    made = build(models(upstream_url), Settings())
    made["router_settings"]["fallbacks"] = FALLBACKS
    if not hooks:
        made["general_settings"].pop("custom_auth")
        made["litellm_settings"].pop("callbacks")
    return made


@contextlib.contextmanager
def proxy(folder: Path, config: Mapping[str, Any], store_url: str, **options: Any) -> Iterator[Proxy]:
    """A real proxy with the hooks, on a free port; the options are those of `start_proxy`."""
    running = start_proxy(folder, config, store_url, **options)
    try:
        yield running
    finally:
        running.child.stop()


def start_proxy(
    folder: Path,
    config: Mapping[str, Any],
    store_url: str,
    *,
    workers: int = 1,
    unknown_price: str = "refuse",
    wait: float = 150,
) -> Proxy:
    """A real proxy that the caller stops."""
    port = free_port()
    path = folder / f"litellm-{port}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    env = environment(keys_url=store_url, master_key=MASTER, unknown_price=unknown_price, state=str(folder / "none"))
    argv = python_module(
        "gateway.proxy",
        "--config",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        str(workers),
        "--timeout_worker_healthcheck",
        "60",  # a worker that imports LiteLLM on a busy machine is not dead
    )
    child = Child("proxy", argv, log=folder / f"proxy-{port}.log", env=env)
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health/liveliness", timeout=wait)
    except BaseException:
        child.stop()
        raise
    return Proxy(f"http://127.0.0.1:{port}", child)


def judge(*promises: tuple[bool, str]) -> None:
    """One line for each promise, kept or not; ends with an AssertionError if one was broken, once all are said."""
    for kept, promise in promises:
        print(f"  {'kept' if kept else 'BROKEN'}: {promise}", flush=True)
    broken = [promise for kept, promise in promises if not kept]
    assert not broken, broken


def postgres_binaries() -> Path | None:
    """The folder of Postgres' programs, wherever the system keeps them."""
    found = shutil.which("pg_ctl")
    if found and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((home for home in homes if (home / "initdb").exists()), None)


@dataclass(frozen=True)
class Postgres:
    """A running Postgres server with a user of its own."""

    port: int
    folder: Path
    _programs: Path
    _user: Sequence[str]

    def database(self, name: str) -> str:
        """A new empty database; returns the URL of a store in it."""
        self._run(
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "toolkit",
            "-d",
            "postgres",
            "-qc",
            f"create database {name}",
        )
        return f"postgresql://toolkit@127.0.0.1:{self.port}/{name}"

    def restart(self) -> None:
        """Stop at once, dropping every connection, and start again."""
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-m",
            "immediate",
            "-w",
            "restart",
            "-l",
            str(self.folder / "log"),
        )

    def stop(self) -> None:
        """Stop, dropping every connection."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start again after `stop`."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "start", "-l", str(self.folder / "log"))

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._user, str(self._programs / program), *arguments],
            check=True,
            cwd="/",
            timeout=60,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A Postgres server in a temporary folder; as root, run by an unprivileged user, since it refuses root."""
    programs = postgres_binaries()
    if programs is None:
        raise FileNotFoundError("no Postgres programs on this machine")
    folder = Path(tempfile.mkdtemp(prefix="toolkit-postgres-"))
    user: list[str] = []
    if os.name == "posix" and os.geteuid() == 0:
        name = "postgres" if _exists("postgres") else "nobody"
        user = ["setpriv", f"--reuid={name}", f"--regid={_group(name)}", "--clear-groups"]
        shutil.chown(folder, name, _group(name))
    port = free_port()
    server = Postgres(port, folder, programs, user)
    try:
        server._run("initdb", "-D", str(folder / "data"), "-U", "toolkit", "-A", "trust", "-E", "UTF8", "--no-sync")
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{folder}'\n")
            settings.write("fsync=off\nmax_connections=200\nshared_buffers=32MB\n")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group(name: str) -> int:
    import pwd

    return pwd.getpwnam(name).pw_gid
