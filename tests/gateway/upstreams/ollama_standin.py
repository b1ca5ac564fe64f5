"""An Ollama-compatible server on loopback, built from Ollama's documented API (docs/api.md).

A stand-in: Ollama cannot run here. It knows tags, `show`, `ps`, streamed `pull`, `create` from another tag with
parameters, `delete`, and `chat` with a tool call; it keeps what it was asked, for the tests to look at.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.loopback import JsonHandler, on_loopback

DIGEST = "sha256:" + "ab" * 32


@dataclass
class Tag:
    """One model at the stand-in."""

    parameters: dict[str, int] = field(default_factory=dict)
    trained: int = 131_072
    capabilities: tuple[str, ...] = ("completion", "tools")
    loaded: int | None = None


@dataclass
class Ollama:
    """The server's side: its tags, its library, what was asked."""

    url: str
    tags: dict[str, Tag] = field(default_factory=dict)
    library: dict[str, Tag] = field(default_factory=dict)
    chats: list[dict[str, Any]] = field(default_factory=list)


class _Handler(JsonHandler):
    ollama: ClassVar[Ollama]

    def do_GET(self) -> None:
        tags = self.ollama.tags
        if self.path == "/api/tags":
            return self.send({"models": [self._listed(name) for name in tags]})
        if self.path == "/api/ps":
            held = [
                self._listed(name)
                | {"context_length": tag.loaded, "size_vram": 0, "expires_at": "2026-01-01T00:00:00Z"}
                for name, tag in tags.items()
                if tag.loaded
            ]
            return self.send({"models": held})
        if self.path == "/api/version":
            return self.send({"version": "0.20.0"})
        return self.send({"error": "not found"}, 404)

    def do_DELETE(self) -> None:
        name = self.body().get("model", "")
        if self.ollama.tags.pop(name, None) is None:
            return self.send({"error": f"model '{name}' not found"}, 404)
        return self.send({})

    def do_POST(self) -> None:
        asked, tags = self.body(), self.ollama.tags
        name = str(asked.get("model", ""))
        if self.path == "/api/show":
            if name not in tags:
                return self.send({"error": f"model '{name}' not found"}, 404)
            tag = tags[name]
            lines = [f"{key:30} {value}" for key, value in tag.parameters.items()]
            return self.send(
                {
                    "parameters": "\n".join(lines),
                    "capabilities": list(tag.capabilities),
                    "details": {"format": "gguf", "family": "gemma4"},
                    "model_info": {"general.architecture": "gemma4", "gemma4.context_length": tag.trained},
                }
            )
        if self.path == "/api/pull":
            if name not in self.ollama.library:
                return self._lines([{"error": "pull model manifest: file does not exist"}])
            tags[name] = self.ollama.library[name]
            steps = [{"status": "pulling", "digest": DIGEST, "total": 1000, "completed": n} for n in (100, 600, 1000)]
            return self._lines([{"status": "pulling manifest"}, *steps, {"status": "success"}])
        if self.path == "/api/create":
            origin = tags.get(str(asked.get("from")))
            if origin is None:
                return self.send({"error": "from not found"}, 404)
            tags[name] = Tag(dict(asked.get("parameters") or {}), origin.trained, origin.capabilities)
            return self.send({"status": "success"})
        if self.path == "/api/chat":
            self.ollama.chats.append(asked)
            call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
            end = {"model": name, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
            end |= {"prompt_eval_count": 20, "eval_count": 5}
            if asked.get("stream", True):
                return self._lines([{"model": name, "message": message, "done": False}, end])
            return self.send(end | {"message": message})
        return self.send({"error": "not found"}, 404)

    def _listed(self, name: str) -> dict[str, Any]:
        details = {"format": "gguf", "family": "gemma4", "parameter_size": "8B", "quantization_level": "Q4_K_M"}
        return {"name": name, "model": name, "size": 1000, "digest": DIGEST, "details": details}

    def _lines(self, documents: list[dict[str, Any]]) -> None:
        self.send("".join(json.dumps(one) + "\n" for one in documents), kind="application/x-ndjson")


@contextmanager
def local_ollama(**tags: Tag) -> Iterator[Ollama]:
    """An Ollama on loopback; tags are given with `__` for the colon."""
    handler = type("Handler", (_Handler,), {})
    with on_loopback(handler) as url:
        handler.ollama = Ollama(url, {name.replace("__", ":"): tag for name, tag in tags.items()})  # type: ignore[attr-defined]
        yield handler.ollama  # type: ignore[attr-defined]
