"""One client's config file on disk: read as it is, changed with a backup and a journal, and changed back.

What is changed is recorded before the file is written, so that whatever was written can be taken back. Knows JSON
with comments; nothing of any client.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Any, NamedTuple

from gateway.clients import edits, jsonc
from gateway.clients.edits import Edit, Wish
from gateway.clients.jsonc import JsoncError
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import data_dir, private_dir, write_bytes, write_text

Wishes = Callable[[str | None], Sequence[Wish]]


@dataclass(frozen=True)
class Entry:
    """One set of edits in one file, as the journal holds it. `what` names it; `about` is for people and for later."""

    client: str
    what: str
    path: str
    when: str
    existed: bool
    backup: str | None
    after_digest: str
    edits: tuple[Edit, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


class Change(NamedTuple):
    """A planned change: `before` and `after` are the whole file (None: no file). Nothing has happened yet."""

    path: Path
    before: str | None
    after: str | None
    entry: Entry | None
    base: str | None
    left: tuple[str, ...] = ()

    def diff(self) -> str:
        """What changes, as `diff -u` shows it; empty if nothing does."""
        old, new = ((text or "").splitlines(keepends=True) for text in (self.before, self.after))
        source, target = ("/dev/null" if text is None else str(self.path) for text in (self.before, self.after))
        lines = unified_diff(old, new, source, target)
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def planned(client: str, what: str, path: Path, wishes: Wishes, about: Mapping[str, Any]) -> Change:
    """The change that fulfils `wishes` in `path`, in place of what the same client and `what` had there before.

    `wishes` is given the file's text without that (None: no file).

    Raises ToolkitError if the file cannot be read, parsed or written.
    """
    before = read(path)
    known = find(client, what, path)
    base = _without(before, known, path).after if known else before
    with _naming(path):
        after, made = edits.apply(base if base and base.strip() else "{}\n", wishes(base))
    entry = Entry(
        client=client,
        what=what,
        path=str(path),
        when=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        existed=base is not None,
        backup=None,
        after_digest=_digest(after),
        edits=made,
        about=dict(about),
        folders=known.folders if known else tuple(str(folder) for folder in path.parents if not folder.exists()),
    )
    return Change(path, before, after, entry, base)


def reverted(entry: Entry) -> Change:
    """The change that takes `entry` back, and what it leaves because it was changed by hand since."""
    path = Path(entry.path)
    return _without(read(path), entry, path)


def commit(change: Change) -> Path | None:
    """Make a planned change: backup, journal, file. Returns the backup's path, if there was something to keep."""
    target = change.path.resolve()
    backup = _backup(change)
    entry = change.entry
    if entry is not None:
        _record(
            [known for known in entries() if not _same_place(known, entry)]
            + [Entry(**{**_fields(entry), "backup": str(backup) if backup else None})]
        )
    if change.after is None:
        target.unlink(missing_ok=True)
    elif change.after != change.before:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        write_bytes(target, change.after.encode("utf-8"), mode=mode)
    return backup


def forget(entry: Entry) -> None:
    """Drop `entry` from the journal, and the folders that were made for its file if they are empty."""
    _record([known for known in entries() if not _same_place(known, entry)])
    for folder in map(Path, entry.folders):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def entries() -> list[Entry]:
    """All that is recorded, oldest first. Raises ToolkitError if the journal cannot be read."""
    try:
        found = json.loads(_journal().read_text(encoding="utf-8"))
        return [
            Entry(**{**raw, "edits": tuple(_edit(edit) for edit in raw["edits"]), "folders": tuple(raw["folders"])})
            for raw in found
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ToolkitError(
            f"the record of what was connected, {_journal()}, cannot be read: {error}",
            hint=f"the files as they were lie in {_folder() / 'backups'}",
        ) from None


def find(client: str, what: str, path: Path) -> Entry | None:
    """What is recorded for this client, purpose and file."""
    wanted = (client, what, str(path))
    return next((entry for entry in entries() if (entry.client, entry.what, entry.path) == wanted), None)


def still_holds(entry: Entry) -> bool:
    """Whether all that `entry` wrote still stands in its file."""
    try:
        text = read(Path(entry.path))
        return text is not None and edits.holds(text, entry.edits)
    except ToolkitError:
        return False


def read(path: Path) -> str | None:
    """The file as it is, byte for byte; None if there is none. Raises ToolkitError if it is no file of ours to edit."""
    target = path.resolve()
    try:
        content = target.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read: {error.strerror}", hint=f"ls -ld {path}") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ToolkitError(f"{path} is not UTF-8 text; it was left as it is", hint=f"file {path}") from None


def refuse_if_read_only(path: Path) -> None:
    """Raises ToolkitError if `path` was made read-only: someone means it to stay as it is."""
    target = path.resolve()
    if target.exists() and not target.stat().st_mode & 0o222:
        raise ToolkitError(f"{path} is read-only; it was left as it is", hint=f"chmod u+w {target}")


def _without(current: str | None, entry: Entry, path: Path) -> Change:
    """The change from `current` to what it would be without `entry`."""
    if current is None:
        return Change(path, None, None, None, None)
    if _digest(current) == entry.after_digest and (entry.backup or not entry.existed):
        original = Path(entry.backup).read_bytes().decode("utf-8") if entry.backup else None
        return Change(path, current, original, None, original)
    with _naming(path):
        text, left = edits.undo(current, entry.edits)
        # The file was made for us, and nothing else came into it.
        gone = not entry.existed and not left and jsonc.parse(text).value == {} and text.strip(" \t\r\n{}") == ""
    return Change(path, current, None if gone else text, None, None, left)


def _backup(change: Change) -> Path | None:
    """Keep the file as it is without us, dated, where nobody commits it."""
    if change.entry is None or change.base is None:
        return None
    private_dir(_folder())
    folder = private_dir(_folder() / "backups")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        name = f"{stamp}{f'-{number}' if number else ''}-{change.entry.client}-{change.path.name}"
        if not (folder / name).exists():
            break
        number += 1
    write_bytes(folder / name, change.base.encode("utf-8"), mode=0o600)
    return folder / name


def _record(known: Sequence[Entry]) -> None:
    private_dir(_folder())
    write_text(_journal(), json.dumps([asdict(entry) for entry in known], indent=2, ensure_ascii=False), mode=0o600)


def _edit(raw: Mapping[str, Any]) -> Edit:
    return Edit(tuple(raw["path"]), raw["before"], raw["after"])


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def _same_place(one: Entry, other: Entry) -> bool:
    return (one.client, one.what, one.path) == (other.client, other.what, other.path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _folder() -> Path:
    return data_dir() / "clients"


def _journal() -> Path:
    return _folder() / "journal.json"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong in it."""
    try:
        yield
    except JsoncError as error:
        raise ToolkitError(
            f"{path} cannot be edited: {error.message}; it was left as it is", hint=f"edit {path}"
        ) from None
