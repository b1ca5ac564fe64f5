"""What a client is pointed at: an address, a key kept in a file, models with the context they really hold.

Knows no client and no running gateway.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from toolkit.core.errors import ToolkitError

LARGEST_ANSWER = 16_384  # tokens; more is seldom written at once, and is taken from the room for the conversation


@dataclass(frozen=True)
class Model:
    """A model as a client is told of it. `context` is what one request may really use, `trained` the longest the model
    was trained with (None: not known)."""

    name: str
    context: int | None = None
    max_output: int | None = None
    local: bool = True
    upstream: str = ""
    trained: int | None = None

    @property
    def answer(self) -> int:
        """Tokens to keep for one answer: what the model allows, at most an eighth of the context."""
        limits = [LARGEST_ANSWER, self.max_output, None if self.context is None else self.context // 8]
        return min(limit for limit in limits if limit is not None)


@dataclass(frozen=True)
class Target:
    """Where a client sends its requests. `url` ends without `/v1`; `key_file` holds the key (None: none is asked)."""

    url: str
    models: tuple[Model, ...]
    key_file: Path | None = None

    def model(self, name: str | None) -> Model:
        """The model of that name; without a name the only one. Raises ToolkitError."""
        names = [model.name for model in self.models]
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in names:
            wrong = "there are several models, name one" if name is None else f"no model named {name} is served"
            listed = ", ".join(names) or "none"
            raise ToolkitError(f"{wrong}; served are {listed}", hint=f"--model {names[0]}" if names else None)
        return self.models[names.index(name)]


class Roles(NamedTuple):
    """Which model does what: the work, what is small and often, and Claude Code's three names."""

    main: Model
    small: Model
    opus: Model
    sonnet: Model
    haiku: Model


def roles(target: Target, main: str | None, small: str | None = None, **named: str | None) -> Roles:
    """The models of these names; what is not named is the main one. Raises ToolkitError for an unknown name."""
    first = target.model(main)
    second = target.model(small) if small else first
    chosen: Mapping[str, Model] = {
        role: target.model(name) if (name := named.get(role)) else default
        for role, default in (("opus", first), ("sonnet", first), ("haiku", second))
    }
    return Roles(first, second, chosen["opus"], chosen["sonnet"], chosen["haiku"])


def refuse_if_too_small(client: str, model: Model, prompt: int, needed: int, lean: int | None) -> None:
    """Raise ToolkitError if `model` holds less than `needed` tokens. `prompt` is what the client sends of its own,
    `lean` what it needs with few tools (None: that is what was asked for)."""
    if model.context is None or model.context >= needed:
        return
    way = f"TOOLKIT_LLAMACPP_CONTEXT={needed} toolkit gateway up  # after `toolkit gateway down`"
    if model.upstream != "llamacpp":
        way = f"set the context of {model.name} to {needed} where it is served, then toolkit gateway up"
    if model.trained is not None and model.trained < needed:
        way = f"toolkit models list  # {model.name} was trained with {model.trained:,}: it takes another model"
    if lean is not None and model.context >= lean:
        way = f"add --lean (few tools, {lean:,} tokens are enough), or {way}"
    raise ToolkitError(
        f"{model.name} holds {model.context:,} tokens; {client} sends about {prompt:,} before your first word "
        f"and needs {needed:,}",
        hint=way,
    )


def print_key_command(key_file: Path) -> str:
    """A shell command that prints the key."""
    if sys.platform == "win32":
        return f'cmd /c type "{key_file}"'
    return f"cat {shlex.quote(str(key_file))}"
