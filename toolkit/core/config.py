"""Read a settings file into a typed model: file, then environment, then flags. Knows no particular file.

Unknown keys are refused by their path with the nearest known one; bad values are refused, never clamped.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.core.errors import ToolkitError, UsageError

M = TypeVar("M", bound=BaseModel)

_SECRET_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


class Strict(BaseModel):
    """Base of every settings model: frozen, and no key passes unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def read_yaml(path: Path) -> Any:
    """The document in `path`; an empty file is an empty mapping."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint=f"ls {path.parent}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint=f"file {path}") from None
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {path}") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise UsageError(f"{path} is not valid YAML{where}: {problem}", hint=f"edit {path}") from None
    return {} if document is None else document


def load(model: type[M], path: Path | None, *, prefix: str = "", flags: Mapping[str, Any] | None = None) -> M:
    """Defaults, then `path`, then environment `PREFIX_SECTION_KEY`, then `flags` (dotted path -> value)."""
    document = read_yaml(path) if path else {}
    source = str(path) if path else "the settings"
    if not isinstance(document, dict):
        raise UsageError(f"{source} must be a mapping of settings, not {_kind(document)}", hint=f"edit {source}")
    for dotted, value in _from_environment(model, prefix):
        _put(document, dotted, value)
    for dotted, value in (flags or {}).items():
        if value is not None:
            _put(document, dotted, value)
    return validate(model, document, source)


def validate(model: type[M], document: object, source: str) -> M:
    """`document` as a `model`; the first fault is reported by its path in `source`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = _path(fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _known_keys(model, fault["loc"][:-1])
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.5)
            meant = f": did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {where}{meant}", hint=f"edit {source}") from None
        problem = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"{source}: {where or 'the document'}: {problem}", hint=f"edit {source}") from None


def secret(reference: str, *, what: str) -> str:
    """The value behind `env:NAME`. A literal value is refused, so that no secret lives in a file."""
    match = _SECRET_REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"{what} must be a reference like env:MY_KEY, not the secret itself", hint="export MY_KEY=...")
    value = os.environ.get(match[1], "")
    if not value:
        raise UsageError(f"{what} refers to {match[1]}, which is not set", hint=f"export {match[1]}=...")
    return value


def _path(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue
        current = next(iter(_models_in(fields[part].annotation)), None)
    return sorted(getattr(current, "model_fields", {}))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]


def _from_environment(model: type[BaseModel], prefix: str) -> list[tuple[str, str]]:
    if not prefix:
        return []
    found = []
    for section, field in model.model_fields.items():
        for inner in _models_in(field.annotation)[:1]:
            for key in inner.model_fields:
                value = os.environ.get(f"{prefix}_{section}_{key}".upper())
                if value is not None:
                    found.append((f"{section}.{key}", value))
    return found


def _put(document: dict[str, Any], dotted: str, value: object) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = document.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # the fault in the file is reported by validation
        document = inner
    document[key] = value


def _kind(value: object) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number"}.get(type(value), type(value).__name__)
