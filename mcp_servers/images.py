"""The `images` server: text to image by a Stable Diffusion web UI (AUTOMATIC1111's API and those that follow it).

The web UI is the user's own, where the flags say it is. What it answers is checked to be an image before it is kept.
"""

import argparse
import asyncio
import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers.fetch import certificates
from mcp_servers.guard import Folders, Place, Refusal
from mcp_servers.server import AtMost, ToolServer
from toolkit.core.config import secret
from toolkit.core.errors import UsageError
from toolkit.core.paths import data_dir, private_dir

DEFAULT_URL = "http://127.0.0.1:7860"
SECONDS = 300.0
MAX_ANSWER = 64 << 20
MAX_PIXELS = 16_000_000
SHOWN_BYTES = 700_000  # of an image inside an answer; a larger one is shown smaller and saved whole
SHOWN_SIDE = 1024

# Settings a call may override. Others name folders and files on the web UI's machine.
_OVERRIDES = {
    "sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers", "eta_noise_seed_delta", "tiling",
    "enable_emphasis", "comma_padding_backtrack", "token_merging_ratio", "randn_source", "s_noise", "eta_ancestral",
}  # fmt: skip


class ImageInfo(BaseModel):
    """An image that was made."""

    files: list[str] = Field(description="Where the images were saved.")
    width: int
    height: int
    seed: int | None
    model: str | None
    seconds: float


class ImageModel(BaseModel):
    """A model the web UI has."""

    title: str = Field(description="What to give as `model`.")
    name: str


class ImageModels(BaseModel):
    """The models and samplers the web UI has."""

    models: list[ImageModel]
    samplers: list[str]


class Hires(BaseModel):
    """The second, larger pass ("hires. fix")."""

    scale: float = Field(default=2.0, description="How many times larger, 1 to 4.", ge=1, le=4)
    upscaler: Annotated[str, AtMost(200)] = Field(default="Latent", description="Name of the upscaler.")
    steps: int = Field(default=0, description="Steps of the second pass; 0 as in the first.", ge=0, le=150)
    denoising: float = Field(default=0.7, description="How much may change, 0 to 1.", ge=0, le=1)


class Picture(NamedTuple):
    """A checked image. `content` in the format `media_type` says."""

    content: bytes
    media_type: str
    width: int
    height: int


@dataclass
class WebUi:
    """A Stable Diffusion web UI's API. `auth` is `user:password` where it was started with --api-auth."""

    url: str = DEFAULT_URL
    auth: str = ""
    seconds: float = SECONDS

    def client(self) -> httpx.AsyncClient:
        """A client for one call."""
        user, _, password = self.auth.partition(":")
        return httpx.AsyncClient(
            base_url=self.url,
            verify=certificates(),
            timeout=httpx.Timeout(self.seconds, connect=5.0),
            auth=(user, password) if user else None,
        )

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. Raises Refusal."""
        try:
            async with client.stream(method, path, json=body) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER:
                        raise Refusal("the web UI answers more than is taken", hint="make fewer or smaller images")
                if response.status_code == 404:
                    raise Refusal(
                        f"the web UI at {self.url} has no API",
                        hint="tell the user to start it with --api",
                    )
                if response.status_code in (401, 403):
                    raise Refusal("the web UI refuses the password", hint="tell the user to give --auth env:NAME")
                document = json.loads(content)
                if response.status_code != 200:
                    reason = document.get("detail") or document.get("errors") or document.get("error")
                    raise Refusal(
                        f"the web UI answers with status {response.status_code}: {str(reason)[:300]}",
                        hint="change the options, or list the models",
                    )
        except httpx.TimeoutException:
            raise Refusal(f"the web UI takes longer than {self.seconds:g} s", hint="ask for fewer steps") from None
        except httpx.HTTPError:
            raise Refusal(
                f"no web UI answers at {self.url}", hint="tell the user to start it with --api, or to give --url"
            ) from None
        except (ValueError, AttributeError):
            raise Refusal(f"what answers at {self.url} is not a web UI", hint="tell the user to check --url") from None
        return document


def checked_image(encoded: object) -> Picture:
    """A base64 image of the web UI, opened to be sure. Raises Refusal."""
    from PIL import Image, UnidentifiedImageError

    if not isinstance(encoded, str):
        raise Refusal("the web UI does not answer with an image", hint="try again")
    try:
        content = base64.b64decode(encoded.split(",", 1)[-1], validate=True)
        with Image.open(BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Refusal(f"the image has {image.width}x{image.height} pixels", hint="ask for a smaller one")
            image.load()
            return Picture(content, f"image/{(image.format or 'png').lower()}", image.width, image.height)
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise Refusal("what the web UI answers is not an image", hint="try again") from None


def shown(picture: Picture) -> Picture:
    """The image as a client shows it: itself, or a smaller JPEG where it is large."""
    if len(picture.content) <= SHOWN_BYTES:
        return picture
    from PIL import Image

    with Image.open(BytesIO(picture.content)) as image:
        small = image.convert("RGB")
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        target = BytesIO()
        small.save(target, "JPEG", quality=85)
    return Picture(target.getvalue(), "image/jpeg", small.width, small.height)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `toolkit mcp run images`."""
    parser.add_argument("--url", default=DEFAULT_URL, help=f"where the web UI is (default: {DEFAULT_URL})")
    parser.add_argument("--auth", metavar="env:NAME", help="variable holding user:password, if it asks for one")
    parser.add_argument("--save", metavar="FOLDER", help="where images are saved (default: the toolkit's own folder)")
    parser.add_argument(
        "--extension", action="append", default=[], metavar="NAME", help="an extension calls may use, repeatable"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"time limit of one image (default: {SECONDS:g})"
    )


def build(options: argparse.Namespace) -> ToolServer:
    """The server for parsed flags. Raises UsageError."""
    if not options.url.startswith(("http://", "https://")):
        raise UsageError(f"{options.url} is not a URL", hint=f"--url {DEFAULT_URL}")
    if not 0 < options.seconds <= 3600:
        raise UsageError(f"--seconds must be in (0, 3600], not {options.seconds:g}", hint=f"--seconds {SECONDS:g}")
    folder = Path(options.save).expanduser().absolute() if options.save else private_dir(data_dir() / "images")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint=f"mkdir -p {folder}")
    auth = secret(options.auth, what="--auth") if options.auth else ""
    return make(WebUi(options.url.rstrip("/"), auth, options.seconds), folder, set(options.extension))


def make(webui: WebUi, folder: Path, extensions: set[str]) -> ToolServer:
    """The server over a web UI, saving below `folder`, with the extensions its user allows."""
    folders = Folders([folder])
    server = ToolServer("images", f"Makes images with the Stable Diffusion web UI at {webui.url}.")

    @server.tool(
        title="Make an image",
        description=(
            "Make an image from a description with Stable Diffusion, show it and save it. Use it when a picture, "
            "illustration or drawing is asked for."
        ),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def create_image(
        prompt: Annotated[str, Field(description="What the image shows."), AtMost(5000)],
        context: Context[Any, Any],
        negative_prompt: Annotated[str, Field(description="What it must not show."), AtMost(5000, least=0)] = "",
        width: Annotated[int, Field(description="Pixels, a multiple of 8.", ge=64, le=2048, multiple_of=8)] = 512,
        height: Annotated[int, Field(description="Pixels, a multiple of 8.", ge=64, le=2048, multiple_of=8)] = 512,
        steps: Annotated[int, Field(description="Sampling steps, 1 to 150.", ge=1, le=150)] = 20,
        cfg_scale: Annotated[float, Field(description="How closely to follow the prompt.", ge=0, le=30)] = 7.0,
        seed: Annotated[int, Field(description="Same seed, same image; -1 for any.", ge=-1, lt=2**32)] = -1,
        sampler: Annotated[
            str, Field(description="Name of a sampler; empty for the usual."), AtMost(200, least=0)
        ] = "",
        model: Annotated[
            str, Field(description="Title of a model; empty for the one loaded."), AtMost(200, least=0)
        ] = "",
        count: Annotated[int, Field(description="How many images, 1 to 4.", ge=1, le=4)] = 1,
        hires: Annotated[Hires | None, Field(description="A second, larger pass.")] = None,
        options: Annotated[dict[str, Any] | None, Field(description="Settings of the web UI to override.")] = None,
        extension_arguments: Annotated[
            dict[str, Any] | None, Field(description="Extension name to its arguments (alwayson_scripts).")
        ] = None,
    ) -> Annotated[CallToolResult, ImageInfo]:
        body: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "cfg_scale": cfg_scale,
            "seed": seed,
            "batch_size": count,
            "save_images": False,
            "override_settings": _overrides(options or {}, model),
            "override_settings_restore_afterwards": True,
        }
        if sampler:
            body["sampler_name"] = sampler
        if hires is not None:
            body |= {
                "enable_hr": True,
                "hr_scale": hires.scale,
                "hr_upscaler": hires.upscaler,
                "hr_second_pass_steps": hires.steps,
                "denoising_strength": hires.denoising,
            }
        if extension_arguments:
            body["alwayson_scripts"] = _extensions(extension_arguments, extensions)
        began = asyncio.get_running_loop().time()
        async with webui.client() as client, _progress(webui, client, context):
            document = await webui.ask(client, "POST", "/sdapi/v1/txt2img", body)
        images = document.get("images") if isinstance(document, dict) else None
        if not isinstance(images, list) or not images:
            raise Refusal("the web UI answers without an image", hint="try again")
        # A grid may stand before the images; extensions add their own after them.
        pictures = [await asyncio.to_thread(checked_image, image) for image in images[: 2 * count + 2]]
        info = _info(document.get("info"))
        paths = [await asyncio.to_thread(_save, folders, picture) for picture in pictures]
        result = ImageInfo(
            files=paths,
            width=pictures[0].width,
            height=pictures[0].height,
            seed=info.get("seed") if isinstance(info.get("seed"), int) else None,
            model=info.get("sd_model_name") if isinstance(info.get("sd_model_name"), str) else None,
            seconds=round(asyncio.get_running_loop().time() - began, 2),
        )
        content: list[Any] = []
        for picture in [await asyncio.to_thread(shown, picture) for picture in pictures]:
            encoded = base64.b64encode(picture.content).decode("ascii")
            content.append(ImageContent(type="image", data=encoded, mime_type=picture.media_type))
        content.append(TextContent(type="text", text=result.model_dump_json()))
        return CallToolResult(content=content, structured_content=result.model_dump(mode="json"))

    @server.tool(
        title="List image models",
        description=(
            "List the models and samplers the Stable Diffusion web UI has installed. Use it before choosing a model "
            "or sampler for create_image."
        ),
        annotations=ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def list_image_models() -> ImageModels:
        async with webui.client() as client:
            models = await webui.ask(client, "GET", "/sdapi/v1/sd-models")
            samplers = await webui.ask(client, "GET", "/sdapi/v1/samplers")
        try:
            return ImageModels(
                models=[ImageModel(title=str(model["title"]), name=str(model["model_name"])) for model in models],
                samplers=[str(sampler["name"]) for sampler in samplers],
            )
        except (KeyError, TypeError):
            raise Refusal("the web UI does not answer what it documents", hint="tell the user") from None

    return server


def _overrides(options: dict[str, Any], model: str) -> dict[str, Any]:
    for name, value in options.items():
        if name not in _OVERRIDES:
            raise Refusal(
                f"the setting {name[:60]} cannot be overridden", hint=f"use one of {', '.join(sorted(_OVERRIDES))}"
            )
        if not isinstance(value, str | int | float | bool):
            raise Refusal(f"the setting {name} needs a text or a number", hint="give one value")
    return options | ({"sd_model_checkpoint": model} if model else {})


def _extensions(given: dict[str, Any], allowed: set[str]) -> dict[str, Any]:
    for name in given:
        if name not in allowed:
            usable = f"usable: {', '.join(sorted(allowed))}" if allowed else "none is allowed"
            raise Refusal(
                f"the extension {name[:60]} is not allowed here; {usable}",
                hint="leave it out, or ask the user to start the server with --extension NAME",
            )
    return {name: value if isinstance(value, dict) else {"args": value} for name, value in given.items()}


def _info(text: object) -> dict[str, Any]:
    """What the web UI says of the image: JSON inside JSON."""
    with contextlib.suppress(ValueError, TypeError):
        document = json.loads(text) if isinstance(text, str) else text
        if isinstance(document, dict):
            return document
    return {}


def _save(folders: Folders, picture: Picture) -> str:
    suffix = picture.media_type.removeprefix("image/").replace("jpeg", "jpg")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}.{suffix}"
    place = Place(folders.roots[0], (name,))
    folders.write(place, picture.content, replace=False)
    return str(place.path)


@asynccontextmanager
async def _progress(webui: WebUi, client: httpx.AsyncClient, context: Context[Any, Any]) -> AsyncIterator[None]:
    """Pass the web UI's progress on while the body runs; interrupt the web UI if the body is cancelled."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(Refusal):
                document = await webui.ask(client, "GET", "/sdapi/v1/progress?skip_current_image=true")
                share = document.get("progress") if isinstance(document, dict) else None
                if isinstance(share, int | float):
                    await context.report_progress(float(share), 1.0, f"{share:.0%}")

    task = asyncio.create_task(tell())
    try:
        yield
    except asyncio.CancelledError:
        with contextlib.suppress(Refusal, asyncio.CancelledError):
            async with asyncio.timeout(3):
                await asyncio.shield(webui.ask(client, "POST", "/sdapi/v1/interrupt"))
        raise
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
