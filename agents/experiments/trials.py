"""One trial, and the files in which trials are kept: `trials.jsonl`, one line each, and `manifest.json`, what they
belong to. A line is out of our hands before the next trial counts; a last line torn by a crash is cut off.
"""

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import TypeAdapter

from agents.experiments.experiment import Experiment
from agents.experiments.scoring import Outcome
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import write_text

T = TypeVar("T")

VERSION = 1
TRIALS = "trials.jsonl"
MANIFEST = "manifest.json"

Key = tuple[str, str, str, str, int]  # model, task, arm, step, repeat


@dataclass(frozen=True)
class Trial:
    """One question and what came of it.

    Indices count from 0 in `order`; `right_index` is None where any tool or none is right, `chosen_index` where no
    offered tool was chosen. `probabilities` (mode logprob) are those of the tools in `order`, `opening` that of a
    call at all. `called` is the name as the model wrote it. Latency is in seconds, cost in nano-dollars.
    """

    model: str
    task: str
    arm: str
    step: str
    repeat: int
    order: tuple[str, ...]
    groups: int
    target: str | None
    right: str
    right_index: int | None
    chosen: str | None
    chosen_index: int | None
    outcome: Outcome
    fits: bool | None
    calls: int
    called: str | None
    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int | None
    latency: float
    requests: int = 1
    probabilities: tuple[float, ...] | None = None
    opening: float | None = None
    time: str = ""

    @property
    def key(self) -> Key:
        return (self.model, self.task, self.arm, self.step, self.repeat)

    def line(self) -> str:
        return json.dumps({"v": VERSION, **asdict(self)}, ensure_ascii=False) + "\n"


_TRIAL = TypeAdapter(Trial)


class Line(Protocol):
    """What a journal keeps."""

    def line(self) -> str: ...


class Journal:
    """Appends trials (of any kind) to a file of lines. A context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, trial: Line) -> None:
        self._file.write(trial.line())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_trials(folder: Path) -> list[Trial]:
    """All trials in the folder; of several with one key the last counts (an error that was asked again)."""
    return list({trial.key: trial for trial in read_journal(folder / TRIALS, _TRIAL)}.values())


def read_journal(path: Path, kind: TypeAdapter[T]) -> list[T]:
    """Every whole line of a journal, as it stands there. Raises ToolkitError that names a line which is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path.parent} holds no {path.name}", hint=f"ls {path.parent}") from None
    whole, _, _torn = content.rpartition(b"\n")
    return [_parsed(line, path, number, kind) for number, line in enumerate(whole.split(b"\n") if whole else [], 1)]


def has_trials(folder: Path) -> bool:
    """Whether there is a file of trials."""
    return (folder / TRIALS).is_file()


@dataclass(frozen=True)
class Manifest:
    """What the trials of a folder belong to, and all that is needed to repeat them."""

    experiment: Experiment
    suite_digest: str
    tools_digest: str
    identities: Mapping[str, str]  # model -> digest of its file, where that is known
    about: Mapping[str, Any]

    @classmethod
    def new(
        cls, experiment: Experiment, suite_digest: str, tools_digest: str, identities: Mapping[str, str], base_url: str
    ) -> "Manifest":
        about = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "endpoint": base_url,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "versions": {name: version(name) for name in ("local-llm-toolkit", "numpy", "scipy", "httpx")},
            "command": " ".join(sys.argv[1:]),
        }
        return cls(experiment, suite_digest, tools_digest, dict(identities), about)

    def write(self, folder: Path) -> None:
        document = {
            "v": VERSION,
            "experiment": self.experiment.model_dump(mode="json"),
            "suite_digest": self.suite_digest,
            "tools_digest": self.tools_digest,
            "identities": dict(self.identities),
            "about": dict(self.about),
        }
        write_text(folder / MANIFEST, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises UsageError if there is none, or none that can be read."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(
            Experiment.model_validate(document["experiment"]),
            document["suite_digest"],
            document["tools_digest"],
            document["identities"],
            document["about"],
        )
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no experiment: there is no {MANIFEST}", hint=f"ls {folder}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no manifest of an experiment: {error}", hint=f"less {path}") from None


def continued(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest to go on with: the folder's, if it is of the same experiment, else `wanted`, now written.
    Raises UsageError that names the first difference."""
    if not (folder / MANIFEST).exists():
        if has_trials(folder):
            raise UsageError(f"{folder} holds trials without a manifest", hint="choose another folder with --out")
        wanted.write(folder)
        return wanted
    found = read_manifest(folder)
    before, now = found.experiment.model_dump(mode="json"), wanted.experiment.model_dump(mode="json")
    changed = [(f"the setting {name}", before[name], now[name]) for name in now if before[name] != now[name]]
    changed += differences(found, wanted)
    if changed:
        what, old, new = changed[0]
        raise UsageError(
            f"{folder} holds another experiment: {what} was {old}, now it is {new}",
            hint=f"--out {folder}-2, or repeat the old one with --from {folder}",
        )
    return found


def differences(before: Manifest, now: Manifest) -> list[tuple[str, str, str]]:
    """What an experiment asks about that is not as it was: its name, its old and its new digest."""
    compared = (
        (f"the suite {now.experiment.suite}", before.suite_digest, now.suite_digest),
        ("what the tools say of themselves", before.tools_digest, now.tools_digest),
        *(
            (f"the file of {model}", before.identities[model], digest)
            for model, digest in now.identities.items()
            if model in before.identities
        ),
    )
    return [(what, old[:12], new[:12]) for what, old, new in compared if old != new]


def _parsed(line: bytes, path: Path, number: int, kind: TypeAdapter[T]) -> T:
    try:
        if json.loads(line)["v"] != VERSION:
            raise ToolkitError(f"{path}: line {number} is of another version of the format", hint="toolkit --version")
        return kind.validate_json(line)
    except (ValueError, TypeError, KeyError):
        raise ToolkitError(f"{path}: line {number} is no trial", hint=f"sed -n {number}p {path}") from None


def _cut_torn_line(path: Path) -> None:
    """Make the file end at a line's end: what a crash tore is dropped, and that trial is asked again."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def outcomes(trials: Iterable[Trial]) -> dict[str, int]:
    """How often each outcome came up, in the order of scoring.OUTCOMES."""
    from agents.experiments.scoring import OUTCOMES

    held = list(trials)
    return {outcome: sum(trial.outcome == outcome for trial in held) for outcome in OUTCOMES}
