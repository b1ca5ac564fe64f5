"""What there is: the catalogue with what fits, and what is installed where. Read only."""

from dataclasses import dataclass

from gateway.models import builtin, fit, store
from gateway.models.catalogue import Catalogue
from gateway.models.machine import Machine
from gateway.settings import Settings
from gateway.upstreams.discovery import Discovered
from gateway.upstreams.router import RouterSpec


@dataclass(frozen=True)
class Offered:
    """An entry of the catalogue, held against this machine: what could be pulled."""

    name: str
    title: str
    quant: str
    size: int | None
    licence: str
    roles: tuple[str, ...]
    modalities: tuple[str, ...]
    fits: bool | None
    where: str
    largest_context: int
    trained_context: int
    ollama: str | None
    installed: str
    unverified: tuple[str, ...]


@dataclass(frozen=True)
class Installed:
    """A model that could be asked now, and by what it is kept or served."""

    name: str
    at: str
    size: int | None
    context: int | None
    note: str = ""


def offered(known: Catalogue, machine: Machine) -> list[Offered]:
    """Every catalogue entry in its first quantisation; `fits` is None where the size is not known."""
    room = machine.room()
    kept = {receipt.name.partition(":")[0]: receipt.name for receipt in store.receipts()}
    rows = []
    for name, entry in known.models.items():
        source = entry.gguf[0] if entry.gguf else None
        size = source.size if source else None
        shape = entry.architecture(name)
        context = min(8192, entry.context)
        found = fit.verdict(fit.memory(shape, size, context), room) if size else None
        rows.append(
            Offered(
                name=name,
                title=entry.title,
                quant=source.quant if source else "",
                size=size,
                licence=entry.licence,
                roles=entry.roles,
                modalities=entry.modalities,
                fits=found.fits if found else None,
                where=found.where if found else "",
                largest_context=fit.largest_context(shape, size, room) if size else 0,
                trained_context=entry.context,
                ollama=entry.ollama.tag if entry.ollama else None,
                installed=kept.get(name, ""),
                unverified=entry.unverified,
            )
        )
    return rows


def installed(found: Discovered, settings: Settings) -> list[Installed]:
    """The store, what the gateway would start, and what runs here or has a key."""
    specs = [one for start in found.to_start for one in (start.specs if isinstance(start, RouterSpec) else [start])]
    contexts = {spec.name: spec.context for spec in specs}
    rows = [
        Installed(
            receipt.name,
            "store",
            receipt.size,
            contexts.get(receipt.name),
            f"{receipt.licence} {receipt.repository}".strip(),
        )
        for receipt in store.receipts()
    ]
    listed = {row.name for row in rows}
    for spec in specs:
        if spec.name not in listed:
            at = "built in" if spec.gguf in builtin.FILES.values() else "gateway.yaml"
            rows.append(Installed(spec.name, at, spec.gguf.stat().st_size, spec.context))
    rows.extend(Installed(model.name, model.upstream, None, model.context, model.note) for model in found.models)
    return rows
