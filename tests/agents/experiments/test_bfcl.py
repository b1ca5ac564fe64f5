import json
from pathlib import Path
from typing import Any

import pytest

from agents.experiments.bfcl import import_bfcl
from agents.experiments.suites import NONE
from toolkit.core.errors import UsageError


def function(name: str, **properties: str) -> dict[str, Any]:
    """A function as the leaderboard writes it."""
    inner = {key: {"type": kind, "description": key} for key, kind in properties.items()}
    return {
        "name": name,
        "description": f"Does {name}.",
        "parameters": {"type": "dict", "properties": inner, "required": list(inner)},
    }


def lines(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries), encoding="utf-8")
    return path


def question(identity: str, *functions: dict[str, Any], turns: int = 1) -> dict[str, Any]:
    ask = [{"role": "user", "content": f"please {identity}"}]
    return {"id": identity, "question": [ask] * turns, "function": list(functions)}


def test_questions_answers_and_types_come_over(tmp_path: Path) -> None:
    asked = lines(
        tmp_path / "q.json", question("m_0", function("tri.area", a="float", tags="tuple"), function("circle"))
    )
    answers = lines(tmp_path / "a.json", {"id": "m_0", "ground_truth": [{"tri.area": {"a": [5]}}]})
    found = import_bfcl(asked, answers, "trial")
    (task,) = found.suite.tasks
    assert (task.id, task.ask, task.right, task.tools) == ("m_0", "please m_0", "tri_area", ("tri_area", "circle"))
    schema = found.suite.resolve([])["m_0"]["tri_area"].parameters
    assert schema["type"] == "object"
    assert schema["properties"]["a"]["type"] == "number"
    assert schema["properties"]["tags"]["type"] == "array"


def test_without_answers_no_tool_is_right(tmp_path: Path) -> None:
    asked = lines(tmp_path / "q.json", question("irrelevance_0", function("bmi")))
    assert import_bfcl(asked, None, "none").suite.tasks[0].right == NONE


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    asked = lines(
        tmp_path / "q.json",
        question("m_0", function("a"), function("b")),
        question("m_1", function("a"), function("b"), turns=2),
        question("m_2", function("x.y"), function("x_y")),
        question("m_3", function("a"), function("b")),
    )
    truth = [{"id": f"m_{n}", "ground_truth": [{"a" if n < 3 else "zzz": {}}]} for n in range(4)]
    found = import_bfcl(asked, lines(tmp_path / "a.json", *truth), "trial")
    assert [task.id for task in found.suite.tasks] == ["m_0"]
    assert found.left_out == [
        "m_1: it has several turns",
        "m_2: two of its functions have one name",
        "m_3: its answer, zzz, is none of its functions",
    ]


def test_a_file_of_another_kind_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1 has no id and question"):
        import_bfcl(lines(tmp_path / "q.json", {"hello": 1}), None, "x")
