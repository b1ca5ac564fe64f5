"""GGUF headers: real ones, damaged ones, hostile ones."""

import struct
import tracemalloc
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._made_models import KINDS, write
from gateway.models import gguf
from gateway.models.gguf import NotGguf, Skipped, parse, read_file


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(KINDS["gemma4"], tmp_path_factory.mktemp("made") / "gemma4.gguf")


def parse_bytes(content: bytes) -> gguf.Header:
    return parse(lambda offset, count: content[offset : offset + count], len(content))


def test_it_reads_what_the_reference_reader_reads(made: Path) -> None:
    header, known = read_file(made), reference.GGUFReader(made)
    assert header.size == made.stat().st_size
    assert [(t.name, t.type, t.offset, t.size) for t in header.tensors] == [
        (t.name, t.tensor_type.name, t.data_offset, t.n_bytes) for t in known.tensors
    ]
    for name, value in header.metadata.items():
        expected = known.fields[name].contents()
        assert len(expected) == value.elements if isinstance(value, Skipped) else value == expected


def test_every_tensor_type_has_the_size_the_reference_gives_it() -> None:
    for number, block in gguf.BLOCKS.items():
        kind = reference.GGMLQuantizationType(number)
        assert (kind.name, *reference.GGML_QUANT_SIZES[kind]) == block


def test_only_the_beginning_is_read_when_the_vocabulary_is_not_wanted(made: Path) -> None:
    content, asked = made.read_bytes(), []

    def read(offset: int, count: int) -> bytes:
        asked.append(offset + count)
        return content[offset : offset + count]

    header = parse(read, len(content), stop_at_vocabulary=True)
    assert header.own("attention.sliding_window") == 512
    assert max(asked) <= 2**16


def entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def whole(*entries: bytes, tensors: bytes = b"", count: int = 0, claimed: int | None = None) -> bytes:
    start = b"GGUF" + struct.pack("<IQQ", 3, count, len(entries) if claimed is None else claimed)
    return start + b"".join(entries) + tensors


HUGE = 2**63 - 1
HOSTILE = {
    "no magic": b"PK\x03\x04" + bytes(100),
    "version 1": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "a million million entries": whole(claimed=10**12),
    "more tensors than bytes": whole(count=2**40),
    "a text longer than the file": whole(entry("a", 8, struct.pack("<Q", HUGE))),
    "a key longer than the file": whole(struct.pack("<Q", HUGE)),
    "an array of more numbers than the file has bytes": whole(entry("a", 9, struct.pack("<IQ", 10, HUGE))),
    "an array of more texts than the file has bytes": whole(entry("a", 9, struct.pack("<IQ", 8, HUGE))),
    "arrays in arrays": whole(entry("a", 9, struct.pack("<IQ", 9, 1) * 20)),
    "an array of arrays without end": whole(entry("a", 9, struct.pack("<IQ", 9, HUGE))),
    "an unknown type": whole(entry("a", 77, b"")),
    "the same key twice": whole(entry("a", 0, b"\1"), entry("a", 0, b"\1")),
    "no alignment": whole(entry("general.alignment", 4, struct.pack("<I", 0))),
    "a tensor of 2^64 elements": whole(
        tensors=struct.pack("<Q", 1) + b"t" + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0), count=1
    ),
    "a tensor of 9 dimensions": whole(tensors=struct.pack("<Q", 1) + b"t" + struct.pack("<I", 9) + bytes(90), count=1),
    "a tensor of an unknown type": whole(
        tensors=struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 32, 999, 0), count=1
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused_without_being_believed(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotGguf):
            parse_bytes(content)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=200)
@given(data=st.data())
def test_a_header_with_any_bytes_changed_is_read_or_refused_never_worse(made: Path, data: st.DataObject) -> None:
    content = bytearray(made.read_bytes()[:8000])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 2000))] = data.draw(st.integers(0, 255))
    with pytest.raises(NotGguf):
        parse_bytes(bytes(content))  # it is cut short in any case


def test_a_tensor_beyond_the_end_is_noticed_by_its_promise(made: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(made.read_bytes()[:-1])
    with pytest.raises(NotGguf, match=r"promises [\d,]+ bytes, it has"):
        read_file(cut)


def test_a_folder_an_empty_file_and_a_missing_one_are_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for path, said in ((tmp_path, "is a folder"), (empty, "it has 0 bytes"), (tmp_path / "no", "there is no file")):
        with pytest.raises(NotGguf, match=said):
            read_file(path)
