"""GGUF files served by llama.cpp: what to run, how to run it, and a llama.cpp server that already runs.

The engine is native `llama-server` if it is on PATH, else xllamacpp, else llama-cpp-python, both in a child process of
ours, unless the settings name one.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.models import builtin, gguf
from gateway.process import python_module
from gateway.settings import Engine, KvType, Model, Settings
from gateway.upstreams.served import Price, ServedModel
from gateway.upstreams.wire import Found, ask, base_url, count, items
from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    import httpx


BUILTIN_CONTEXT = 4096


@dataclass(frozen=True)
class LlamaServerSpec:
    """One llama.cpp server to start. `context` is tokens one request may use; each of `slots` has as many. `trained`
    is the longest the model was trained with (None: the file does not say).

    `threads` 0 means one per core, `gpu_layers` -1 as many as fit, `port` 0 that the caller picks one.
    """

    gguf: Path
    name: str
    context: int = 8192
    slots: int = 2
    threads: int = 0
    gpu_layers: int = -1
    kv: KvType = "f16"
    flash_attention: str = "auto"
    cache_ram_mib: int = 512
    port: int = 0
    mmproj: Path | None = None
    engine: Engine = "auto"
    max_output: int | None = None
    trained: int | None = None
    price: Price = field(default_factory=Price)


def spec_for(
    path: Path, name: str, settings: Settings, model: Model | None = None, *, mmproj: Path | None = None, **known: Any
) -> LlamaServerSpec:
    """How to serve the file at `path`: what the model's entry says, else `known`, else the `llamacpp:` section.

    Raises ToolkitError if the file is missing, no GGUF, or cut short; UsageError if more context is asked for
    in the entry than the model was trained with. A default context shrinks to what the model was trained with.
    """
    header = gguf.read_file(path)
    if header.architecture in ("clip", "mmproj"):
        raise ToolkitError(
            f"{path} is a projector for images, not a language model",
            hint=f"name the model's own file, in {path.parent}",
        )
    trained = header.context_length
    asked = model.context if model else None
    if asked and trained and asked > trained:
        raise UsageError(
            f"model {name} asks for a context of {asked:,}, and {path.name} was trained with {trained:,}",
            hint=f"set context: {trained} for {name} in gateway.yaml",
        )
    default = settings.llamacpp
    keys = ("slots", "threads", "gpu_layers", "kv", "flash_attention", "engine")
    chosen: dict[str, Any] = {key: getattr(default, key) for key in keys} | known
    if model:
        chosen |= {key: getattr(model, key) for key in chosen if getattr(model, key, None) is not None}
    return LlamaServerSpec(
        gguf=path,
        name=name,
        context=asked or min(known.get("context", default.context), trained or default.context),
        cache_ram_mib=default.cache_ram_mib,
        mmproj=mmproj,
        max_output=model.max_output if model else None,
        trained=trained,
        price=Price(**model.price.model_dump()) if model and model.price else Price(),
        **{key: value for key, value in chosen.items() if key != "context"},
    )


def builtin_specs(settings: Settings) -> list[LlamaServerSpec]:
    """The models shipped with the toolkit. One thread each: more only slows down something so small."""
    return [spec_for(path, name, settings, threads=1, context=BUILTIN_CONTEXT) for name, path in builtin.FILES.items()]


# Engines in the order of preference: whether each is here, and how to get it.
_ENGINES: Mapping[Engine, tuple[Callable[[], bool], str]] = {
    "llama-server": (
        lambda: shutil.which("llama-server") is not None,
        "set llamacpp.engine: xllamacpp in gateway.yaml",
    ),
    "xllamacpp": (lambda: find_spec("xllamacpp") is not None, "pip install xllamacpp"),
    "llama-cpp-python": (
        lambda: find_spec("llama_cpp") is not None,
        "pip install 'llama-cpp-python[server]' (needs a C++ compiler and some minutes)",
    ),
}


def engines() -> list[Engine]:
    """The engines that are installed, the preferred one first."""
    return [engine for engine, (there, _) in _ENGINES.items() if there()]


def require(engine: Engine) -> None:
    """Raise ToolkitError if an engine that is named is not installed."""
    if engine != "auto" and not _ENGINES[engine][0]():
        where = "on PATH" if engine == "llama-server" else "installed"
        raise ToolkitError(f"{engine} is not {where}", hint=_ENGINES[engine][1])


def resolved(spec: LlamaServerSpec) -> LlamaServerSpec:
    """`spec` as it will be served: by which engine, where it says auto, and with one slot where that has only one.

    Raises ToolkitError if the engine that was asked for is not installed, or none is.
    """
    engine = spec.engine
    if engine == "auto":
        engine = next(iter(engines()), "auto")
        if engine == "auto":
            raise ToolkitError("there is no llama.cpp to serve GGUF files", hint=_ENGINES["xllamacpp"][1])
    require(engine)
    return replace(spec, engine=engine, slots=1 if engine == "llama-cpp-python" else spec.slots)


def command(spec: LlamaServerSpec) -> list[str]:
    """The argument list of the child that serves `spec`; it ends when its parent does.

    Raises ToolkitError if the engine that was asked for is not installed.
    """
    spec = resolved(spec)
    if spec.engine == "llama-server":
        native = shutil.which("llama-server") or "llama-server"
        return python_module("gateway.lifeline", "--", native, *arguments(spec), "--jinja", "--no-webui", "--no-warmup")
    child = "llama_cpp_python_server" if spec.engine == "llama-cpp-python" else "xllamacpp_server"
    return python_module(f"gateway.upstreams.{child}", *arguments(spec))


def arguments(spec: LlamaServerSpec) -> list[str]:
    """The options, by llama-server's own names; our child for xllamacpp takes the same ones."""
    options: Sequence[tuple[str, object]] = (
        ("--model", spec.gguf),
        ("--alias", spec.name),
        ("--host", "127.0.0.1"),
        ("--port", spec.port),
        ("--ctx-size", spec.context * spec.slots),
        ("--parallel", spec.slots),
        ("--cache-type-k", spec.kv),
        ("--cache-type-v", spec.kv),
        ("--flash-attn", spec.flash_attention),
        ("--cache-ram", spec.cache_ram_mib),
        *([("--threads", spec.threads)] if spec.threads else []),
        *([("--n-gpu-layers", spec.gpu_layers)] if spec.gpu_layers >= 0 else []),
        *([("--mmproj", spec.mmproj)] if spec.mmproj else []),
    )
    return [text for name, value in options for text in (name, str(value))]


def served(spec: LlamaServerSpec, settings: Settings) -> ServedModel:
    """The gateway's view of a server started from `spec`, whose port is set."""
    url = f"http://127.0.0.1:{spec.port}"
    return replace(_served(spec.name, spec.name, url, spec.context, spec.max_output, spec.price), trained=spec.trained)


def discover(settings: Settings, client: "httpx.Client") -> Found:
    """The models of a llama.cpp server that runs already."""
    url = settings.discover.llamacpp
    if not url:
        return Found()
    base = base_url(url)
    models, notes = ask(client, f"{base}/v1/models", "llama.cpp")
    if models is None:
        return Found(notes=notes)
    found = [item for item in items(models, "data") if item.get("owned_by") == "llamacpp" and "id" in item]
    if not found:
        return Found(notes=(f"what listens at {base} is no llama.cpp server: left out",))
    context = context_held(client, base) if len(found) == 1 else None
    named = [(str(item["id"]), _trained(item)) for item in found]
    return Found(
        tuple(replace(_served(name, name, base, context, None, Price()), trained=trained) for name, trained in named)
    )


def context_held(client: "httpx.Client", base: str) -> int | None:
    """How many tokens one request may really use at the llama.cpp server at `base`, as it says itself."""
    props, _ = ask(client, f"{base}/props", "llama.cpp")
    defaults = (props or {}).get("default_generation_settings")
    return count(defaults.get("n_ctx")) if isinstance(defaults, dict) else None


def context_trained(client: "httpx.Client", base: str) -> int | None:
    """How many tokens the model at the llama.cpp server at `base` was trained with."""
    models, _ = ask(client, f"{base}/v1/models", "llama.cpp")
    return next((_trained(item) for item in items(models, "data")), None)


def _trained(item: dict[str, Any]) -> int | None:
    """What one entry of a llama.cpp server's list of models says of it."""
    meta = item.get("meta")
    return count(meta.get("n_ctx_train")) if isinstance(meta, dict) else None


def _served(
    name: str, upstream_name: str, url: str, context: int | None, max_output: int | None, price: Price
) -> ServedModel:
    return ServedModel(
        name=name,
        upstream="llamacpp",
        litellm_params={"model": f"hosted_vllm/{upstream_name}", "api_base": f"{url}/v1", "api_key": "none"},
        context=context,
        max_output=max_output,
        price=price,
    )
