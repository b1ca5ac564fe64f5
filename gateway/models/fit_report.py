"""Answers `models fit`: resolves a name to sizes and a memory shape, and works out what fits this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.models import builtin, catalogue, fit, gguf, hub, store
from gateway.models.architecture import Architecture, from_header
from gateway.models.catalogue import Catalogue
from gateway.models.fit import Choice, Memory, Room, Verdict
from gateway.models.machine import Machine
from toolkit.core.errors import ToolkitError, UsageError


@dataclass(frozen=True)
class Subject:
    """A model whose fit is asked for: its memory shape, the files to choose from, and how that is known."""

    name: str
    architecture: Architecture
    choices: tuple[Choice, ...]
    chosen: Choice
    projector: int
    known_from: str


@dataclass(frozen=True)
class FitReport:
    """Whether a model fits, with what, and how much context there would be. Bytes and tokens."""

    name: str
    quant: str
    context: int
    slots: int
    kv: str
    memory: Memory
    quiet: Verdict
    now: Verdict
    largest_context: int
    largest_context_gpu: int
    largest_context_now: int
    trained_context: int
    best_quant: str | None
    exact: bool
    known_from: str


def resolve(name: str, quant: str | None, known: Catalogue) -> Subject:
    """The model `name` means: a GGUF file, a model of the store, hf.co/OWNER/REPO:QUANT, a built-in one, or a catalogue
    entry.

    Only a reference to the hub, or a quantisation the catalogue does not list, asks the hub (list and header).
    Raises UsageError for a name nobody knows.
    """
    path = store.as_path(name)
    if path is not None:
        return _of_file(path)
    named = hub.parse_reference(name)
    if named is not None:
        return _of_hub(name, named.repository, quant or named.quant, named.revision)
    kept = store.lookup(f"{name}:{quant}" if quant else name)
    if kept is not None:
        return _of_receipt(kept)
    if name in builtin.FILES:
        return _of_file(builtin.FILES[name])
    base, _, tag = name.partition(":")
    quant = quant or tag or None
    if base.lower() not in known.models:
        raise catalogue.unknown(name, [*known.models, *builtin.FILES, *(receipt.name for receipt in store.receipts())])
    entry = known.find(base)
    choices = tuple(Choice(source.quant, source.size) for source in entry.gguf if source.size)
    source = entry.source(quant)
    if source is None or source.size is None:
        if not entry.gguf:
            raise UsageError(f"the catalogue has no GGUF of {base}", hint="toolkit models list")
        return _of_hub(base.lower(), entry.gguf[0].repository, quant, None)
    return Subject(
        base.lower(), entry.architecture(base), choices, Choice(source.quant, source.size), 0, "the catalogue"
    )


def report(subject: Subject, machine: Machine, *, context: int | None, slots: int = 1, kv: str = "f16") -> FitReport:
    """Work out the fit. Without `context`: the default of the gateway, or what the model was trained with if less.

    Raises UsageError for more context than the model was trained with.
    """
    shape = subject.architecture
    if context and shape.context and context > shape.context:
        raise UsageError(
            f"{subject.name} was trained with a context of {shape.context:,}, less than the {context:,} asked for",
            hint=f"toolkit models fit {subject.name} --context {shape.context}",
        )
    asked = context or min(8192, shape.context or 8192)
    quiet, now = machine.room(), machine.room(now=True)
    need = fit.memory(shape, subject.chosen.size, asked, slots=slots, kv=kv, projector=subject.projector)

    def largest(room: Room, *, gpu_only: bool = False) -> int:
        return fit.largest_context(
            shape, subject.chosen.size, room, slots=slots, kv=kv, projector=subject.projector, gpu_only=gpu_only
        )

    best = fit.best(subject.choices, shape, quiet, asked, slots=slots, kv=kv, projector=subject.projector)
    return FitReport(
        name=subject.name,
        quant=subject.chosen.quant,
        context=asked,
        slots=slots,
        kv=kv,
        memory=need,
        quiet=fit.verdict(need, quiet),
        now=fit.verdict(need, now),
        largest_context=largest(quiet),
        largest_context_gpu=largest(quiet, gpu_only=True) if quiet.vram or quiet.unified else 0,
        largest_context_now=largest(now),
        trained_context=shape.context,
        best_quant=best.quant if best else None,
        exact=shape.exact and bool(shape.width),
        known_from=subject.known_from,
    )


def _of_file(path: Path) -> Subject:
    parts = gguf.split_of(path)
    header = gguf.read_file(parts[0])
    for part in parts[1:]:
        gguf.read_file(part)
    choice = Choice(hub.quant_of(path.name), sum(part.stat().st_size for part in parts))
    return Subject(path.name, from_header(header), (choice,), choice, 0, "the file's header")


def _of_receipt(receipt: store.Receipt) -> Subject:
    header = gguf.read_file(receipt.path)
    choice = Choice(receipt.quant, receipt.weights)
    projector = receipt.size - receipt.weights
    return Subject(receipt.name, from_header(header), (choice,), choice, projector, "the file's header")


def _of_hub(name: str, repository_name: str, quant: str | None, revision: str | None) -> Subject:
    repository = hub.look_up(repository_name, revision)
    there: Sequence[hub.Selection] = hub.selections(repository.files)
    selection = hub.select(repository, quant)
    if not selection.quant and not selection.size:
        raise ToolkitError(f"{repository_name} does not tell the size of its files", hint="try again later")
    shape = from_header(hub.read_header(repository, selection.parts[0]))
    return Subject(
        name,
        shape,
        tuple(Choice(one.quant, one.size) for one in there),
        Choice(selection.quant, selection.size),
        selection.projector.size if selection.projector else 0,
        "the header on the hub",
    )
