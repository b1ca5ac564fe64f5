"""llama-cpp-python's own server as a child process: takes llama-server's options, and answers one request at a time.

What it lacks is added here: calls of tools, read out of the text (tool_calls.py), messages as agents send them, and
what llama.cpp's server tells of itself (`/health`, `/props`, the trained context in `/v1/models`). A reply to a request
with tools comes in one piece, and a call is never forced: of a tool that is named, it alone is offered.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.lifeline import watch
from gateway.models import gguf
from gateway.upstreams.server_options import cores, parse
from gateway.upstreams.tool_calls import as_chunks, with_calls, with_objects, with_text

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Handler = Callable[..., Any]
_KV = {"f16": 1, "q8_0": 8, "q4_0": 2}  # ggml's numbers


def model_settings(options: argparse.Namespace, *, template: bool) -> dict[str, Any]:
    """llama-cpp-python's settings for these options. `template`: whether the file brings a chat template.

    Without the file's own template named, a well-known one would be taken for a format that leaves tools out.
    """
    threads = options.threads or cores()
    return {
        "model": options.model,
        "model_alias": options.alias,
        "n_ctx": options.ctx_size,
        "n_threads": threads,
        "n_threads_batch": threads,
        "n_gpu_layers": options.n_gpu_layers,
        "type_k": _KV[options.cache_type_k],
        "type_v": _KV[options.cache_type_v],
        "flash_attn": options.flash_attn != "off",
        "logits_all": False,
        "chat_format": "chat_template.default" if template else None,
        "verbose": False,
    }


def calling(handle: Handler) -> Handler:
    """A chat handler whose replies have their calls of tools read out of the text."""

    def handler(*, messages: Any, tools: Any = None, tool_choice: Any = None, stream: bool = False, **more: Any) -> Any:
        more["messages"] = with_objects(messages)
        offered = offer(tools or (), tool_choice)
        if not offered:
            return handle(tools=None, tool_choice=None, stream=stream, **more)
        # A named choice is not passed on: the library would force arguments onto a model that has opened no call.
        answer = handle(tools=offered, tool_choice="auto", stream=False, **more)
        answer = with_calls(answer, {tool["function"]["name"] for tool in offered})
        return as_chunks(answer) if stream else answer

    return handler


def offer(tools: Sequence[Any], choice: Any) -> list[Any]:
    """The tools that the prompt shows: none of them, the one that is named, or all."""
    if choice == "none":
        return []
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    return [tool for tool in tools if named in (None, tool["function"]["name"])]


class Plain:
    """An application whose chat requests have text where the library's types take nothing else."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/chat/completions":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        pieces = [_plain(body)]

        async def again() -> Any:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False} if pieces else await receive()

        headers = [header for header in scope["headers"] if header[0] != b"content-length"]
        await self._app({**scope, "headers": headers}, again, send)


def _plain(body: bytes) -> bytes:
    try:
        document = json.loads(body)
        document["messages"] = with_text(document["messages"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return body  # the library says what is wrong with it
    return json.dumps(document).encode()


def application(options: argparse.Namespace) -> Any:
    """llama-cpp-python's application with the model loaded, and what it lacks."""
    import llama_cpp.llama_chat_format as formats
    from llama_cpp.server import app as library
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    _forget({*ModelSettings.model_fields, *ServerSettings.model_fields, "config_file"})
    header = gguf.read_file(Path(options.model))
    settings = model_settings(options, template="tokenizer.chat_template" in header.metadata)
    server = ServerSettings(host=options.host, port=options.port, interrupt_requests=False)
    app = library.create_app(server_settings=server, model_settings=[ModelSettings(**settings)])
    llama = library._llama_proxy()
    llama.chat_handler = calling(
        llama.chat_handler
        or llama._chat_handlers.get(llama.chat_format)
        or formats.get_chat_completion_handler(llama.chat_format)
    )
    app.router.routes[:0] = _routes(options, header.context_length)
    return Plain(app)


def _routes(options: argparse.Namespace, trained: int | None) -> list[Any]:
    """What llama.cpp's server tells of itself, also while a request is answered."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    listed = {"id": options.alias, "object": "model", "owned_by": "llama-cpp-python", "meta": {"n_ctx_train": trained}}
    documents: dict[str, dict[str, Any]] = {
        "/health": {"status": "ok"},
        "/props": {
            "default_generation_settings": {"n_ctx": options.ctx_size},
            "total_slots": 1,
            "model_alias": options.alias,
            "model_path": options.model,
        },
        "/v1/models": {"object": "list", "data": [listed]},
    }

    def answering(document: dict[str, Any]) -> "Callable[[Request], Response]":
        return lambda request: JSONResponse(document)

    return [Route(path, answering(document), methods=["GET"]) for path, document in documents.items()]


def _forget(names: set[str]) -> None:
    """Take away environment variables that the library would read as settings: MODEL, HOST, SEED, API_KEY ..."""
    for variable in list(os.environ):
        if variable.lower() in names:
            del os.environ[variable]


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT, or until the parent is gone."""
    options = parse("gateway.upstreams.llama_cpp_python_server", arguments)
    watch()
    if options.mmproj:
        print("llama-cpp-python's server is given no projector: images are not read", file=sys.stderr)  # noqa: T201
    try:
        app = application(options)
    except ImportError as error:
        print(  # noqa: T201
            f"llama-cpp-python is installed without its server ({error}): pip install 'llama-cpp-python[server]'",
            file=sys.stderr,
        )
        return 1
    except ValueError as error:
        print(f"llama-cpp-python did not start on {options.model}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    import uvicorn

    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
