"""Get a model into the store: plan it (what, how large, does it fit), then fetch, verify and record it.

The plan is shown before anything is fetched. Why the transfer is ours and the rest huggingface_hub's:
docs/design/pull.md.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from gateway.models import fit, gguf, hub, store
from gateway.models.architecture import Architecture, from_header
from gateway.models.catalogue import Catalogue, Entry
from gateway.models.download import Watcher, client, download
from gateway.models.fit import Memory, Room, Verdict
from gateway.models.hub import HubFile, Repository, Selection
from gateway.models.store import Receipt, StoredFile
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.units import format_bytes

USEFUL_CONTEXT = 8192  # a model that cannot hold this much is of little use to an agent: the default of the gateway


@dataclass(frozen=True)
class Plan:
    """What a pull would do. `have` are bytes of it that are here already, whole or in part."""

    name: str
    repository: Repository
    selection: Selection
    licence: str
    architecture: Architecture
    have: int
    changed: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.selection.files)

    @property
    def folder(self) -> Path:
        return store.folder_of(self.name)

    @property
    def projector(self) -> int:
        return self.selection.projector.size if self.selection.projector else 0

    def need(self, context: int) -> Memory:
        """Memory it takes when served with this context."""
        return fit.memory(self.architecture, self.selection.size, context, projector=self.projector)

    @property
    def useful_context(self) -> int:
        return min(USEFUL_CONTEXT, self.architecture.context or USEFUL_CONTEXT)

    def verdict(self, room: Room) -> Verdict:
        return fit.verdict(self.need(self.useful_context), room)

    def free_space(self) -> int:
        """Bytes free where the model would go."""
        place = store.models_dir()
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free


def plan(reference: str, quant: str | None, catalogue: Catalogue) -> Plan:
    """What pulling `reference` (a catalogue name, or hf.co/OWNER/REPO:QUANT) would fetch.

    Asks the hub for the list of files and, by range, for the beginning of the first. Raises UsageError for names
    that are not known, ToolkitError if the hub does not answer or the file is no GGUF.
    """
    named = hub.parse_reference(reference)
    entry: Entry | None = None
    source = None
    if named is None:
        base, _, tag = reference.partition(":")
        entry = catalogue.find(base)
        quant = quant or tag or None
        source = entry.source(quant) or (entry.gguf[0] if entry.gguf else None)
        if source is None:
            raise UsageError(f"the catalogue has no GGUF of {base}", hint=f"toolkit models pull {base} --via ollama")
        named = hub.Reference(source.repository, quant or source.quant, None)
        name = base.lower()
    else:
        name = named.repository.partition("/")[2].removesuffix("-GGUF").removesuffix("-gguf").lower()
    repository = hub.look_up(named.repository, named.revision)
    file = source.file if source and (quant is None or quant.lower() == source.quant.lower()) else None
    selection = hub.select(repository, quant or named.quant, file)
    header = hub.read_header(repository, selection.parts[0])
    first = selection.parts[0]
    known = source.sha256 if source and selection.quant == source.quant.upper() else None
    changed = ""
    if known and first.sha256 and not first.sha256.startswith(known):
        changed = f"{first.path} is not the file the catalogue was written for: it has been replaced on the hub since"
    return Plan(
        name=f"{name}:{selection.quant}" if selection.quant else name,
        repository=repository,
        selection=selection,
        licence=repository.licence or (entry.licence if entry else ""),
        architecture=from_header(header),
        have=sum(_have(file) for file in selection.files),
        changed=changed,
    )


def refuse_if_too_large(planned: Plan, room: Room) -> None:
    """Raise ToolkitError if the model does not fit this machine even when it is quiet; say what would."""
    found = planned.verdict(room)
    if found.fits:
        return
    context = planned.useful_context
    smaller = fit.best(
        [fit.Choice(one.quant, one.size) for one in hub.selections(planned.repository.files)],
        planned.architecture,
        room,
        context,
        projector=planned.projector,
    )
    say = f"the largest of this model that fits is {smaller.quant}" if smaller else "no quantisation of it there fits"
    need = planned.need(context).total
    raise ToolkitError(
        f"{planned.name} needs {format_bytes(need)} with a context of {context:,}, "
        f"{format_bytes(found.short)} more than this machine has; {say}",
        hint=f"toolkit models pull hf.co/{planned.repository.name}:{smaller.quant}"
        if smaller
        else "toolkit models list --fits; or --anyway",
    )


def refuse_without_space(planned: Plan) -> None:
    """Raise ToolkitError if what is missing does not fit on the disk."""
    missing, free = planned.size - planned.have, planned.free_space()
    if missing > free:
        raise ToolkitError(
            f"{planned.name} needs {format_bytes(missing)} of disk in {store.models_dir()}, "
            f"and {format_bytes(free)} are free",
            hint="toolkit models list shows what could be removed: toolkit models remove NAME",
        )


def fetch(planned: Plan, watcher: Watcher, *, http: httpx.Client | None = None) -> Receipt:
    """Fetch, verify and record all files of the plan. Interrupted, the next call goes on where it stopped."""
    files: list[StoredFile] = []
    _make(store.incoming_dir())
    with http or client() as connection:
        for file in planned.selection.files:
            role = "projector" if file is planned.selection.projector else "model" if not files else "part"
            sha256 = _obtain(planned, file, connection, watcher)
            files.append(StoredFile(file.name, file.size, sha256, role))
    receipt = Receipt(
        name=planned.name,
        files=tuple(files),
        quant=planned.selection.quant,
        licence=planned.licence,
        repository=planned.repository.name,
        revision=planned.repository.commit,
        source=planned.repository.endpoint,
        pulled=store.now(),
        verified_by_source=all(file.sha256 for file in planned.selection.files),
    )
    store.record(receipt)
    return receipt


def adopt(path: Path, watcher: Watcher) -> Receipt:
    """Take a GGUF file of the user's own into the store (a hard link if the disk allows, else a copy).

    Of a split model the parts beside it come along. Raises NotGguf for a file that is none or not whole.
    """
    parts = gguf.split_of(path)
    headers = [gguf.read_file(part) for part in parts]
    quant = hub.quant_of(parts[0].name)
    name = hub.split_stem(path.name).lower()
    files: list[StoredFile] = []
    for part in parts:
        target = store.folder_of(name) / HubFile(part.name, 0, None).name
        _make(target.parent)
        if not (target.exists() and target.samefile(part)):
            _link_or_copy(part, target)
        role = "part" if files else "model"
        files.append(StoredFile(target.name, target.stat().st_size, store.digest(target, watcher.advance), role))
    receipt = Receipt(
        name=name,
        files=tuple(files),
        quant=quant,
        licence=str(headers[0].metadata.get("general.license", "")),
        source=str(path),
        pulled=store.now(),
        verified_by_source=False,
    )
    store.record(receipt)
    return receipt


def _obtain(planned: Plan, file: HubFile, connection: httpx.Client, watcher: Watcher) -> str:
    """Bring one file to its place and return its digest; one process at a time for the same contents."""
    target = planned.folder / file.name
    wanted = planned.repository.wanted(file)
    part = _part(file)
    with _only_one(part, lambda: watcher.note(f"another pull of {file.name} is running: waiting for it")):
        if target.is_file() and target.stat().st_size == file.size:
            found = store.digest(target, watcher.advance)
            if file.sha256 in (None, found):
                return found
            watcher.advance(-file.size)
        kept = hub.cached(planned.repository, file)
        if kept is not None and file.sha256 is not None:
            found = store.digest(kept, watcher.advance)
            if found == file.sha256:
                watcher.note(f"{file.name} is in huggingface_hub's cache already")
                _make(target.parent)
                _link_or_copy(kept.resolve(), target)
                return found
            watcher.advance(-file.size)
        sha256 = download(wanted, part, client=connection, headers=hub.headers(), watcher=watcher)
        gguf.read_file(part)
        _make(target.parent)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
        return sha256


@contextmanager
def _only_one(part: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this file's contents; says once that it has to wait."""
    lock = FileLock(part.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _part(file: HubFile) -> Path:
    """Where a file waits to become whole: named by its contents, so that a renamed or moved file goes on too."""
    key = file.sha256 or hashlib.sha256(f"{file.path}\n{file.size}".encode()).hexdigest()
    return store.incoming_dir() / f"{key}.part"


def _have(file: HubFile) -> int:
    part = _part(file)
    return min(part.stat().st_size, file.size) if part.exists() else 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolkitError(f"{folder} cannot be made: {error.strerror}", hint=f"ls -ld {folder.parent}") from None


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        temporary = target.with_name(f".{target.name}.copy")
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ToolkitError(f"{target} cannot be written: {error.strerror}", hint=f"df -h {target.parent}") from None
