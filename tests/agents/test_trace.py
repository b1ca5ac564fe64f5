from pathlib import Path

import pytest

from agents.trace import FileTrace, read_trace
from toolkit.core.errors import UsageError


def written(path: Path) -> Path:
    with FileTrace(path) as trace:
        trace.write("start", task="Zähle\u2028mit \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))
        trace.write("end", answer=None)
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    first, last = read_trace(written(tmp_path / "new" / "trace.jsonl"))
    assert (first["v"], first["event"], first["task"]) == (1, "start", "Zähle\u2028mit 😀")
    assert first["time"] <= last["time"]


def test_half_a_surrogate_pair_does_not_break_a_trace(tmp_path: Path) -> None:
    with FileTrace(tmp_path / "t.jsonl") as trace:
        trace.write("reply", text="half \ud800")
    assert read_trace(tmp_path / "t.jsonl")[0]["text"] == "half \ud800"


def test_every_event_is_on_disk_before_the_next_thing_happens(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with FileTrace(path) as trace:
        trace.write("start")
        assert [event["event"] for event in read_trace(path)] == ["start"]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert [event["event"] for event in read_trace(path)] == ["start"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1 is not an event"),
        ("hello\n", "line 1 is not an event"),
        ('{"v": 1, "event": "start"}\n{"v": 1}\n', "line 2 is not an event"),
        ('{"v": 2, "event": "start"}\n', "has version 2"),
    ],
)
def test_what_is_no_trace_is_refused_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_trace(path)


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no trace"):
        read_trace(tmp_path / "none.jsonl")
