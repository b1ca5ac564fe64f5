"""How much memory a model takes and how much context fits. Pure arithmetic: architecture and sizes in, bytes out.

Formulas: llama.cpp's `llama-kv-cache-iswa.cpp` for the KV cache; the compute buffer was fitted to what llama.cpp
reports for made models (`python -m benchmarks fit_accuracy` prints both side by side).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from gateway.models.architecture import Architecture

# Bytes for one number of the cache: a block of 32 takes 64, 34 or 18 bytes.
KV_BYTES: Mapping[str, Fraction] = {"f16": Fraction(2), "q8_0": Fraction(34, 32), "q4_0": Fraction(18, 32)}
UBATCH = 512
PAD = 256
COMPUTE_UNKNOWN = 600 * 2**20  # for a catalogue entry that does not give its widths
MIN_CONTEXT = 1024


class Memory(NamedTuple):
    """Bytes, by what they are for."""

    weights: int
    projector: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.projector + self.kv + self.compute


@dataclass(frozen=True)
class Room:
    """Bytes a model may take on this machine: in RAM, in all GPUs together. One memory for both if `unified`."""

    ram: int
    vram: int = 0
    unified: bool = False


class Verdict(NamedTuple):
    """Whether it fits, and where: `gpu` wholly, `split` between GPU and RAM, `ram`, or `none`."""

    fits: bool
    where: str
    short: int


def kv_bytes(architecture: Architecture, context: int, *, slots: int = 1, kv: str = "f16") -> int:
    """Bytes of KV cache for `slots` requests of `context` tokens each.

    A global layer keeps every token; a sliding one keeps its window and one batch (`cells`).
    """
    cells = _padded(context)
    sliding = min(cells, _padded(architecture.window + UBATCH))
    numbers = sum(
        group.count * (group.k + group.v) * (sliding if group.sliding else cells) for group in architecture.layers
    )
    return int(numbers * slots * KV_BYTES[kv])


def compute_bytes(architecture: Architecture, context: int) -> int:
    """Bytes of the buffer for one batch in flight: activations, and an attention mask for each kind of cache.

    With flash attention, which llama.cpp turns on by itself wherever the backend has it.
    """
    if not architecture.width or not architecture.feed_forward:
        return COMPUTE_UNKNOWN
    batch = min(UBATCH, _padded(context))
    activations = max(
        3 * architecture.feed_forward + 5 * architecture.width,
        3 * architecture.query + architecture.width,
    )
    cells = _padded(context)
    masks = cells if any(not group.sliding for group in architecture.layers) else 0
    if any(group.sliding for group in architecture.layers):
        masks += min(cells, _padded(architecture.window + UBATCH))
    return batch * (4 * (activations + architecture.per_layer) + 2 * masks)


def memory(
    architecture: Architecture, weights: int, context: int, *, slots: int = 1, kv: str = "f16", projector: int = 0
) -> Memory:
    """What serving takes: `weights` and `projector` are the files' bytes, `context` is per slot."""
    return Memory(
        weights,
        projector,
        kv_bytes(architecture, context, slots=slots, kv=kv),
        compute_bytes(architecture, context),
    )


def verdict(need: Memory, room: Room) -> Verdict:
    """Where `need` fits. On a machine with its own GPU memory llama.cpp puts what fits there and the rest in RAM."""
    total = need.total
    if room.vram and not room.unified:
        if total <= room.vram:
            return Verdict(True, "gpu", 0)
        # Both sides hold a compute buffer once the model is split.
        over = total + need.compute - room.vram - room.ram
        return Verdict(over <= 0, "split" if over <= 0 else "none", max(0, over))
    over = total - room.ram
    where = ("gpu" if room.unified else "ram") if over <= 0 else "none"
    return Verdict(over <= 0, where, max(0, over))


def largest_context(
    architecture: Architecture,
    weights: int,
    room: Room,
    *,
    slots: int = 1,
    kv: str = "f16",
    projector: int = 0,
    gpu_only: bool = False,
) -> int:
    """The largest context per slot that fits, in steps of 256 and at most the trained one; 0 if not even 1,024 fits.

    Memory grows with context, so bisection finds it.
    """

    def fits(context: int) -> bool:
        found = verdict(memory(architecture, weights, context, slots=slots, kv=kv, projector=projector), room)
        return found.fits and (found.where == "gpu" or not gpu_only)

    most = architecture.context or 2**20
    if fits(most):
        return most
    low, high = 0, most // PAD
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle * PAD):
            low = middle
        else:
            high = middle
    return low * PAD if low * PAD >= min(MIN_CONTEXT, most) else 0


class Choice(NamedTuple):
    """One file that could be taken: its quantisation and bytes."""

    quant: str
    size: int


def best(
    choices: Sequence[Choice],
    architecture: Architecture,
    room: Room,
    context: int,
    *,
    slots: int = 1,
    kv: str = "f16",
    projector: int = 0,
) -> Choice | None:
    """The largest of `choices` that fits with this context; one that fits the GPU wholly is preferred."""
    ranked: list[tuple[bool, int, Choice]] = []
    for choice in choices:
        found = verdict(memory(architecture, choice.size, context, slots=slots, kv=kv, projector=projector), room)
        if found.fits:
            ranked.append((found.where == "gpu", choice.size, choice))
    return max(ranked)[2] if ranked else None


def _padded(tokens: int) -> int:
    return -(-tokens // PAD) * PAD
