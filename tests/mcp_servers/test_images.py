import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from PIL import Image

from mcp_servers.images import WebUi, make
from tests.mcp_servers.stand_ins import Answer, Asked, StandIn, serving


def png(width: int = 64, height: int = 64, *, noisy: bool = False) -> bytes:
    image = (
        Image.effect_noise((width, height), 90).convert("RGB") if noisy else Image.new("RGB", (width, height), "red")
    )
    target = BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def webui(asked: Asked) -> Answer:
    """A stand-in for AUTOMATIC1111's web UI started with --api
    (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API)."""
    if asked.path == "/sdapi/v1/txt2img":
        body = json.loads(asked.body)
        scale = body.get("hr_scale", 1) if body.get("enable_hr") else 1
        size = int(body["width"] * scale), int(body["height"] * scale)
        info = {"seed": 1234 if body["seed"] == -1 else body["seed"], "sd_model_name": "v1-5", "all_seeds": [1234]}
        images = [base64.b64encode(png(*size, noisy=size[0] > 600)).decode() for _ in range(body["batch_size"])]
        return Answer({"images": images, "parameters": body, "info": json.dumps(info)})
    if asked.path == "/sdapi/v1/sd-models":
        model = {"title": "v1-5.safetensors [6ce0161689]", "model_name": "v1-5", "hash": "6ce0161689", "config": None}
        return Answer([model])
    if asked.path == "/sdapi/v1/samplers":
        return Answer(
            [{"name": "Euler a", "aliases": ["k_euler_a"], "options": {}}, {"name": "DPM++ 2M", "aliases": []}]
        )
    if asked.path == "/sdapi/v1/progress":
        return Answer({"progress": 0.4, "eta_relative": 2.0, "state": {"job_count": 1}, "current_image": None})
    return Answer({"detail": "Not Found"}, status=404)


@pytest.fixture
def ui() -> Iterator[StandIn]:
    with serving(webui) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved = tmp_path / "saved"
    saved.mkdir()
    return saved


async def create(ui: WebUi, folder: Path, extensions: set[str] | None = None, **arguments: Any) -> Any:
    async with Client(make(ui, folder, extensions or set())) as client:
        return await client.call_tool("create_image", {"prompt": "a red square"} | arguments)


async def test_an_image_is_shown_and_saved_whole(ui: StandIn, folder: Path) -> None:
    answer = await create(WebUi(ui.url), folder, width=128, height=64, seed=7)
    picture, text = answer.content
    saved = Path(answer.structured_content["files"][0])
    assert (picture.type, picture.mime_type) == ("image", "image/png")
    assert base64.b64decode(picture.data) == saved.read_bytes() == png(128, 64)
    assert saved.parent == folder
    assert saved.suffix == ".png"
    assert json.loads(text.text) == answer.structured_content
    assert (answer.structured_content["seed"], answer.structured_content["model"]) == (7, "v1-5")


async def test_what_is_asked_reaches_the_web_ui_as_it_documents(ui: StandIn, folder: Path) -> None:
    await create(
        WebUi(ui.url), folder, {"controlnet"}, negative_prompt="blue", steps=5, cfg_scale=3.5, sampler="Euler a",
        model="v1-5.safetensors [6ce0161689]", count=2, hires={"scale": 1.5, "upscaler": "Latent", "steps": 3},
        options={"CLIP_stop_at_last_layers": 2}, extension_arguments={"controlnet": [{"enabled": True}]},
    )  # fmt: skip
    body = json.loads(next(asked.body for asked in ui.asked if asked.path == "/sdapi/v1/txt2img"))
    assert body == {
        "prompt": "a red square",
        "negative_prompt": "blue",
        "width": 512,
        "height": 512,
        "steps": 5,
        "cfg_scale": 3.5,
        "seed": -1,
        "batch_size": 2,
        "save_images": False,
        "sampler_name": "Euler a",
        "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "v1-5.safetensors [6ce0161689]"},
        "override_settings_restore_afterwards": True,
        "enable_hr": True,
        "hr_scale": 1.5,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 3,
        "denoising_strength": 0.7,
        "alwayson_scripts": {"controlnet": {"args": [{"enabled": True}]}},
    }
    assert len(list(folder.iterdir())) == 2


async def test_a_large_image_is_shown_smaller_and_saved_as_it_is(ui: StandIn, folder: Path) -> None:
    answer = await create(WebUi(ui.url), folder, width=1280, height=640)
    with Image.open(BytesIO(base64.b64decode(answer.content[0].data))) as small:
        assert (small.format, small.width) == ("JPEG", 1024)
    with Image.open(answer.structured_content["files"][0]) as whole:
        assert (whole.format, whole.size) == ("PNG", (1280, 640))


async def test_models_and_samplers_are_listed(ui: StandIn, folder: Path) -> None:
    async with Client(make(WebUi(ui.url), folder, set())) as client:
        answer = await client.call_tool("list_image_models", {})
    assert answer.structured_content == {
        "models": [{"title": "v1-5.safetensors [6ce0161689]", "name": "v1-5"}],
        "samplers": ["Euler a", "DPM++ 2M"],
    }


async def test_progress_of_the_web_ui_is_passed_on(ui: StandIn, folder: Path) -> None:
    seen: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    def slow(asked: Asked) -> Answer:
        if asked.path == "/sdapi/v1/txt2img":
            while not any(other.path == "/sdapi/v1/progress" for other in ui.asked):
                pass  # until progress has been asked for once, which takes a second
        return webui(asked)

    ui.answer = slow
    async with Client(make(WebUi(ui.url), folder, set())) as client:
        await client.call_tool("create_image", {"prompt": "x"}, progress_callback=note)
    assert seen[:1] in ([(0.4, 1.0)], [])
    assert any(asked.path == "/sdapi/v1/progress" for asked in ui.asked)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer({"detail": "Not Found"}, status=404), "start it with --api"),
        (Answer({"detail": "Invalid credentials"}, status=401), "--auth env:NAME"),
        (Answer({"error": "OutOfMemoryError", "errors": "CUDA out of memory"}, status=500), "CUDA out of memory"),
        (Answer("<html>"), "is not a web UI"),
        (Answer({"images": []}), "without an image"),
        (Answer({"images": ["bm90IGFuIGltYWdl"]}), "not an image"),
        (Answer({"images": ["%%%"]}), "not an image"),
        (Answer({"images": [5]}), "not answer with an image"),
        (Answer([]), "without an image"),
    ],
)
async def test_a_web_ui_that_fails_is_told_and_nothing_is_saved(
    answer: Answer, reason: str, ui: StandIn, folder: Path
) -> None:
    ui.answer = lambda asked: answer
    said = await create(WebUi(ui.url), folder)
    assert said.is_error
    assert reason in said.content[0].text
    assert list(folder.iterdir()) == []


async def test_a_web_ui_that_is_not_there_is_told(folder: Path) -> None:
    with serving(webui) as running:
        url = running.url
    assert "no web UI answers" in (await create(WebUi(url), folder)).content[0].text


async def test_a_password_is_given_to_the_web_ui_and_to_nobody_else(ui: StandIn, folder: Path) -> None:
    answer = await create(WebUi(ui.url, auth="user:pass-word"), folder)
    assert ui.asked[0].headers["authorization"] == "Basic " + base64.b64encode(b"user:pass-word").decode()
    assert "pass-word" not in str(answer)


@pytest.mark.parametrize(
    "arguments",
    [
        {"options": {"outdir_txt2img_samples": "/etc"}},
        {"options": {"samples_save": True}},
        {"options": {"sd_vae": {"a": 1}}},
        {"extension_arguments": {"controlnet": []}},
        {"width": 63},
        {"width": 100_000},
        {"steps": 0},
        {"count": 99},
        {"prompt": ""},
        {"hires": {"scale": 100}},
    ],
)
async def test_what_is_not_allowed_reaches_no_web_ui(arguments: dict[str, Any], ui: StandIn, folder: Path) -> None:
    answer = await create(WebUi(ui.url), folder, **arguments)
    assert answer.is_error
    assert "Error executing" not in answer.content[0].text
    assert not any(asked.path == "/sdapi/v1/txt2img" for asked in ui.asked)
