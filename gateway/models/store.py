"""The models kept on this machine: a folder each, with its files and a receipt that says where they came from.

A folder without a receipt is no model: the receipt is written last. Knows nothing of the network.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.models import gguf
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import data_dir, write_text

RECEIPT = "receipt.json"
INCOMING = ".incoming"


@dataclass(frozen=True)
class StoredFile:
    """One file of a model: its name in the folder, bytes, SHA-256, and `model`, `part` or `projector`."""

    file: str
    size: int
    sha256: str
    role: str


@dataclass(frozen=True)
class Receipt:
    """What was pulled, from where, when. `repository` and `revision` are empty for a file of the user's own."""

    name: str
    files: tuple[StoredFile, ...]
    quant: str
    licence: str
    repository: str = ""
    revision: str = ""
    source: str = ""
    pulled: str = ""
    verified_by_source: bool = True

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> Path:
        return folder_of(self.name)

    @property
    def path(self) -> Path:
        """The file llama.cpp opens: the model, or its first part."""
        return self.folder / next(file.file for file in self.files if file.role == "model")

    @property
    def projector(self) -> Path | None:
        return next((self.folder / file.file for file in self.files if file.role == "projector"), None)

    @property
    def weights(self) -> int:
        """Bytes of the model without its projector."""
        return sum(file.size for file in self.files if file.role != "projector")


def models_dir() -> Path:
    """Where pulled models live."""
    return data_dir() / "models"


def incoming_dir() -> Path:
    """Where parts of files wait to become whole; on the same disk as the store."""
    return models_dir() / INCOMING


def folder_of(name: str) -> Path:
    """The folder of a model. Whatever the name, it lies directly in the store."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-")
    if not safe:
        raise ToolkitError(f"{name!r} cannot name a model", hint="toolkit models list")
    return models_dir() / safe


def receipts() -> list[Receipt]:
    """Every model of the store, by name. A receipt that cannot be read is left out (see `damaged`)."""
    return sorted((receipt for _, receipt in _read_all() if receipt is not None), key=lambda one: one.name)


def damaged() -> list[Path]:
    """Folders of the store whose receipt is missing or unreadable."""
    return [folder for folder, receipt in _read_all() if receipt is None]


def as_path(text: str) -> Path | None:
    """The file that `text` names if it is written as a path, or is one; None for the name of a model."""
    path = Path(text).expanduser()
    written = text.lower().endswith(".gguf") or text.startswith((".", "/", "~", "\\")) or path.is_absolute()
    return path.absolute() if written or path.is_file() else None


def find(name: str) -> Receipt:
    """The model of that name, or the only one whose name begins with it (`gemma-4-e4b` for `gemma-4-e4b:Q4_K_M`).

    Raises UsageError that names the near ones.
    """
    found = lookup(name)
    if found is None:
        from gateway.models.catalogue import unknown  # only now: `models serve` need not wait for it

        raise unknown(name, [receipt.name for receipt in receipts()])
    return found


def lookup(name: str) -> Receipt | None:
    """As `find`, but None if there is no such model."""
    there = receipts()
    exact = [receipt for receipt in there if receipt.name.lower() == name.lower()]
    begun = [receipt for receipt in there if receipt.name.lower().startswith(f"{name.lower()}:")]
    if exact:
        return exact[0]
    if len(begun) > 1:
        raise ToolkitError(
            f"{name} could be {' or '.join(receipt.name for receipt in begun)}",
            hint=f"toolkit models show {begun[0].name}",
        )
    return begun[0] if begun else None


def record(receipt: Receipt) -> None:
    """Write the receipt; with that the model is there."""
    write_text(receipt.folder / RECEIPT, json.dumps(asdict(receipt), indent=2) + "\n")


def remove(receipt: Receipt) -> int:
    """Delete a model, its receipt first, and return the bytes that were freed."""
    (receipt.folder / RECEIPT).unlink(missing_ok=True)
    shutil.rmtree(receipt.folder, ignore_errors=False)
    return receipt.size


def verify(receipt: Receipt, advance: Callable[[float], None] = lambda done: None) -> list[str]:
    """Hold every file against the receipt; one sentence for each fault, none if all is well."""
    faults = []
    for file in receipt.files:
        path = receipt.folder / file.file
        if not path.is_file():
            faults.append(f"{path} is gone")
        elif path.stat().st_size != file.size:
            faults.append(f"{path} has {path.stat().st_size:,} bytes, and had {file.size:,} when it was pulled")
        elif digest(path, advance) != file.sha256:
            faults.append(f"{path} has other contents than when it was pulled")
        elif file.role != "projector":
            try:
                gguf.read_file(path)
            except gguf.NotGguf as error:
                faults.append(error.message)
    return faults


def digest(path: Path, advance: Callable[[float], None] = lambda done: None) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(2**20):
            found.update(piece)
            advance(len(piece))
    return found.hexdigest()


def now() -> str:
    """This moment, as receipts write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_all() -> Iterator[tuple[Path, Receipt | None]]:
    for folder in sorted(models_dir().glob("*/")) if models_dir().is_dir() else ():
        if folder.name.startswith("."):
            continue
        yield folder, _read(folder)


def _read(folder: Path) -> Receipt | None:
    try:
        document = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        receipt = Receipt(**document | {"files": tuple(StoredFile(**file) for file in document["files"])})
        plain = all(file.file == Path(file.file).name and file.file not in ("", ".", "..") for file in receipt.files)
        whole = any(file.role == "model" for file in receipt.files)
        return receipt if plain and whole and receipt.folder == folder else None
    except (OSError, ValueError, KeyError, TypeError, ToolkitError):
        return None
