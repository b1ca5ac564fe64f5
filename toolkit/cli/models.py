"""`toolkit models`: what fits, pull it, keep it, serve it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Progress, Quiet, Yes
from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from gateway.models.catalogue import Catalogue, Entry
    from gateway.models.fit_report import FitReport
    from gateway.models.store import Receipt

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
    from gateway.upstreams.discovery import discover_all

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

    out = Output(json=json)
    _known_kv(kv)
    subject = fit_report.resolve(model, quant, catalogue.read())
    here = machine.look()
    found = fit_report.report(subject, here, context=_tokens(context), slots=slots, kv=kv)
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
    from gateway.models import catalogue, machine, store
    from gateway.models import pull as pulling
    from toolkit.core.units import format_bytes

    out = Output(json=json, quiet=quiet)
    if via not in ("gguf", "ollama"):
        raise UsageError(f"{via!r} is no way to pull", hint="--via gguf, or --via ollama")
    known = catalogue.read()
    if model.startswith("ollama:") or via == "ollama":
        if quant is not None:
            raise UsageError("Ollama's tags name their quantisation: --quant is not for them", hint="leave out --quant")
        _pull_by_ollama(out, model, _tokens(context), known, anyway)
        return
    if context is not None:
        raise UsageError(
            "a GGUF holds any context: --context is for Ollama's tags",
            hint=f"toolkit models serve {model} --context {context}",
        )
    path = store.as_path(model)
    if path is not None:
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
    if not receipt.verified_by_source and path is None:
        out.warn("the hub gives no digest for this file: what came is recorded, but could not be held against it")
    out.result(receipt, human=f"{receipt.name} is in {receipt.folder}", quiet=receipt.name)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show where a pulled model came from, its files and what its header says; of another, what the catalogue knows."""
    from gateway.models import builtin, catalogue, gguf, store
    from gateway.models.architecture import from_header
    from toolkit.core.units import format_bytes

    out = Output(json=json)
    if name in builtin.FILES:
        file = builtin.FILES[name]
        shape = from_header(gguf.read_file(file))
        about = f"{name}  shipped with the toolkit; its card: {file.parent / 'README.md'}"
        out.result(
            {"name": name, "file": file, "architecture": shape},
            human=f"{about}\nmodel     {shape.name}, trained with a context of {shape.context:,}",
        )
        return
    entry = catalogue.read().models.get(name.lower())
    if entry is not None and store.lookup(name) is None:
        out.result({"name": name.lower(), "catalogue": entry}, human=_entry_text(name.lower(), entry))
        return
    receipt = _kept(name)
    shape = from_header(gguf.read_file(receipt.path))
    came = " ".join(part for part in (receipt.repository or receipt.source, receipt.revision[:12]) if part)
    lines = [
        f"{receipt.name}  {format_bytes(receipt.size)}  {receipt.licence or 'licence not stated'}",
        f"from      {came}, {receipt.pulled}",
        f"model     {shape.name}, trained with a context of {shape.context:,}",
        *(f"{file.role:9} {receipt.folder / file.file}  sha256 {file.sha256[:16]}..." for file in receipt.files),
    ]
    out.result({"receipt": receipt, "architecture": shape, "folder": receipt.folder}, human="\n".join(lines))


@app.command()
def verify(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Hold a pulled model's files against its receipt. Exit code 1 if anything differs."""
    from gateway.models import builtin, gguf, store

    out = Output(json=json, quiet=quiet)
    path = builtin.FILES.get(name) or store.as_path(name)
    if path is not None:
        header = gguf.read_file(path)
        out.result({"name": name, "faults": []}, human=f"{name} is a whole GGUF file: {len(header.tensors)} tensors")
        return
    receipt = _kept(name)
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
    from gateway.models import builtin, store
    from toolkit.core.units import format_bytes

    out = Output(quiet=quiet)
    if name in builtin.FILES:
        raise UsageError(
            f"{name} is shipped with the toolkit and not removed", hint="set discover.builtin: false in gateway.yaml"
        )
    receipt = _kept(name)
    out.confirm(f"Delete {receipt.name} ({format_bytes(receipt.size)}) in {receipt.folder}?", yes=yes)
    out.note(f"{format_bytes(store.remove(receipt))} freed")


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A pulled model, a built-in one, or a .gguf file.")],
    context: Context = None,
    slots: Slots = 1,
    kv: Annotated[
        str | None, typer.Option(help="Type of the KV cache: f16, q8_0 or q4_0; default: as gateway.yaml says.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    engine: Annotated[
        str | None, typer.Option(help="llama-server, xllamacpp or llama-cpp-python; default: as gateway.yaml says.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Serve one model by llama.cpp alone, without the gateway, until Ctrl-C."""
    from gateway.models import serving
    from gateway.settings import load_settings

    out = Output(quiet=quiet)
    if kv is not None:
        _known_kv(kv)
    spec = serving.spec(
        model,
        load_settings(),
        context=_tokens(context),
        slots=slots,
        kv=kv,
        port=port,
        engine=_known_engine(engine),
    )
    if spec.slots < slots:
        out.warn(f"{spec.engine} answers one request at a time: one slot, not {slots}")

    def warn_if_short() -> None:
        short = serving.shortage(spec)
        if short:
            out.warn(short)

    with serving.running(spec, warn_if_short) as url:
        out.note(
            f"{spec.name} at {url}/v1 by {spec.engine}, a context of {spec.context:,} for each of {spec.slots}; "
            "Ctrl-C ends it"
        )
        out.result(None, human=f"{url}/v1", quiet=f"{url}/v1")
        serving.until_stopped()


def _tokens(context: str | None) -> int | None:
    """A context as it was typed, refused where no model could be asked anything."""
    from toolkit.core.units import parse_context

    tokens = parse_context(context) if context is not None else None
    if tokens is not None and tokens < 256:
        raise UsageError(f"a context of {tokens} tokens is too small to ask anything", hint="--context 8k")
    return tokens


def _kept(name: str) -> "Receipt":
    """The pulled model of that name. Raises ToolkitError that says how to get it, UsageError for an unknown name."""
    from gateway.models import catalogue, store

    if store.lookup(name) is None and name.partition(":")[0].lower() in catalogue.read().models:
        raise catalogue.not_pulled(name)
    return store.find(name)


def _pull_by_ollama(out: Output, model: str, context: int | None, known: "Catalogue", anyway: bool) -> None:
    from gateway.models import machine, ollama_library
    from gateway.settings import load_settings
    from gateway.upstreams.ollama import server
    from toolkit.core.units import format_bytes

    tag = model.removeprefix("ollama:")
    if not tag:
        raise UsageError("ollama: names no model", hint="toolkit models pull ollama:gemma4:e4b")
    entry: Entry | None
    if not model.startswith("ollama:") and "/" not in model:
        entry = known.find(model)
        if entry.ollama is None:
            raise UsageError(f"the catalogue has no Ollama tag of {model}", hint=f"toolkit models pull {model}")
        tag = entry.ollama.tag
    else:
        entry = next((one for one in known.models.values() if one.ollama and one.ollama.tag == tag), None)
    size = entry.ollama.size if entry is not None and entry.ollama else None
    base = server(load_settings())
    out.note(f"{tag} through Ollama at {base}" + (f": about {format_bytes(size)}" if size else ""))
    if entry is not None and not anyway:
        ollama_library.refuse_if_too_large(model, entry, context, machine.look().room(), base)
    with _watching(out, tag, size) as watcher:
        ollama_library.pull(tag, base, watcher)
    name = ollama_library.derive(tag, context, base) if context else tag
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


def _known_engine(engine: str | None) -> Any:
    known = ("auto", "llama-server", "xllamacpp", "llama-cpp-python")
    if engine not in (None, *known):
        raise UsageError(f"{engine!r} is no engine", hint=f"--engine {', '.join(known)}")
    return engine


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


def _entry_text(name: str, entry: "Entry") -> str:
    from toolkit.core.units import format_bytes

    sampling = ", ".join(f"{key} {value}" for key, value in entry.sampling if value is not None)
    facts = [
        ("licence", entry.licence),
        ("size", entry.parameters),
        ("reads", ", ".join(entry.modalities)),
        ("good for", ", ".join(entry.roles)),
        ("context", f"{entry.context:,}"),
        ("sampling", sampling),
        *(
            ("GGUF", f"{one.repository}:{one.quant}" + (f"  {format_bytes(one.size)}" if one.size else ""))
            for one in entry.gguf
        ),
        ("Ollama", entry.ollama.tag if entry.ollama else ""),
        *(("unverified", what) for what in entry.unverified),
    ]
    lines = [f"{what:11}{value}" for what, value in facts if value]
    return "\n".join([f"{entry.title}, not pulled: toolkit models pull {name}", *lines])


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
