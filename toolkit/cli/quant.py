"""`toolkit quant`: measure what a quantisation costs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Quiet
from toolkit.core.errors import UsageError

if TYPE_CHECKING:
    from agents.experiments.compare import Difference
    from agents.experiments.logits import Exact
    from agents.experiments.quant import Distance, Profile, Speed

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure what a quantisation costs.")


@app.callback()
def quant() -> None:
    """Measure what a quantisation costs."""


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="GGUF file that is held to be right (the larger one).")],
    second: Annotated[Path, typer.Argument(help="GGUF file of the same model that is compared with it.")],
    text: Annotated[Path | None, typer.Option(help="Text to read token by token; default: a page of ours.")] = None,
    tokens: Annotated[int, typer.Option(min=256, help="So many of the text's tokens at most.")] = 2048,
    suite: Annotated[
        str, typer.Option(help="Suite for accuracy and tool choice; none to leave it out.")
    ] = "five-tools",
    tasks: Annotated[int | None, typer.Option(min=2, help="Use so many tasks of the suite.")] = None,
    engine: Annotated[
        str,
        typer.Option(help="Who reads the text: server, llama-cpp-python (the whole vocabulary), or auto."),
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads of llama.cpp; 0: one a core.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two quantisations: memory, speed, next tokens, perplexity, accuracy and tool choice.

    llama-cpp-python, where it is installed, reads the text in this process and gives the divergence over the whole
    vocabulary; a server names the likeliest tokens only, one place at a time, and gives a lower bound.
    """
    from rich.console import Group

    from agents.experiments.analysis import plain
    from agents.experiments.compare import compare as compared
    from agents.experiments.compare import entries
    from agents.experiments.quant import Profile, distance
    from agents.experiments.quant_report import write_quant_report
    from toolkit.core.paths import bundled

    sink = Output(json=json, quiet=quiet)
    if first.resolve() == second.resolve():
        raise UsageError("both files are the same", hint=f"toolkit quant compare {first} OTHER.gguf")
    in_process = _in_process(engine)
    source = text or bundled("quant/text.txt")
    try:
        told = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} cannot be read as text: {error}", hint=f"file {source}") from None
    folder = out or Path("out") / f"quant-{first.stem}-{second.stem}"
    exact = _exact(sink, (first, second), told, tokens, threads, folder) if in_process else None
    found: list[Profile] = []
    memory: list[int] = []
    for number, path in enumerate((first, second)):
        with _served(path, threads, folder / f"server-{number + 1}.log") as (url, peak):
            if exact is None:
                found.append(_profile(sink, url, path.name, told, tokens))
            else:
                found.append(Profile(*_speed(url, told), exact.perplexities[number]))
            if suite != "none":
                _choices(sink, url, path, suite, tasks, folder / str(number + 1))
            memory.append(peak())
    far = distance(found[0], found[1]) if exact is None else exact.distance
    paired = compared(entries([folder / "1", folder / "2"])) if suite != "none" else []
    sizes = [path.stat().st_size for path in (first, second)]
    document = {
        "files": [str(first), str(second)],
        "sizes": sizes,
        "peak_memory": memory,
        "profiles": [{k: v for k, v in plain(one).items() if k != "places"} for one in found],
        "distance": plain(far),
        "choices": plain(paired),
    }
    alone, apart = _alone(found, memory, sizes), _apart(far, paired)
    rows = [*alone, *((name, "", "", f"{value}, Holm {p}" if p else value) for name, value, p in apart)]
    shown = Group(
        sink.table(["", first.name, second.name, "RATIO>"], alone),
        f"\n{second.name} against {first.name}",
        sink.table(["MEASURE", "VALUE>", "P (HOLM)>"], apart),
    )
    again = f"toolkit quant compare {first} {second}" + (f" --text {text}" if text else "")
    again += f" --engine {'server' if exact is None else 'llama-cpp-python'}"
    page = write_quant_report(folder, (first.name, second.name), rows, far, paired, document, again)
    sink.result(document | {"report": str(page)}, human=shown, quiet=str(page))
    sink.note(f"report: {page}")


def _in_process(engine: str) -> bool:
    """Whether llama-cpp-python reads the text. Raises UsageError if it is asked for and not there."""
    from agents.experiments.logits import available

    if engine not in ("auto", "server", "llama-cpp-python"):
        raise UsageError(f"{engine!r} reads no texts", hint="--engine auto, server or llama-cpp-python")
    if engine == "llama-cpp-python" and not available():
        raise UsageError("llama-cpp-python is not installed", hint="make llama-cpp-python, or --engine server")
    return engine != "server" and available()


def _exact(sink: Output, files: tuple[Path, Path], text: str, tokens: int, threads: int, scratch: Path) -> "Exact":
    from agents.experiments.logits import read_exactly

    with sink.progress("next tokens of both", total=None, unit="tokens") as bar:
        return read_exactly(*files, text, tokens=tokens, threads=threads, scratch=scratch, step=bar.reach)


def _speed(url: str, text: str) -> "Speed":
    from agents.experiments.quant import speed

    return asyncio.run(speed(url, text))


@contextmanager
def _served(path: Path, threads: int, log: Path) -> Iterator[tuple[str, Any]]:
    """A llama.cpp server on this file: its address, and a function that gives its peak memory in bytes."""
    from gateway.process import Child, free_port
    from gateway.settings import load_settings
    from gateway.upstreams.llamacpp import command, spec_for

    port = free_port()
    spec = spec_for(path, path.stem, load_settings(None), context=4096, slots=1, threads=threads, port=port)
    child = Child(path.stem, command(spec), log=log)
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health", timeout=300)
        yield f"http://127.0.0.1:{port}", lambda: _peak(child.pid)
    finally:
        child.stop()


def _peak(pid: int) -> int:
    """The most memory that a process and its children have held, where the system keeps that; else what they hold."""
    import psutil

    total = 0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
            total += int(status.split("VmHWM:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            held = process.memory_info()
            total += getattr(held, "peak_wset", held.rss)
    return total


def _profile(sink: Output, url: str, name: str, text: str, tokens: int) -> "Profile":
    from agents.experiments.quant import profile

    with sink.progress(f"{name}: next tokens", total=None, unit="tokens") as bar:
        return asyncio.run(profile(url, text, tokens=tokens, step=bar.reach))


def _choices(sink: Output, url: str, path: Path, suite: str, tasks: int | None, out: Path) -> None:
    from agents.experiments.experiment import Design, Experiment
    from agents.experiments.identity import digest
    from agents.experiments.run import run_experiment

    experiment = Experiment(models=[path.stem], suite=suite, tasks=tasks, mode="logprob", design=Design(repeats=0))
    with sink.progress(f"{path.name}: tool choice", total=None, unit="trials") as bar:
        asyncio.run(
            run_experiment(
                experiment,
                base_url=f"{url}/v1",
                api_key=None,
                out=out,
                direct={path.stem: url},
                identities={path.stem: digest(path)},
                concurrency=1,
                progress=bar.reach,
            )
        )


def _alone(found: "list[Profile]", memory: list[int], sizes: list[int]) -> list[tuple[str, ...]]:
    from toolkit.core.units import format_bytes

    one, other = found
    ratio = "x{:.2f}".format
    rows: list[tuple[str, ...]] = [
        ("file", *map(format_bytes, sizes), ratio(sizes[1] / sizes[0])),
        ("peak memory", *map(format_bytes, memory), ratio(memory[1] / memory[0])),
    ]
    for name, a, b in (
        ("prompt, tokens/s", one.prompt_speed, other.prompt_speed),
        ("reply, tokens/s", one.reply_speed, other.reply_speed),
    ):
        rows.append((name, *(f"{e.value:.0f} ({e.low:.0f} to {e.high:.0f})" for e in (a, b)), ratio(b.value / a.value)))
    perplexities = (one.perplexity, other.perplexity)
    rows.append(("perplexity", *(f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for e in perplexities), ""))
    return rows


def _apart(far: "Distance", paired: "list[Difference]") -> list[tuple[str, ...]]:
    from agents.experiments.wording import interval, p_text, points

    rows: list[tuple[str, ...]] = [("perplexity, paired", f"x{interval(far.perplexity_ratio, '.4f')}", "")]
    rows.append(("KL divergence, nats", ("" if far.exact else "at least ") + interval(far.divergence, ".4f"), ""))
    rows += [(f"same top {top} (Jaccard)", interval(estimate, ".4f"), "") for top, estimate in far.jaccard.items()]
    rows += [(d.measure, points(d.difference), p_text(d.holm)) for d in paired]
    return rows
