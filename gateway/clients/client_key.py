"""A client's virtual key and the file that holds it, which only the user can read. Configs refer to the file."""

from pathlib import Path
from typing import Any, NamedTuple

from gateway.keys.store import KeyStore, Refused
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import data_dir, private_dir, write_text


class ClientKey(NamedTuple):
    """Where the key is, and whether it was made just now."""

    path: Path
    made: bool


def key_path(name: str) -> Path:
    """The file that holds the key named `name`."""
    return data_dir() / "clients" / "keys" / f"{name}.key"


def ensure(store: KeyStore, name: str, **limits: Any) -> ClientKey:
    """The key of that name, the one whose secret lies here or a new one, with these limits (`KeyStore.create`'s).

    A limit that is not named stays as it is.

    Raises ToolkitError if a key of that name can no longer be used, or its secret lies elsewhere.
    """
    path = key_path(name)
    if path.exists():
        found = store.authenticate(path.read_text(encoding="utf-8").strip())
        if not isinstance(found, Refused):
            if limits:
                store.update(name, **limits)
            return ClientKey(path, made=False)
        if found.key is not None:
            raise ToolkitError(
                f"the key {name} cannot be used: it is {found.reason.value.replace('_', ' ')}",
                hint=f"toolkit keys show {name}",
            )
    if any(key.name == name for key in store.all()):
        raise ToolkitError(
            f"there is a key named {name}, but its secret is not on this machine",
            hint=f"toolkit keys delete {name}, and the same again",
        )
    made = store.create(name, **limits)
    for folder in (path.parent.parent, path.parent):
        private_dir(folder)
    write_text(path, f"{made.secret}\n", mode=0o600)
    return ClientKey(path, made=True)


def drop(store: KeyStore, name: str) -> None:
    """Delete the key of that name and its file; what it spent stays in the reports."""
    key_path(name).unlink(missing_ok=True)
    if any(key.name == name for key in store.all()):
        store.delete(name)
