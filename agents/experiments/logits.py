"""The distance between two quantisations over the whole vocabulary, from llama-cpp-python in this process: one pass for
each stretch of text gives every next token's probability at every place of it. Knows nothing of servers.

The first file's log probabilities wait in a file while the second is read, so that one model is in memory at a time.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.experiments.inference import Estimate, cluster_mean
from agents.experiments.quant import SKIP, TOPS, WINDOW, Distance, exponential, windows_of
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.units import format_bytes

Logprobs = npt.NDArray[np.float32]  # places x vocabulary
PLACES = WINDOW - SKIP  # of a window
LEAST = -1e4  # log probability of what a model rules out, so that no infinity enters a mean


class Exact(NamedTuple):
    """What both files say of one text, token by token."""

    perplexities: tuple[Estimate, Estimate]
    distance: Distance


class Measured(NamedTuple):
    """One window in both files, averaged over its places: losses in nats, divergence, overlap by `TOPS`."""

    losses: tuple[float, float]
    divergence: float
    jaccard: tuple[float, ...]


def available() -> bool:
    """Whether llama-cpp-python is installed."""
    return find_spec("llama_cpp") is not None


def read_exactly(
    first: Path,
    second: Path,
    text: str,
    *,
    tokens: int = 2048,
    threads: int = 0,
    scratch: Path,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Exact:
    """Compare two files on `text`. `scratch` is a folder for the first one's probabilities: four bytes for each token
    of the vocabulary at each place, deleted at the end.

    Raises UsageError if the files cut the text into different tokens, ToolkitError if one cannot be loaded or there
    is no room in `scratch`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        with _loaded(first, threads) as model:
            windows = windows_of(_tokens(model, text)[:tokens])
            total = 2 * len(windows) * PLACES
            kept = _room(Path(folder), (len(windows), PLACES, model.n_vocab()))
            for number, window in enumerate(windows):
                kept[number] = _logprobs(model, window, first)
                step((number + 1) * PLACES, total)
        with _loaded(second, threads) as model:
            if model.n_vocab() != kept.shape[2] or windows_of(_tokens(model, text)[:tokens]) != windows:
                raise UsageError(
                    "the two files do not share a tokenizer, so their tokens cannot be compared",
                    hint="compare two quantisations of one model",
                )
            found = []
            for number, window in enumerate(windows):
                found.append(measure(kept[number], _logprobs(model, window, second), window[SKIP:]))
                step((len(windows) + number + 1) * PLACES, total)
        del kept
    return summed(found)


def measure(one: Logprobs, other: Logprobs, actual: Sequence[int]) -> Measured:
    """One window: log probabilities of both files, and the tokens that really come."""
    rows = np.arange(len(actual))
    losses = (-float(one[rows, actual].mean()), -float(other[rows, actual].mean()))
    divergence = np.sum(np.exp(one) * (one - other), axis=1, dtype=np.float64)
    most = min(max(TOPS), one.shape[1])
    ranked, ranked_other = _likeliest(one, most), _likeliest(other, most)
    jaccard = tuple(
        float(np.mean([_overlap(a[:top], b[:top]) for a, b in zip(ranked, ranked_other, strict=True)])) for top in TOPS
    )
    return Measured(losses, max(0.0, float(divergence.mean())), jaccard)


def summed(windows: Sequence[Measured]) -> Exact:
    """Means over windows, with intervals."""
    one, other = (np.array([window.losses[side] for window in windows]) for side in (0, 1))
    jaccard = {
        top: cluster_mean(np.array([window.jaccard[place] for window in windows])) for place, top in enumerate(TOPS)
    }
    return Exact(
        (exponential(cluster_mean(one)), exponential(cluster_mean(other))),
        Distance(
            jaccard=jaccard,
            divergence=cluster_mean(np.array([window.divergence for window in windows])),
            perplexity_ratio=exponential(cluster_mean(other - one)),
            windows=len(windows),
            places=len(windows) * PLACES,
            exact=True,
        ),
    )


def log_softmax(logits: Logprobs) -> Logprobs:
    """Log probabilities of each row, not below `LEAST`; NaN where a row has one."""
    above = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - above).sum(axis=1, keepdims=True, dtype=np.float64)
    found: Logprobs = np.maximum(logits - (above + np.log(total)), LEAST).astype(np.float32)
    return found


def _likeliest(logprobs: Logprobs, most: int) -> npt.NDArray[np.intp]:
    """The `most` likeliest tokens of each place, best first."""
    chosen = np.argpartition(-logprobs, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(logprobs, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _overlap(one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> float:
    both = len(set(one.tolist()) & set(other.tolist()))
    return both / (len(one) + len(other) - both)


def _room(folder: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """An array in a file of `folder`."""
    size = int(np.prod(shape)) * 4
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ToolkitError(
            f"the first file's probabilities take {format_bytes(size)} in {folder.parent}, and {format_bytes(free)} "
            "are free",
            hint="--tokens with a smaller number, or --engine server",
        )
    return np.memmap(folder / "logprobs.f32", dtype=np.float32, mode="w+", shape=shape)


@contextmanager
def _loaded(path: Path, threads: int) -> Iterator[Any]:
    """The file in llama.cpp, with logits for every token of a window."""
    try:
        import llama_cpp
    except (ImportError, OSError) as error:  # OSError: its library is there and cannot be loaded
        raise UsageError(f"llama-cpp-python cannot be used: {error}", hint="--engine server") from None
    more = {"n_threads": threads, "n_threads_batch": threads} if threads else {}
    try:
        model = llama_cpp.Llama(
            str(path),
            n_ctx=WINDOW,
            n_batch=WINDOW,
            n_ubatch=WINDOW,
            n_gpu_layers=-1,
            logits_all=True,
            verbose=False,
            **more,
        )
    except ValueError as error:
        raise ToolkitError(
            f"llama-cpp-python cannot load {path} ({error}): its llama.cpp may be older than the model",
            hint="--engine server",
        ) from None
    try:
        yield model
    finally:
        model.close()


def _tokens(model: Any, text: str) -> list[int]:
    return [int(token) for token in model.tokenize(text.encode("utf-8"), add_bos=False, special=False)]


def _logprobs(model: Any, window: Sequence[int], path: Path) -> Logprobs:
    """Log probabilities over the vocabulary at the places of a window of which something is asked."""
    model.reset()
    model.eval(list(window))
    found = log_softmax(model.scores[SKIP - 1 : WINDOW - 1])  # what follows a token stands in that token's row
    if np.isnan(found).any():
        raise ToolkitError(
            f"the probabilities of {path.name} are not numbers: the file is damaged",
            hint=f"toolkit models verify {path}",
        )
    return found
