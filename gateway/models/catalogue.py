"""The catalogue: models worth pulling, from `configs/models.yaml` and the user's own `models.yaml`.

Knows what a file says; nothing of this machine or the network.
"""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gateway.models.architecture import Architecture, Layers
from toolkit.core.config import Strict, load
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import bundled, config_dir

Positive = Annotated[int, Field(gt=0)]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]


class LayerGroup(Strict):
    """Layers alike that own a KV cache."""

    count: Positive
    kv_heads: Positive
    head: Positive
    sliding: bool = False


class GgufSource(Strict):
    """One quantisation of a model on the hub. `sha256` may be only its beginning; `seen` is when it was read."""

    repository: Repository
    quant: str
    file: str | None = None
    size: Positive | None = None
    seen: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None
    note: str = ""


class OllamaSource(Strict):
    """The tag in Ollama's own library: other bytes than the GGUF repositories hold."""

    tag: str
    size: Positive | None = None


class Sampling(Strict):
    """Sampling the model's makers recommend."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Positive | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


class Entry(Strict):
    """One model of the catalogue."""

    title: str
    licence: str
    parameters: str = ""
    modalities: tuple[str, ...] = ("text",)
    roles: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    context: Positive
    window: Annotated[int, Field(ge=0)] = 0
    layers: tuple[LayerGroup, ...]
    shared_layers: Annotated[int, Field(ge=0)] = 0
    gguf: tuple[GgufSource, ...] = ()
    ollama: OllamaSource | None = None
    unverified: tuple[str, ...] = ()

    def architecture(self, name: str) -> Architecture:
        """Its memory shape. The widths that size the compute buffer are not in the catalogue."""
        groups = tuple(
            Layers(group.count, group.kv_heads * group.head, group.kv_heads * group.head, group.sliding)
            for group in self.layers
        )
        return Architecture(name=name, layers=groups, context=self.context, window=self.window)

    def source(self, quant: str | None) -> GgufSource | None:
        """The hub source of that quantisation, or the first; None if the catalogue has none such."""
        wanted = quant.lower() if quant else None
        return next((one for one in self.gguf if wanted in (None, one.quant.lower())), None)


class Catalogue(Strict):
    """Entries by name."""

    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")], Entry] = Field(default_factory=dict)

    def find(self, name: str) -> Entry:
        """The entry of that name. Raises UsageError with the nearest ones."""
        entry = self.models.get(name.lower())
        if entry is None:
            raise unknown(name, list(self.models))
        return entry


def read(own: Path | None = None) -> Catalogue:
    """The catalogue shipped here, with the user's own entries over it."""
    own = own or config_dir() / "models.yaml"
    shipped = load(Catalogue, bundled("models.yaml"))
    if not own.exists():
        return shipped
    return Catalogue(models={**shipped.models, **load(Catalogue, own).models})


def not_pulled(name: str) -> ToolkitError:
    """The model is in the catalogue, and not here."""
    return ToolkitError(f"{name} is in the catalogue and not pulled", hint=f"toolkit models pull {name}")


def unknown(name: str, known: list[str]) -> UsageError:
    """No model has that name; which ones are near."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    near = near or [one for one in known if name.lower() in one][:3]
    said = f"; near: {', '.join(near)}" if near else ""
    return UsageError(f"there is no model named {name}{said}", hint="toolkit models list")
