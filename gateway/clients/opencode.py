"""OpenCode: where its config is, what must stand in it for a gateway's models, and how it is launched so.

Pure but for looking which config files exist. Figures and names were seen with version 1.18.33.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.clients import jsonc
from gateway.clients.edits import Include, Put, Wish
from gateway.clients.target import Model, Roles, Target, refuse_if_too_small

NAME = "opencode"
PROGRAM = "opencode"
PACKAGE = "opencode-ai"
PROVIDER = "toolkit"
SCHEMA = "https://opencode.ai/config.json"
PROMPT = 6_900  # tokens it sends before the first word, with all tools
LEAN_PROMPT = 4_700  # without OFF_WHEN_LEAN
NEEDED = 16_384
LEAN_NEEDED = 8_192
OFF_WHEN_LEAN = ("glob", "grep", "skill", "task", "todowrite", "webfetch")


def settings_path(scope: str, project: Path, environment: Mapping[str, str], home: Path) -> Path:
    """The file to edit: the one named by OPENCODE_CONFIG, else the project's or the user's.

    Of `opencode.jsonc` and `opencode.json` the first that exists: OpenCode reads both, and the first one wins.
    """
    if scope == "project":
        folder = project
    elif named := environment.get("OPENCODE_CONFIG"):
        return Path(named).expanduser()
    else:
        own = environment.get("XDG_CONFIG_HOME")
        folder = (Path(own).expanduser() if own else home / ".config") / "opencode"
    commented = folder / "opencode.jsonc"
    return commented if commented.exists() else folder / "opencode.json"


def check(roles: Roles, *, lean: bool) -> None:
    """Raise ToolkitError if a model's context is too small for what OpenCode sends."""
    for model in dict.fromkeys((roles.main, roles.small)):
        if lean:
            refuse_if_too_small("OpenCode", model, LEAN_PROMPT, LEAN_NEEDED, None)
        else:
            refuse_if_too_small("OpenCode", model, PROMPT, NEEDED, LEAN_NEEDED)


def provider(target: Target) -> dict[str, Any]:
    """The provider's block: every model with what it really holds, the key as a reference to its file."""
    options = {"baseURL": f"{target.url}/v1", "apiKey": f"{{file:{target.key_file}}}" if target.key_file else "none"}
    return {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Toolkit gateway",
        "options": options,
        "models": {model.name: _model(model) for model in target.models},
    }


def wishes(text: str | None, target: Target, roles: Roles, *, lean: bool) -> list[Wish]:
    """What is to stand in the config file, which holds `text` now (None: there is none)."""
    wanted: list[Wish] = [] if text and text.strip() else [Put(("$schema",), SCHEMA)]
    wanted += [
        Put(("model",), f"{PROVIDER}/{roles.main.name}"),
        Put(("small_model",), f"{PROVIDER}/{roles.small.name}"),
        Put(("provider", PROVIDER), provider(target)),
    ]
    if text and text.strip() and jsonc.parse(text).find(("enabled_providers",)) is not None:
        wanted.append(Include(("enabled_providers",), (PROVIDER,)))  # a list of those that may be used: be on it
    wanted += [Put(("tools", name), False) for name in OFF_WHEN_LEAN if lean]
    return wanted


def launch(
    program: str, target: Target, roles: Roles, arguments: Sequence[str], *, lean: bool
) -> tuple[list[str], dict[str, str]]:
    """The command for one run that touches no file, and the variables to add for it."""
    config: dict[str, Any] = {
        "$schema": SCHEMA,
        "model": f"{PROVIDER}/{roles.main.name}",
        "small_model": f"{PROVIDER}/{roles.small.name}",
        "enabled_providers": [PROVIDER],
        "provider": {PROVIDER: provider(target)},
    }
    if lean:
        config["tools"] = dict.fromkeys(OFF_WHEN_LEAN, False)
    return [program, *arguments], {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}


def _model(model: Model) -> dict[str, Any]:
    described: dict[str, Any] = {"name": model.name, "tool_call": True}
    if model.context is not None:
        described["limit"] = {"context": model.context, "output": model.answer}
    return described
