"""`toolkit models`: what fits, pull it, keep it, serve it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Progress, Quiet, Yes
from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from gateway.models.fit_report import FitReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, check, pull, verify and serve models.")

Name = Annotated[str, typer.Argument(help="A name from `toolkit models list`.")]
Model = Annotated[
    str, typer.Argument(help="A catalogue name, a pulled model, hf.co/OWNER/REPO:QUANT, or a .gguf file.")
]
Quant = Annotated[str | None, typer.Option(help="Quantisation, like Q4_K_M.")]
Context = Annotated[str | None, typer.Option(help="Tokens one request may use, like 64k.")]
Slots = Annotated[int, typer.Option(min=1, max=256, help="Requests served at the same time.")]
Kv = Annotated[str, typer.Option(help="Type of the KV cache: f16, q8_0 or q4_0.")]


@app.command(name="list")
def list_models(
    fits: Annotated[bool, typer.Option("--fits", help="Only what fits this machine.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the catalogue, what fits this machine, and what is installed where."""
    from gateway.models import catalogue, machine, overview
    from gateway.settings import load_settings
    from gateway.upstreams import discover_all

    out = Output(json=json, quiet=quiet)
    settings = load_settings()
    here, found = machine.look(), discover_all(settings)
    for remark in found.notes:
        out.note(remark)
    offered = [row for row in overview.offered(catalogue.read(), here) if row.fits or not fits]
    have = overview.installed(found, settings)
    out.result(
        {"machine": here, "catalogue": offered, "installed": have},
        human=_overview(out, offered, have),
        quiet=[*(row.name for row in have), *(row.name for row in offered)],
    )


@app.command()
def fit(
    model: Model,
    context: Context = None,
    quant: Quant = None,
    kv: Kv = "f16",
    slots: Slots = 1,
    json: Json = False,
) -> None:
    """Say whether a model fits this machine, what takes the memory, and how much context there would be.

    Exit code 1 if it does not fit.
    """
    from gateway.models import catalogue, fit_report, machine
    from toolkit.core.units import parse_context

    out = Output(json=json)
    _known_kv(kv)
    subject = fit_report.resolve(model, quant, catalogue.read())
    here = machine.look()
    found = fit_report.report(subject, here, context=parse_context(context) if context else None, slots=slots, kv=kv)
    room = here.room()
    out.result(
        {"machine": here, "room": room, **_document(found)}, human=_fit_text(found, room.ram, room.vram, room.unified)
    )
    if not found.quiet.fits:
        raise typer.Exit(1)


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="A catalogue name, hf.co/OWNER/REPO:QUANT, a .gguf file, or ollama:NAME:TAG.")
    ],
    quant: Quant = None,
    via: Annotated[str, typer.Option(help="For a catalogue name: gguf (into our store) or ollama.")] = "gguf",
    context: Annotated[str | None, typer.Option(help="With Ollama: also make a tag that holds this context.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Pull even what does not fit this machine.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Get a model: says size, place and fit first; interrupted, the same command goes on where it stopped."""
    from gateway.models import catalogue, machine
    from gateway.models import pull as pulling
    from toolkit.core.units import format_bytes

    out = Output(json=json, quiet=quiet)
    if via not in ("gguf", "ollama"):
        raise UsageError(f"{via!r} is no way to pull", hint="--via gguf, or --via ollama")
    known = catalogue.read()
    if model.startswith("ollama:") or via == "ollama":
        _pull_by_ollama(out, model, context, known)
        return
    if model.endswith(".gguf"):
        path = Path(model).expanduser().absolute()
        with _watching(out, path.name, path.stat().st_size if path.is_file() else None) as watcher:
            receipt = pulling.adopt(path, watcher)
    else:
        planned = pulling.plan(model, quant, known)
        here = machine.look()
        verdict = planned.verdict(here.room())
        need = planned.need(planned.useful_context).total
        out.note(
            f"{planned.name} from {planned.repository.name} ({planned.licence or 'licence not stated'}): "
            f"{format_bytes(planned.size)}, of which {format_bytes(planned.have)} are here already"
        )
        out.note(f"into {planned.folder}: {format_bytes(planned.free_space())} free")
        out.note(
            f"with a context of {planned.useful_context:,} it takes {format_bytes(need)} of memory: "
            + ("it fits" if verdict.fits else f"{format_bytes(verdict.short)} too much for this machine")
        )
        if planned.changed:
            out.warn(planned.changed)
        if not anyway:
            pulling.refuse_if_too_large(planned, here.room())
        pulling.refuse_without_space(planned)
        with _watching(out, planned.name, planned.size) as watcher:
            receipt = pulling.fetch(planned, watcher)
    if not receipt.verified_by_source and not model.endswith(".gguf"):
        out.warn("the hub gives no digest for this file: what came is recorded, but could not be held against it")
    out.result(receipt, human=f"{receipt.name} is in {receipt.folder}", quiet=receipt.name)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show where a pulled model came from, its files, and what its header says."""
    from gateway.models import gguf, store
    from gateway.models.architecture import from_header
    from gateway.models.builtin import BALANCED, SKEWED
    from toolkit.core.units import format_bytes

    out = Output(json=json)
    builtin = {path.stem.removesuffix("-q8_0"): path for path in (BALANCED, SKEWED)}
    if name in builtin:
        header = gguf.read_file(builtin[name])
        shape = from_header(header)
        document = {"name": name, "file": builtin[name], "architecture": shape}
        about = f"{name}  shipped with the toolkit; its card: {builtin[name].parent / 'README.md'}"
        out.result(document, human=f"{about}\nmodel     {shape.name}, trained with a context of {shape.context:,}")
        return
    receipt = store.find(name)
    header = gguf.read_file(receipt.path)
    shape = from_header(header)
    lines = [
        f"{receipt.name}  {format_bytes(receipt.size)}  {receipt.licence or 'licence not stated'}",
        f"from      {receipt.repository or receipt.source} {receipt.revision[:12]}, {receipt.pulled}",
        f"model     {shape.name}, trained with a context of {shape.context:,}",
        *(f"{file.role:9} {receipt.folder / file.file}  sha256 {file.sha256[:16]}..." for file in receipt.files),
    ]
    out.result({"receipt": receipt, "architecture": shape, "folder": receipt.folder}, human="\n".join(lines))


@app.command()
def verify(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Hold a pulled model's files against its receipt. Exit code 1 if anything differs."""
    from gateway.models import gguf, store

    out = Output(json=json, quiet=quiet)
    if name.endswith(".gguf"):
        header = gguf.read_file(Path(name).expanduser())
        out.result({"name": name, "faults": []}, human=f"{name} is a whole GGUF file: {len(header.tensors)} tensors")
        return
    receipt = store.find(name)
    with _watching(out, receipt.name, receipt.size) as watcher:
        faults = store.verify(receipt, watcher.advance)
    if json:
        out.result({"name": receipt.name, "faults": faults})
    if faults:
        again = f"hf.co/{receipt.repository}:{receipt.quant}" if receipt.repository else receipt.source
        raise ToolkitError(
            "; ".join(faults), hint=f"toolkit models remove {receipt.name} && toolkit models pull {again}"
        )
    if not json:
        out.result(None, human=f"{receipt.name} is what was pulled on {receipt.pulled}")


@app.command()
def remove(name: Name, yes: Yes = False, quiet: Quiet = False) -> None:
    """Delete a pulled model."""
    from gateway.models import store
    from toolkit.core.units import format_bytes

    out = Output(quiet=quiet)
    receipt = store.find(name)
    out.confirm(f"Delete {receipt.name} ({format_bytes(receipt.size)}) in {receipt.folder}?", yes=yes)
    out.note(f"{format_bytes(store.remove(receipt))} freed")


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A pulled model, a built-in one, or a .gguf file.")],
    context: Context = None,
    slots: Slots = 1,
    kv: Kv = "f16",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Serve one model by llama.cpp alone, without the gateway, until Ctrl-C."""
    from gateway.models import serving
    from gateway.settings import load_settings
    from toolkit.core.units import parse_context

    out = Output(quiet=quiet)
    _known_kv(kv)
    spec = serving.spec(
        model, load_settings(), context=parse_context(context) if context else None, slots=slots, kv=kv, port=port
    )
    with serving.running(spec) as url:
        out.note(f"{spec.name} at {url}/v1, a context of {spec.context:,} for each of {spec.slots}; Ctrl-C ends it")
        out.result(None, human=f"{url}/v1", quiet=f"{url}/v1")
        serving.until_stopped()


def _pull_by_ollama(out: Output, model: str, context: str | None, known: Any) -> None:
    from gateway.models import ollama_library
    from gateway.settings import load_settings
    from gateway.upstreams.ollama import server
    from toolkit.core.units import format_bytes, parse_context

    tag = model.removeprefix("ollama:")
    size = None
    if not model.startswith("ollama:") and "/" not in model:
        entry = known.find(model)
        if entry.ollama is None:
            raise UsageError(f"the catalogue has no Ollama tag of {model}", hint=f"toolkit models pull {model}")
        tag, size = entry.ollama.tag, entry.ollama.size
    base = server(load_settings())
    out.note(f"{tag} through Ollama at {base}" + (f": about {format_bytes(size)}" if size else ""))
    with _watching(out, tag, size) as watcher:
        ollama_library.pull(tag, base, watcher)
    name = ollama_library.derive(tag, parse_context(context), base) if context else tag
    out.result({"name": name, "at": base}, human=f"{name} is at Ollama ({base})", quiet=name)


class _Watcher:
    """Tells a bar how much has come, and stderr what a person should know."""

    def __init__(self, out: Output, bar: Progress) -> None:
        self._out, self._bar = out, bar

    def advance(self, done: float = 1) -> None:
        self._bar.advance(done)

    def note(self, message: str) -> None:
        self._out.note(message)


@contextmanager
def _watching(out: Output, what: str, total: int | None) -> Iterator[_Watcher]:
    with out.progress(what, total, unit="B") as bar:
        yield _Watcher(out, bar)


def _known_kv(kv: str) -> None:
    if kv not in ("f16", "q8_0", "q4_0"):
        raise UsageError(f"{kv!r} is no type of KV cache", hint="--kv f16, q8_0 or q4_0")


def _document(found: "FitReport") -> dict[str, Any]:
    from dataclasses import asdict

    named = {
        "memory": found.memory._asdict() | {"total": found.memory.total},
        "quiet": found.quiet._asdict(),
        "now": found.now._asdict(),
    }
    return {key: value for key, value in asdict(found).items() if key not in named} | named


def _fit_text(found: "FitReport", ram: int, vram: int, unified: bool) -> str:
    from toolkit.core.units import format_bytes

    need = found.memory
    parts = [("weights", need.weights), ("projector", need.projector), ("KV cache", need.kv), ("compute", need.compute)]
    has = f"{format_bytes(ram)} of memory" + (" shared with the GPU" if unified else "")
    has += f" and {format_bytes(vram)} on the GPU" if vram else ""
    where = {"gpu": "wholly on the GPU", "split": "over GPU and RAM, slower than on the GPU alone", "ram": "in RAM"}
    lines = [f"{found.name} {found.quant}, context {found.context:,} x {found.slots}, KV {found.kv}"]
    lines += [f"  {what:10} {format_bytes(size):>10}" for what, size in parts if size]
    lines += [f"  {'total':10} {format_bytes(need.total):>10}   this machine: {has}"]
    if found.quiet.fits:
        lines.append(f"fits {where[found.quiet.where]}" + ("" if found.now.fits else ", but not in what is free now"))
    else:
        lines.append(f"does not fit: {format_bytes(found.quiet.short)} too much")
    if found.largest_context:
        on_gpu = f"; wholly on the GPU: {found.largest_context_gpu:,}" if found.largest_context_gpu else ""
        now = "" if found.largest_context_now == found.largest_context else f"; now: {found.largest_context_now:,}"
        lines.append(
            f"largest context that fits: {found.largest_context:,} of {found.trained_context:,} trained{on_gpu}{now}"
        )
    if found.best_quant and found.best_quant != found.quant:
        lines.append(f"best quantisation that fits: {found.best_quant}")
    known = found.known_from if found.exact else f"{found.known_from}; the compute buffer is a guess"
    lines.append(f"known from {known}")
    return "\n".join(lines)


def _overview(out: Output, offered: Any, have: Any) -> Any:
    from rich.console import Group

    from toolkit.core.units import format_bytes

    def context(row: Any) -> str:
        return f"{row.largest_context:,}" if row.largest_context else ""

    where = {"gpu": "GPU", "split": "GPU and RAM", "ram": "RAM", "none": "no", "": "not known"}
    catalogue = out.table(
        ["TO PULL", "QUANT", "SIZE>", "FITS IN", "CONTEXT>", "FOR", "PULLED AS"],
        [
            (
                row.name,
                row.quant,
                format_bytes(row.size) if row.size else "",
                where[row.where],
                context(row),
                ", ".join(row.roles),
                row.installed,
            )
            for row in offered
        ],
        empty="nothing in the catalogue fits this machine",
    )
    kept = out.table(
        ["INSTALLED", "AT", "SIZE>", "CONTEXT>", ""],
        [
            (
                row.name,
                row.at,
                format_bytes(row.size) if row.size else "",
                f"{row.context:,}" if row.context else "",
                row.note,
            )
            for row in have
        ],
        empty="nothing is installed",
    )
    return Group(catalogue, "", kept)
