"""Several GGUF files behind one address: each is loaded when it is first asked for, the least recently used unloaded
when memory runs short. `/SLUG/...` is passed on to that model's own llama.cpp server, whatever the path.

Run as `python -P -m gateway.upstreams.router --port N SPECS`, with the specs as JSON. Our own, because llama.cpp's
router needs the native binary and counts models, not memory.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.lifeline import watch
from gateway.models import fit, gguf, machine
from gateway.models.architecture import from_header
from gateway.process import Child, free_port, python_module
from gateway.upstreams.llamacpp import LlamaServerSpec, command, resolved
from gateway.upstreams.served import Price
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import state_dir
from toolkit.core.units import format_bytes

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOAD_TIMEOUT = 300.0
WAIT_FOR_ROOM = 300.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}


@dataclass(frozen=True)
class RouterSpec:
    """The router to start and the models behind it."""

    specs: tuple[LlamaServerSpec, ...]
    port: int = 0
    name: str = "models"


@dataclass(frozen=True)
class Resident:
    """A loaded model: bytes it holds, when it was last asked (monotonic seconds), requests it answers now."""

    name: str
    size: int
    used: float
    active: int


def slug(name: str) -> str:
    """The path segment that stands for a model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def router_command(spec: RouterSpec) -> list[str]:
    """The argument list of the child; it ends when its parent does."""
    described = [asdict(one) | {"gguf": str(one.gguf), "mmproj": one.mmproj and str(one.mmproj)} for one in spec.specs]
    return python_module("gateway.upstreams.router", "--port", str(spec.port), json.dumps(described))


def to_unload(residents: Sequence[Resident], need: int, budget: int) -> list[str] | None:
    """Which models to unload so that `need` more bytes fit in `budget`: idle ones, least recently used first.

    None if that is not enough while others are busy, or at all.
    """
    excess = sum(resident.size for resident in residents) + need - budget
    chosen = []
    for resident in sorted(residents, key=lambda one: one.used):
        if excess <= 0:
            break
        if resident.active == 0:
            chosen.append(resident.name)
            excess -= resident.size
    return chosen if excess <= 0 else None


class _Model:
    """One model behind the router: its spec, what it needs, its server if it is loaded."""

    def __init__(self, spec: LlamaServerSpec) -> None:
        self.spec = spec = resolved(spec)
        header = gguf.read_file(spec.gguf)
        weights = sum(part.stat().st_size for part in gguf.split_of(spec.gguf))
        projector = spec.mmproj.stat().st_size if spec.mmproj else 0
        shape = from_header(header)
        self.need = fit.memory(shape, weights, spec.context, slots=spec.slots, kv=spec.kv, projector=projector).total
        self.child: Child | None = None
        self.url = ""
        self.used = 0.0  # monotonic seconds
        self.active = 0

    @property
    def loaded(self) -> bool:
        return self.child is not None and self.child.running()

    def load(self) -> None:
        port = free_port()
        log = state_dir() / "logs" / f"llamacpp-{slug(self.spec.name)}.log"
        child = Child(self.spec.name, command(replace(self.spec, port=port)), log=log)
        try:
            child.wait_until(f"http://127.0.0.1:{port}/health", timeout=LOAD_TIMEOUT)
        except BaseException:
            child.stop()
            raise
        self.url, self.used = f"http://127.0.0.1:{port}", time.monotonic()
        self.child = child  # only now is it loaded for others to see

    def take_out(self) -> Child | None:
        """Its server, which is no longer this model's; the caller stops it."""
        child, self.child = self.child, None
        return child

    def unload(self) -> None:
        child = self.take_out()
        if child is not None:
            child.stop()


class Router:
    """Loads and unloads the models; `budget` is the memory all of them together may hold."""

    def __init__(self, specs: Sequence[LlamaServerSpec], budget: int) -> None:
        self.models = {slug(spec.name): _Model(spec) for spec in specs}
        self.budget = budget
        self._loading = asyncio.Lock()
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[str]:
        """The address of the model's server, which stays loaded until the end of the block.

        Raises ToolkitError if it cannot be loaded, or there is no room for it within `WAIT_FOR_ROOM` seconds.
        """
        model = self.models[name]
        while not model.loaded:
            async with self._loading:
                if not model.loaded:
                    await self._make_room(model)
                    await asyncio.to_thread(model.load)
        model.active += 1  # nothing is awaited since it was seen loaded, so nobody has unloaded it
        try:
            yield model.url
        finally:
            model.active -= 1
            model.used = time.monotonic()
            async with self._freed:
                self._freed.notify_all()

    async def _make_room(self, model: _Model) -> None:
        if model.need > self.budget:
            raise ToolkitError(
                f"{model.spec.name} needs {format_bytes(model.need)}, and models may hold {format_bytes(self.budget)}",
                hint=f"toolkit models fit {model.spec.name}",
            )
        try:
            async with self._freed:
                await asyncio.wait_for(
                    self._freed.wait_for(lambda: to_unload(self._residents(), model.need, self.budget) is not None),
                    WAIT_FOR_ROOM,
                )
        except TimeoutError:
            raise ToolkitError(
                f"there is no room for {model.spec.name} while the other models are busy", hint="try again later"
            ) from None
        # Taken out before anything is awaited: from here on no request is sent to them.
        leaving = [self.models[name].take_out() for name in to_unload(self._residents(), model.need, self.budget) or ()]
        for child in leaving:
            if child is not None:
                await asyncio.to_thread(child.stop)

    def _residents(self) -> list[Resident]:
        return [
            Resident(name, model.need, model.used, model.active) for name, model in self.models.items() if model.loaded
        ]

    def close(self) -> None:
        """Stop every server."""
        for model in self.models.values():
            model.unload()


def application(router: Router) -> "Starlette":
    """The router as an ASGI application."""
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10.0), trust_env=False)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()
        router.close()

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(request: Request) -> Response:
        listed = [
            {
                "id": model.spec.name,
                "object": "model",
                "owned_by": "toolkit",
                "loaded": model.loaded,
                "path": f"/{name}",
            }
            for name, model in router.models.items()
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def pass_on(request: Request) -> "Response | _Passing":
        name = request.path_params["model"]
        model = router.models.get(name)
        if model is None:
            return _error(404, f"there is no model at /{name}")
        if request.method == "GET" and not model.loaded:
            return _error(503, f"{model.spec.name} is not loaded; it will be when it is asked something")
        return _Passing(router, client, name, request)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/{model}/{path:path}", pass_on, methods=["GET", "POST"]),
        ],
        lifespan=lifespan,
    )


def _error(status: int, message: str) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "type": "router_error", "code": status}}, status)


class _Passing:
    """A response that streams from the model's server and holds the lease exactly as long."""

    def __init__(self, router: Router, client: Any, name: str, request: "Request") -> None:
        self._router, self._client, self._name, self._request = router, client, name, request

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        import httpx
        from starlette.responses import StreamingResponse

        request = self._request
        body = await request.body()
        try:
            async with self._router.lease(self._name) as url:
                target = f"{url}/{request.path_params['path']}"
                upstream = self._client.build_request(
                    request.method, target, params=request.query_params, headers=_kept(request.headers), content=body
                )
                response = await self._client.send(upstream, stream=True)
                try:
                    passed = StreamingResponse(
                        response.aiter_raw(), response.status_code, headers=_kept(response.headers)
                    )
                    await passed(scope, receive, send)
                finally:
                    await response.aclose()
        except ToolkitError as error:
            await _error(503, error.message)(scope, receive, send)
        except httpx.TransportError as error:
            await _error(502, f"the model's server broke off: {type(error).__name__}")(scope, receive, send)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM, or until the parent is gone."""
    parser = argparse.ArgumentParser(prog="gateway.upstreams.router")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--budget", type=int, default=0, help="bytes for all models; 0: what is free now")
    parser.add_argument("specs")
    options = parser.parse_args(arguments)
    watch()
    import uvicorn

    room = machine.look().room(now=True)
    router = Router([_spec(one) for one in json.loads(options.specs)], options.budget or room.ram + room.vram)
    uvicorn.run(application(router), host="127.0.0.1", port=options.port, log_level="warning")
    return 0


def _spec(described: dict[str, Any]) -> LlamaServerSpec:
    paths = {name: Path(described[name]) for name in ("gguf", "mmproj") if described[name]}
    return LlamaServerSpec(**described | paths | {"price": Price(**described["price"])})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
