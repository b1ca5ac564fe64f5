"""Gathers what the gateway can serve: models of the settings, servers found running, files to start servers on.

Starts nothing. A model named in the settings that cannot be served is an error; one that was merely found is a note.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.models import store
from gateway.settings import Model, Settings
from gateway.upstreams import hosted, llamacpp, lmstudio, ollama, vllm
from gateway.upstreams.llamacpp import LlamaServerSpec
from gateway.upstreams.router import RouterSpec, router_command, slug
from gateway.upstreams.served import Price, ServedModel
from gateway.upstreams.wire import Found, ask, is_loopback
from toolkit.core.config import secret
from toolkit.core.errors import ToolkitError

if TYPE_CHECKING:
    import httpx

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")  # no wildcard, which LiteLLM would take as a pattern


@dataclass(frozen=True)
class Discovered:
    """Everything there is to serve. `to_start` are llama.cpp servers, or a router of several, that the gateway starts.

    `command_of` says how, `served_by` what they serve once they run.
    """

    models: tuple[ServedModel, ...] = ()
    to_start: tuple[LlamaServerSpec | RouterSpec, ...] = ()
    notes: tuple[str, ...] = ()


def discover_all(settings: Settings) -> Discovered:
    """What `settings` names, then what runs here or has its key set, then GGUF files. Names are distinct.

    Takes about `settings.discover.timeout` seconds at most. Raises ToolkitError for a model of the settings that
    cannot be served: a file that is missing or damaged, an engine that is not installed, a key that is not set.
    """
    import httpx

    llamacpp.require(settings.llamacpp.engine)
    with httpx.Client(timeout=settings.discover.timeout, trust_env=False) as client:
        named = [_named(model, settings, client) for model in settings.models]
        searches: list[Callable[[Settings, httpx.Client], Found]] = [
            llamacpp.discover,
            ollama.discover,
            lmstudio.discover,
            vllm.discover,
        ]
        with ThreadPoolExecutor(max_workers=len(searches)) as pool:
            found = list(pool.map(lambda search: search(settings, client), searches))
    found.append(hosted.discover(settings))
    started = [thing for thing in named if isinstance(thing, LlamaServerSpec)]
    models = [thing for thing in named if isinstance(thing, ServedModel)]
    notes = [note for one in found for note in one.notes]
    taken = {thing.name for thing in named}
    if settings.discover.gguf:
        for spec in stored_specs(settings, notes):
            if spec.name not in taken:
                taken.add(spec.name)
                started.append(spec)
    to_start: list[LlamaServerSpec | RouterSpec] = [RouterSpec(tuple(started))] if len(started) > 1 else [*started]
    if settings.discover.builtin:
        for spec in llamacpp.builtin_specs(settings):
            if spec.name not in taken:
                taken.add(spec.name)
                to_start.append(spec)
    models.extend(_distinct((model for one in found for model in one.models), taken, notes))
    return Discovered(tuple(models), tuple(to_start), tuple(notes))


def command_of(spec: LlamaServerSpec | RouterSpec) -> list[str]:
    """The argument list of the child that serves `spec`, whose port is set."""
    return router_command(spec) if isinstance(spec, RouterSpec) else llamacpp.command(spec)


def served_by(spec: LlamaServerSpec | RouterSpec, settings: Settings) -> list[ServedModel]:
    """The gateway's view of what a child started from `spec` serves. Behind a router each model has its own path."""
    if isinstance(spec, LlamaServerSpec):
        return [llamacpp.served(spec, settings)]
    models = []
    for one in spec.specs:
        model = llamacpp.served(one, settings)
        base = f"http://127.0.0.1:{spec.port}/{slug(one.name)}/v1"
        models.append(replace(model, litellm_params={**model.litellm_params, "api_base": base}, note="on demand"))
    return models


def stored_specs(settings: Settings, notes: list[str]) -> list[LlamaServerSpec]:
    """The pulled models. One that is damaged is left out, with a note."""
    specs = []
    for receipt in store.receipts():
        try:
            specs.append(llamacpp.spec_for(receipt.path, receipt.name, settings, mmproj=receipt.projector))
        except ToolkitError as error:
            notes.append(f"{error.message}: left out (toolkit models verify {receipt.name})")
    return specs


def _named(model: Model, settings: Settings, client: "httpx.Client") -> ServedModel | LlamaServerSpec:
    """One entry of `models:`."""
    if model.api_key:
        secret(model.api_key, what=f"api_key of model {model.name}")
    key = f"os.environ/{model.api_key.removeprefix('env:')}" if model.api_key else None
    price = Price(**model.price.model_dump()) if model.price else None
    if model.gguf is not None:
        if model.engine:
            llamacpp.require(model.engine)
        return llamacpp.spec_for(model.gguf.expanduser().absolute(), model.name, settings, model)
    if model.ollama is not None:
        return _at_ollama(model, model.ollama, ollama.server(settings), price, settings, client)
    if model.url is not None:
        local = is_loopback(model.url)
        return ServedModel(
            name=model.name,
            upstream="url",
            litellm_params={
                "model": f"hosted_vllm/{model.upstream_name or model.name}",
                "api_base": model.url.rstrip("/"),
                "api_key": key or "none",
            },
            context=model.context,
            max_output=model.max_output,
            price=price or (Price() if local else None),
            local=local,
        )
    assert model.litellm is not None  # noqa: S101  the settings admit exactly one source
    known = hosted.price_table().get(model.litellm) or hosted.price_table().get(model.litellm.partition("/")[2]) or {}
    return ServedModel(
        name=model.name,
        upstream=model.litellm.partition("/")[0],
        litellm_params={"model": model.litellm} | ({"api_key": key} if key else {}),
        context=model.context or known.get("max_input_tokens"),
        max_output=model.max_output or known.get("max_output_tokens"),
        price=price,
        local=False,
    )


def _at_ollama(
    model: Model, tag: str, base: str, price: Price | None, settings: Settings, client: "httpx.Client"
) -> ServedModel:
    shown, _ = ask(client, f"{base}/api/show", "Ollama", post={"model": tag})
    shown = shown or {}
    trained = ollama.trained_context(shown)
    if model.context and trained and model.context > trained:
        raise ToolkitError(
            f"model {model.name} asks for a context of {model.context:,}, and {tag} was trained with {trained:,}",
            hint=f"set context: {trained} for {model.name} in gateway.yaml",
        )
    context = model.context or ollama.configured_context(shown) or settings.llamacpp.context
    entry = ollama.served(model.name, tag, base, min(context, trained or context), price=price)
    note = "" if shown else f"Ollama at {base} does not have it, or does not answer: ollama pull {tag}"
    return replace(entry, max_output=model.max_output, note=note)


def _distinct(models: Iterable[ServedModel], taken: set[str], notes: list[str]) -> Iterable[ServedModel]:
    """Found models under names of their own: a name that is taken gets its upstream before it."""
    for model in models:
        name = model.name if model.name not in taken else f"{model.upstream}/{model.name}"
        if name in taken or not _NAME.fullmatch(name):
            notes.append(
                f"a model named {model.name[:100]!r} at {model.upstream} is left out: give it a name under models:"
            )
            continue
        taken.add(name)
        yield replace(model, name=name)
