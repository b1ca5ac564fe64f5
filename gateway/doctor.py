"""Looks at everything that can be wrong on this machine and says what mends it. Changes nothing.

The heart of it are the four contexts of a model, which must agree: what it was trained with, what its server
holds, what the gateway announces, what each client was told.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import httpx

from gateway import supervisor
from gateway.clients import claude_code, jsonc, opencode
from gateway.models import machine, store
from gateway.models.machine import Machine
from gateway.settings import Settings
from gateway.supervisor import Running, RunningModel
from gateway.upstreams import llamacpp, lmstudio, ollama, vllm
from gateway.upstreams.discovery import discover_all
from gateway.upstreams.wire import ask, base_url, count, items
from toolkit.core.errors import ToolkitError
from toolkit.core.units import format_bytes

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `mend` is what to type, if something is to be mended."""

    area: str
    level: Level
    said: str
    mend: str = ""


@dataclass(frozen=True)
class Contexts:
    """The four contexts of one model in tokens; None where one cannot be known. `told` is by client; `tag` is the
    model's name at its server."""

    model: str
    upstream: str
    trained: int | None
    held: int | None
    announced: int | None
    told: Mapping[str, int] = field(default_factory=dict)
    tag: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings, and the contexts of every model the gateway serves."""

    findings: tuple[Finding, ...]
    contexts: tuple[Contexts, ...]

    @property
    def well(self) -> bool:
        return all(finding.level != "wrong" for finding in self.findings)


def examine(settings: Settings) -> Examination:
    """Look at machine, engines, store, upstreams, gateway, contexts and clients. Takes a few seconds at most."""
    here = machine.look()
    running = supervisor.running()
    clients = dict(_clients())
    with httpx.Client(timeout=settings.discover.timeout, trust_env=False) as http:
        contexts = tuple(_contexts(running, settings, clients, http)) if running else ()
    findings = [
        *_machine(here),
        *_engines(here, settings),
        *_store(),
        *_upstreams(settings),
        *_gateway(running, settings),
        *(finding for one in contexts for finding in compare(one)),
        *_programs(clients),
    ]
    return Examination(tuple(findings), contexts)


def compare(contexts: Contexts) -> list[Finding]:
    """What does not agree among the four contexts of a model, and what mends each."""
    found = []
    name, announced, held = contexts.model, contexts.announced, contexts.held
    again = "toolkit gateway down && toolkit gateway up"
    if announced is None:
        found.append(
            Finding(
                "context", "note", f"{name}: nobody says how much it holds", f"set context: for {name} in gateway.yaml"
            )
        )
    if announced is not None and held is not None and held < announced and contexts.upstream == "ollama":
        # The gateway asks for what it announces with every request, so another client has loaded it.
        found.append(
            Finding(
                "context",
                "note",
                f"{name}: Ollama holds {held:,} tokens now, as another program asked for; the gateway's next request "
                f"loads it again with {announced:,}",
                f"ollama stop {contexts.tag or name}",
            )
        )
    elif announced is not None and held is not None and held < announced:
        found.append(
            Finding(
                "context",
                "wrong",
                f"{name}: the gateway announces {announced:,} tokens and its server holds {held:,}: prompts are cut",
                again,
            )
        )
    if announced is not None and held is not None and held > announced:
        found.append(
            Finding("context", "note", f"{name}: its server holds {held:,}, the gateway announces {announced:,}", again)
        )
    largest = held or announced
    if contexts.trained is not None and largest is not None and largest > contexts.trained:
        found.append(
            Finding(
                "context",
                "wrong",
                f"{name}: it is served with {largest:,} tokens and was trained with {contexts.trained:,}",
                f"set context: {contexts.trained} for {name} in gateway.yaml, then {again}",
            )
        )
    for client, told in contexts.told.items():
        if announced is not None and told > announced:
            found.append(
                Finding(
                    "context",
                    "wrong",
                    f"{name}: {client} was told {told:,} tokens and the gateway announces {announced:,}",
                    f"toolkit connect {client}",
                )
            )
        elif announced is not None and told < announced:
            found.append(
                Finding(
                    "context",
                    "note",
                    f"{name}: {client} was told {told:,} tokens and could use {announced:,}",
                    f"toolkit connect {client}",
                )
            )
    if not found:
        clients = ", ".join(sorted(contexts.told)) or "no client connected"
        found.append(Finding("context", "ok", f"{name}: {announced:,} tokens everywhere ({clients})"))
    return found


def _machine(here: Machine) -> Iterator[Finding]:
    memory = f"{format_bytes(here.ram_free)} of {format_bytes(here.ram_total)} memory free, {here.cores} cores"
    yield Finding("machine", "ok", f"{here.system}: {memory}")
    for gpu in here.gpus:
        shared = ", shared with the system" if gpu.unified else ""
        said = f"{gpu.name}: {format_bytes(gpu.free)} of {format_bytes(gpu.total)} free{shared}"
        yield Finding("machine", "ok", said)


def _engines(here: Machine, settings: Settings) -> Iterator[Finding]:
    native, there = shutil.which("llama-server"), llamacpp.engines()
    if native:
        yield Finding("engine", "ok", f"llama-server at {native}")
    if "xllamacpp" in there:
        yield Finding("engine", "ok", f"xllamacpp {_version('xllamacpp')} (llama.cpp from a wheel)")
    if not there:
        yield Finding("engine", "wrong", "there is no llama.cpp: GGUF files cannot be served", "pip install xllamacpp")
    if here.gpus and not native and not any(gpu.unified for gpu in here.gpus):
        yield Finding(
            "engine",
            "note",
            f"{here.gpus[0].name} is not used: the wheel of xllamacpp runs on the processor",
            "install llama.cpp for your card, so that llama-server is on PATH",
        )
    if "llama-cpp-python" in there:
        python = f"llama-cpp-python {_version('llama-cpp-python')}"
        yield Finding("engine", "ok", f"{python}: toolkit quant compare reads texts with it")
        asked = [model.name for model in settings.models if model.engine == "llama-cpp-python"]
        if settings.llamacpp.engine == "llama-cpp-python" or there[0] == "llama-cpp-python":
            asked = ["GGUF files"]
        if asked:
            yield Finding(
                "engine",
                "note",
                f"{', '.join(asked)}: served by {python}, which answers one request at a time, reads no images, "
                "forces no tool call, and finds calls in the text only as <tool_call>{...}</tool_call> or one JSON "
                "object; --mode logprob does not work on it",
                "" if there[0] == "llama-cpp-python" else "set engine: auto in gateway.yaml",
            )


def _store() -> Iterator[Finding]:
    receipts = store.receipts()
    place = store.models_dir()
    if receipts:
        size = format_bytes(sum(receipt.size for receipt in receipts))
        yield Finding("models", "ok", f"{len(receipts)} pulled, {size} in {place}")
    for receipt in receipts:
        for file in receipt.files:
            path = receipt.folder / file.file
            if not path.is_file() or path.stat().st_size != file.size:
                yield Finding(
                    "models",
                    "wrong",
                    f"{receipt.name}: {path.name} is not whole",
                    f"toolkit models verify {receipt.name}",
                )
    for folder in store.damaged():
        yield Finding("models", "wrong", f"{folder} has no receipt that can be read", f"rm -r {folder}")
    parts = list(store.incoming_dir().glob("*.part")) if store.incoming_dir().is_dir() else []
    if parts:
        size = format_bytes(sum(part.stat().st_size for part in parts))
        yield Finding(
            "models",
            "note",
            f"{len(parts)} unfinished pulls hold {size}",
            f"pull again to go on, or rm -r {parts[0].parent}",
        )


def _upstreams(settings: Settings) -> Iterator[Finding]:
    try:
        found = discover_all(settings)
    except ToolkitError as error:
        yield Finding("upstream", "wrong", error.message, error.hint or "")
        return
    by_kind: dict[str, int] = {}
    for model in found.models:
        by_kind[model.upstream] = by_kind.get(model.upstream, 0) + 1
    for kind, number in by_kind.items():
        yield Finding("upstream", "ok", f"{kind}: {number} model{'s' if number > 1 else ''}")
    for note in found.notes:
        yield Finding("upstream", "note", note)


def _gateway(running: Running | None, settings: Settings) -> Iterator[Finding]:
    if running is None:
        yield Finding("gateway", "note", "it does not run", "toolkit gateway up")
        return
    try:
        httpx.get(f"{running.url}/health/liveliness", timeout=5, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        yield Finding(
            "gateway",
            "wrong",
            f"it runs at {running.url} and does not answer ({type(error).__name__})",
            "toolkit gateway logs proxy",
        )
        return
    yield Finding("gateway", "ok", f"answers at {running.url}, {len(running.models)} models")
    if running.mends:
        yield Finding("gateway", "ok", f"mends of LiteLLM in place: {', '.join(running.mends)}")


def _contexts(
    running: Running, settings: Settings, clients: Mapping[str, Mapping[str, int]], http: httpx.Client
) -> Iterator[Contexts]:
    announced = _announced(running)
    for model in running.models:
        trained, held = _really(model, settings, http)
        told = {client: models[model.name] for client, models in clients.items() if model.name in models}
        tag = _tag(model, settings) if model.upstream == "ollama" else ""
        yield Contexts(model.name, model.upstream, trained, held, announced.get(model.name, model.context), told, tag)


def _announced(running: Running) -> dict[str, int]:
    """What the proxy itself says in `/model/info`, asked with the master key."""
    with httpx.Client(timeout=10, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {supervisor.master_key()}"
        document, _ = ask(client, f"{running.url}/model/info", "the gateway")
    found = {}
    for item in items(document, "data"):
        info = item.get("model_info")
        context = count(info.get("max_input_tokens")) if isinstance(info, dict) else None
        if context is not None:
            found[str(item.get("model_name"))] = context
    return found


def _really(model: RunningModel, settings: Settings, http: httpx.Client) -> tuple[int | None, int | None]:
    """What a model was trained with, and what its server holds for one request, asked of the server itself."""
    base = base_url(model.api_base or "")
    if model.upstream == "llamacpp":
        return llamacpp.context_trained(http, base), llamacpp.context_held(http, base)
    if model.upstream == "ollama":
        tag = _tag(model, settings)
        shown, _ = ask(http, f"{base}/api/show", "Ollama", post={"model": tag})
        loaded, _ = ask(http, f"{base}/api/ps", "Ollama")
        held = next(
            (count(one.get("context_length")) for one in items(loaded, "models") if one.get("name") == tag), None
        )
        return ollama.trained_context(shown or {}), held
    if model.upstream == "lmstudio":
        found = lmstudio.discover(settings, http).models
    elif model.upstream == "vllm":
        found = vllm.discover(settings, http).models
    else:
        return None, None
    return None, next((one.context for one in found if one.name == model.name), None)


def _tag(model: RunningModel, settings: Settings) -> str:
    """What Ollama calls the model."""
    return next((one.ollama for one in settings.models if one.name == model.name and one.ollama), model.name)


def _clients() -> Iterator[tuple[str, dict[str, int]]]:
    """What each client's settings tell of the models' contexts."""
    home, folder = Path.home(), Path.cwd()
    for scope in ("user", "project"):
        document = _settings_of(claude_code.settings_path(scope, folder, os.environ, home))
        env = document.get("env")
        if isinstance(env, dict):
            told = str(env.get("CLAUDE_CODE_MAX_CONTEXT_TOKENS", ""))
            name = env.get("ANTHROPIC_MODEL")
            if told.isdecimal() and isinstance(name, str):
                yield "claude-code", {name: int(told)}
        document = _settings_of(opencode.settings_path(scope, folder, os.environ, home))
        models: Any = document
        for key in ("provider", opencode.PROVIDER, "models"):
            models = models.get(key) if isinstance(models, dict) else None
        if isinstance(models, dict):
            limits = {name: model.get("limit") for name, model in models.items() if isinstance(model, dict)}
            yield (
                "opencode",
                {
                    name: limit["context"]
                    for name, limit in limits.items()
                    if isinstance(limit, dict) and count(limit.get("context"))
                },
            )


def _settings_of(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, UnicodeDecodeError, ToolkitError):
        text = path.read_text(encoding="utf-8")
        value = jsonc.parse(text).value if text.strip() else None
        return value if isinstance(value, dict) else {}
    return {}


def _programs(clients: Iterable[str]) -> Iterator[Finding]:
    connected = set(clients)
    for client, program in (("claude-code", "claude"), ("opencode", "opencode")):
        there = shutil.which(program)
        if there and client in connected:
            yield Finding("client", "ok", f"{client} is connected ({there})")
        elif there:
            yield Finding("client", "note", f"{client} is installed and not connected", f"toolkit connect {client}")
        elif client in connected:
            yield Finding("client", "note", f"{client} is connected, but {program} is not on PATH")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
