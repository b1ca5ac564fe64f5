"""Read the header of a GGUF file: metadata and the table of tensors. Knows nothing of tensors' contents or of the net.

The bytes may come from anywhere (`read(offset, size)`), and the file may be hostile: every length is checked
against what the file can hold before it is used. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.core.errors import ToolkitError
from toolkit.core.units import format_bytes

MAGIC = b"GGUF"
MAX_HEADER = 512 * 2**20  # the largest seen in the wild hold a vocabulary of 262,144 and stay below 20 MiB
MAX_ENTRIES = 65_536
MAX_TENSORS = 262_144
MAX_KEY = 65_535
MAX_DIMENSIONS = 4
SPLIT = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)  # a part: stem, its number, how many
KEPT_ELEMENTS = 4_096  # of an array of numbers: per-layer values are kept, vocabularies only counted

# GGUF's value types: struct code by number; 8 is text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


class Block(NamedTuple):
    """How a tensor type stores numbers: `elements` of them take `size` bytes."""

    name: str
    elements: int
    size: int


# ggml's tensor types by number (ggml.h, ggml-common.h). Missing numbers were withdrawn, or never stand in files.
BLOCKS = {
    0: Block("F32", 1, 4),
    1: Block("F16", 1, 2),
    2: Block("Q4_0", 32, 18),
    3: Block("Q4_1", 32, 20),
    6: Block("Q5_0", 32, 22),
    7: Block("Q5_1", 32, 24),
    8: Block("Q8_0", 32, 34),
    10: Block("Q2_K", 256, 84),
    11: Block("Q3_K", 256, 110),
    12: Block("Q4_K", 256, 144),
    13: Block("Q5_K", 256, 176),
    14: Block("Q6_K", 256, 210),
    15: Block("Q8_K", 256, 292),
    16: Block("IQ2_XXS", 256, 66),
    17: Block("IQ2_XS", 256, 74),
    18: Block("IQ3_XXS", 256, 98),
    19: Block("IQ1_S", 256, 50),
    20: Block("IQ4_NL", 32, 18),
    21: Block("IQ3_S", 256, 110),
    22: Block("IQ2_S", 256, 82),
    23: Block("IQ4_XS", 256, 136),
    24: Block("I8", 1, 1),
    25: Block("I16", 1, 2),
    26: Block("I32", 1, 4),
    27: Block("I64", 1, 8),
    28: Block("F64", 1, 8),
    29: Block("IQ1_M", 256, 56),
    30: Block("BF16", 1, 2),
    34: Block("TQ1_0", 256, 54),
    35: Block("TQ2_0", 256, 66),
    39: Block("MXFP4", 32, 17),
}


class NotGguf(ToolkitError):
    """The bytes are no GGUF file, a damaged one, or one cut short. `message` says which."""


@dataclass(frozen=True)
class Skipped:
    """An array too long to keep: how many elements it has."""

    elements: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: dimensions with the fastest first, its type, where its data starts (absolute) and how long it is."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensor data."""

    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def own(self, key: str, default: Any = None) -> Any:
        """The value of `{architecture}.{key}`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def context_length(self) -> int | None:
        """The longest context the model was trained for, or None if the file does not say."""
        value = self.own("context_length")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def size(self) -> int:
        """How long the file must be for all its tensors to be there, in bytes."""
        return max((tensor.offset + tensor.size for tensor in self.tensors), default=self.data_offset)


Read = Callable[[int, int], bytes]


def read_file(path: Path) -> Header:
    """The header of the file at `path`, checked against the file's real length.

    Raises NotGguf with a sentence that says what is wrong with the file.
    """
    hint = "name another file, or pull the model again: toolkit models list"
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise NotGguf(f"{path} is a folder, not a GGUF file", hint=f"ls {path}")
        if size < 24:
            raise NotGguf(f"{path} is no GGUF file: it has {size} bytes", hint=f"ls -l {path}")
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            header = parse(lambda offset, count: mapped[offset : offset + count], size)
    except FileNotFoundError:
        raise NotGguf(f"there is no file {path}", hint=f"ls {path.parent}") from None
    except OSError as error:
        raise NotGguf(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {path}") from None
    except NotGguf as error:
        if error.hint:
            raise
        raise NotGguf(f"{path} {error.message}", hint=hint) from None
    if header.size > size:
        raise NotGguf(
            f"{path} is cut short: its header promises {header.size:,} bytes, it has {size:,}",
            hint=f"toolkit models pull the model again, or remove the file: rm {path}",
        )
    return header


def split_of(path: Path) -> list[Path]:
    """The parts of a split model that `path` is one of, in order; only `path` itself if it is no part."""
    split = SPLIT.match(path.name)
    if split is None:
        return [path]
    return [path.with_name(f"{split[1]}-{number:05d}-of-{split[3]}.gguf") for number in range(1, int(split[3]) + 1)]


def parse(read: Read, size: int, *, stop_at_vocabulary: bool = False) -> Header:
    """The header in a file of `size` bytes, of which `read(offset, count)` gives any part (shorter only at the end).

    `stop_at_vocabulary` ends before the first `tokenizer.` key, where headers become long: no tensors then.
    Raises NotGguf; its message is a predicate ("is no GGUF file: ...") for the caller to put a name before.
    """
    cursor = _Cursor(read, min(size, MAX_HEADER))
    if cursor.take(4) != MAGIC:
        raise NotGguf("is no GGUF file: it does not start with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        if version in (0x02000000, 0x03000000):
            raise NotGguf("is a GGUF file for big-endian machines")
        raise NotGguf(f"has GGUF version {version}, and only 2 and 3 are known")
    tensor_count, entry_count = cursor.number("Q"), cursor.number("Q")
    if entry_count > MAX_ENTRIES or tensor_count > MAX_TENSORS:
        raise NotGguf(f"has a broken header: it claims {entry_count:,} entries and {tensor_count:,} tensors")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.text(MAX_KEY)
        if stop_at_vocabulary and key.startswith("tokenizer."):
            return Header(version, metadata, (), cursor.at)
        if key in metadata:
            raise NotGguf(f"has a broken header: {key} stands in it twice")
        metadata[key] = cursor.value()
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 2**20:
        raise NotGguf(f"has a broken header: its alignment is {alignment!r}")
    relative = [_tensor(cursor) for _ in range(tensor_count)]
    start = -(-cursor.at // alignment) * alignment
    if any(tensor.offset % alignment for tensor in relative):
        raise NotGguf("has a broken header: a tensor does not stand on the alignment")
    tensors = tuple(Tensor(t.name, t.shape, t.type, start + t.offset, t.size) for t in relative)
    return Header(version, metadata, tensors, start)


def _tensor(cursor: "_Cursor") -> Tensor:
    name = cursor.text(MAX_KEY)
    dimensions = cursor.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise NotGguf(f"has a broken header: tensor {name[:64]!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    kind, offset = cursor.number("I"), cursor.number("Q")
    block = BLOCKS.get(kind)
    if block is None:
        raise NotGguf(f"holds tensors of type {kind}, which is not known here")
    elements = 1
    for length in shape:
        elements *= length
    if elements >= 2**62 or offset >= 2**62 or (shape and shape[0] % block.elements):
        raise NotGguf(f"has a broken header: tensor {name[:64]!r} has an impossible shape")
    return Tensor(name, shape, block.name, offset, elements // block.elements * block.size)


class _Cursor:
    """Reads forward, in pieces, and never past `end`."""

    PIECE = 2**16

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._piece = b""
        self._start = 0
        self.at = 0

    def take(self, count: int) -> bytes:
        self._need(count)
        begin = self.at - self._start
        if begin + count > len(self._piece):
            self._piece = self._read(self.at, min(max(count, self.PIECE), self._end - self.at))
            self._start, begin = self.at, 0
            if len(self._piece) < count:
                raise self._short()
        self.at += count
        return self._piece[begin : begin + count]

    def skip(self, count: int) -> None:
        self._need(count)
        self.at += count
        if not 0 <= self.at - self._start <= len(self._piece):
            self._piece, self._start = b"", self.at

    def number(self, code: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def text(self, most: int = MAX_HEADER) -> str:
        length = self.number("Q")
        if length > most:
            raise NotGguf(f"has a broken header: a text of {length:,} bytes stands in it")
        return self.take(length).decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _ARRAY:
            return self._array(depth=0)
        return self._one(kind)

    def _one(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        code = _SCALARS.get(kind)
        if code is None:
            raise NotGguf(f"has a broken header: there is no value type {kind}")
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def _array(self, depth: int) -> Any:
        kind, count = self.number("I"), self.number("Q")
        if kind == _ARRAY:
            if depth >= 2:
                raise NotGguf("has a broken header: arrays in arrays in arrays")
            self._need(count * 12)
            return [self._array(depth + 1) for _ in range(count)] if count <= KEPT_ELEMENTS else self._refuse(count)
        if kind == _TEXT:
            self._need(count * 8)
            if count <= KEPT_ELEMENTS // 16:
                return [self.text() for _ in range(count)]
            self._skip_texts(count)
            return Skipped(count)
        code = _SCALARS.get(kind)
        if code is None:
            raise NotGguf(f"has a broken header: there is no value type {kind}")
        width = struct.calcsize("<" + code)
        if count > KEPT_ELEMENTS:
            self.skip(count * width)
            return Skipped(count)
        return list(struct.unpack(f"<{count}{code}", self.take(count * width)))

    def _skip_texts(self, count: int) -> None:
        """Pass over `count` texts. Vocabularies have hundreds of thousands: what fits the piece is done at once."""
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self.take(8)  # fetches a piece if there is none, and raises at the end
            self.at -= 8
            begin, last = self.at - self._start, len(self._piece) - 8
            while count and begin <= last:
                begin += 8 + length_at(self._piece, begin)[0]
                count -= 1
            self.skip(begin - (self.at - self._start))

    def _refuse(self, count: int) -> Any:
        raise NotGguf(f"has a broken header: an array of {count:,} arrays stands in it")

    def _need(self, count: int) -> None:
        if count > self._end - self.at:
            raise self._short()

    def _short(self) -> NotGguf:
        if self._end == MAX_HEADER:
            return NotGguf(f"has a header longer than {format_bytes(MAX_HEADER)}")
        return NotGguf("is cut short or broken: it ends within its header")
