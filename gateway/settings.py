"""The gateway's settings: one `gateway.yaml`, found in the user's config folder, named, or none.

Knows the file's shape and defaults only; nothing of processes or networks. Every option stands, commented, in
`configs/gateway.example.yaml`.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from toolkit.core.config import Strict, load
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import config_dir, data_dir
from toolkit.core.units import parse_context, parse_duration, parse_money


def _with(parse: Any) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        try:
            return parse(str(value))
        except ToolkitError as error:
            raise ValueError(f"{error.message} ({error.hint})") from None

    return BeforeValidator(read)


def _reference(value: str) -> str:
    if not value.startswith("env:"):
        raise ValueError("a secret is written as a reference like env:MY_KEY, never as itself")
    return value


Context = Annotated[int, _with(parse_context), Field(ge=256, le=16_777_216)]
Seconds = Annotated[float, _with(parse_duration), Field(gt=0)]
Dollars = Annotated[int, _with(parse_money), Field(ge=0)]
Secret = Annotated[str, AfterValidator(_reference)]
Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
Hosted = Literal["openai", "anthropic", "gemini", "mistral", "openrouter"]
Engine = Literal["auto", "llama-server", "xllamacpp", "llama-cpp-python"]
KvType = Literal["f16", "q8_0", "q4_0"]
Flash = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]  # YAML reads a bare on and off as true and false
McpName = Literal["python", "spreadsheet", "prices", "web", "files", "images"]


class Listen(Strict):
    """`gateway:` where the gateway listens and how it starts."""

    host: str = "127.0.0.1"
    port: Port = 4000
    expose: bool = False
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    start_timeout: Seconds = 60.0
    request_timeout: Seconds = 600.0
    log_prompts: bool = False

    @model_validator(mode="after")
    def _loopback_unless_told(self) -> "Listen":
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if not loopback and not self.expose:
            raise ValueError(f"{self.host} is reachable from other machines; say so with expose: true")
        return self


class Discover(Strict):
    """`discover:` what is looked for when the gateway starts. A URL, or false to leave it out."""

    builtin: bool = True
    gguf: bool = True
    llamacpp: Url | Literal[False] = "http://127.0.0.1:8080"
    ollama: Url | Literal[False] = "http://127.0.0.1:11434"
    lmstudio: Url | Literal[False] = "http://127.0.0.1:1234"
    vllm: Url | Literal[False] = "http://127.0.0.1:8000"
    hosted: tuple[Hosted, ...] = ("openai", "anthropic", "gemini", "mistral", "openrouter")
    timeout: Seconds = 1.5


class LlamaServer(Strict):
    """`llamacpp:` how GGUF files are served, unless a model says otherwise."""

    engine: Engine = "auto"
    context: Context = 8192
    slots: Annotated[int, Field(ge=1, le=256)] = 2
    threads: Annotated[int, Field(ge=0)] = 0
    gpu_layers: Annotated[int, Field(ge=-1)] = -1
    kv: KvType = "f16"
    flash_attention: Flash = "auto"
    cache_ram_mib: Annotated[int, Field(ge=0)] = 512


class PerMillion(Strict):
    """`price:` dollars for a million tokens."""

    input: Dollars = 0
    output: Dollars = 0
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class Model(Strict):
    """One entry of `models:`; exactly one of `gguf`, `ollama`, `url`, `litellm` says where it is."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]
    gguf: Path | None = None
    ollama: str | None = None
    url: Url | None = None
    litellm: str | None = None
    upstream_name: str | None = None
    api_key: Secret | None = None
    context: Context | None = None
    max_output: Context | None = None
    slots: Annotated[int, Field(ge=1, le=256)] | None = None
    threads: Annotated[int, Field(ge=0)] | None = None
    gpu_layers: Annotated[int, Field(ge=-1)] | None = None
    kv: KvType | None = None
    flash_attention: Flash | None = None
    engine: Engine | None = None
    price: PerMillion | None = None
    fallback: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        given = [kind for kind in ("gguf", "ollama", "url", "litellm") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"model {self.name} needs exactly one of gguf, ollama, url, litellm; it has {given or 'none'}"
            )
        return self


class Keys(Strict):
    """`keys:` where virtual keys are kept, and how a request is admitted."""

    database: str = ""
    unknown_price: Literal["refuse", "free"] = "refuse"

    @property
    def url(self) -> str:
        """The store's SQLAlchemy URL: a file in the data folder unless another is set."""
        if not self.database:
            return f"sqlite:///{data_dir() / 'keys.db'}"
        if self.database.startswith("env:"):
            from toolkit.core.config import secret

            return secret(self.database, what="keys.database")
        return self.database if "://" in self.database else f"sqlite:///{Path(self.database).expanduser().absolute()}"


def _folders_named(servers: dict[McpName, tuple[str, ...]]) -> dict[McpName, tuple[str, ...]]:
    for name, options in servers.items():
        flags = {option.partition("=")[0] for option in options}
        if "--http" in flags:
            raise ValueError(f"{name} is started by the gateway; leave out --http")
        if name in ("files", "spreadsheet") and "--root" not in flags:
            raise ValueError(f"{name} needs the folder that it may touch: [--root, FOLDER]")
    return servers


class Settings(Strict):
    """The whole of `gateway.yaml`. `mcp`: MCP servers by name, each with its options of `toolkit mcp run NAME`."""

    gateway: Listen = Listen()
    discover: Discover = Discover()
    llamacpp: LlamaServer = LlamaServer()
    models: tuple[Model, ...] = ()
    keys: Keys = Keys()
    mcp: Annotated[dict[McpName, tuple[str, ...]], AfterValidator(_folders_named)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct_names(self) -> "Settings":
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two models are named {name}")
        return self


def find_settings(named: Path | None = None) -> Path | None:
    """The settings file to use: the one named, `TOOLKIT_CONFIG`, the user's own, or none."""
    if named is not None:
        return named
    if from_environment := os.environ.get("TOOLKIT_CONFIG"):
        return Path(from_environment).expanduser()
    own = config_dir() / "gateway.yaml"
    return own if own.exists() else None


def load_settings(named: Path | None = None, **flags: Any) -> Settings:
    """Settings from defaults, file, `TOOLKIT_SECTION_KEY` and `flags` (section__key=value), in that order."""
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load(Settings, find_settings(named), prefix="TOOLKIT", flags=dotted)
