import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clients import edits, jsonc
from gateway.clients.edits import Edit, Include, Put
from gateway.clients.jsonc import JsoncError
from tests.gateway.clients.test_jsonc import KEYS, VALUES, texts

PUTS = st.builds(lambda path, value: Put(tuple(path), value), st.lists(KEYS, min_size=1, max_size=3), VALUES)
INCLUDES = st.builds(
    lambda path, items: Include(tuple(path), tuple(items)),
    st.lists(KEYS, min_size=1, max_size=2),
    st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
)
WISHES = st.lists(PUTS | INCLUDES, max_size=4)


@settings(max_examples=150)
@given(texts(), WISHES)
def test_whatever_is_applied_is_undone_to_the_byte(text: str, wishes: list[edits.Wish]) -> None:
    try:
        applied = edits.apply(text, wishes)
    except JsoncError:
        return
    assert edits.undo(applied.text, applied.edits) == (text, ())
    assert json.loads(json.dumps([list(edit.path) for edit in applied.edits])) is not None
    if not _overlap(wishes):
        assert edits.holds(applied.text, applied.edits)


@settings(max_examples=100)
@given(texts(), WISHES, VALUES)
def test_an_edit_by_hand_elsewhere_stays_and_all_else_is_as_before(
    text: str, wishes: list[edits.Wish], by_hand: Any
) -> None:
    try:
        applied = edits.apply(text, wishes)
    except JsoncError:
        return
    edited = jsonc.put(applied.text, ("by hand",), by_hand)
    undone = edits.undo(edited, applied.edits)
    assert undone.left == ()
    assert jsonc.parse(undone.text).value == {**jsonc.parse(text).value, "by hand": by_hand}


def _overlap(wishes: list[edits.Wish]) -> bool:
    paths = [wish.path for wish in wishes]
    return any(a[: len(b)] == b for number, a in enumerate(paths) for b in paths[:number] + paths[number + 1 :])


def test_a_value_of_ours_that_was_changed_by_hand_stays_and_is_named() -> None:
    applied = edits.apply('{"model": "opus"}', [Put(("model",), "gemma"), Put(("env", "A"), "1")])
    changed = applied.text.replace('"gemma"', '"qwen"')
    assert edits.undo(changed, applied.edits) == ('{"model": "qwen"}', ("model",))


def test_a_value_of_ours_that_was_removed_by_hand_is_no_trouble() -> None:
    applied = edits.apply('{"a": 1}', [Put(("env", "A"), "1"), Put(("env", "B"), "2")])
    assert edits.undo(jsonc.remove(applied.text, ("env", "B")), applied.edits) == ('{"a": 1}', ())
    assert edits.undo(jsonc.remove(applied.text, ("env",)), applied.edits) == ('{"a": 1}', ())


def test_what_was_added_by_hand_to_an_object_of_ours_stays() -> None:
    applied = edits.apply("{}", [Put(("env", "A"), "1"), Put(("env", "B"), "2")])
    added = jsonc.put(applied.text, ("env", "MINE"), "3")
    undone = edits.undo(added, applied.edits)
    assert (jsonc.parse(undone.text).value, undone.left) == ({"env": {"MINE": "3"}}, ())


def test_elements_of_ours_leave_a_list_that_was_changed_by_hand() -> None:
    applied = edits.apply('{"deny": ["X"]}', [Include(("deny",), ("A", "X", "B"))])
    assert jsonc.parse(applied.text).value == {"deny": ["X", "A", "B"]}
    by_hand = jsonc.append(applied.text, ("deny",), "MINE")
    assert edits.undo(by_hand, applied.edits) == ('{"deny": ["X", "MINE"]}', ())


def test_what_is_as_wished_already_is_no_edit() -> None:
    text = '{"a": {"b": [1, true]}, "l": [1]}'
    assert edits.apply(text, [Put(("a", "b"), [1, True]), Include(("l",), (1,))]) == (text, ())
    assert edits.apply(text, [Put(("a", "b"), [1, 1])]).edits == (Edit(("a", "b"), "[1, true]", [1, 1]),)


def test_edits_that_no_longer_stand_are_seen() -> None:
    applied = edits.apply("{}", [Put(("env", "A"), "1")])
    assert edits.holds(applied.text, applied.edits)
    assert edits.holds(jsonc.put(applied.text, ("env", "MINE"), "x"), applied.edits)
    assert not edits.holds(jsonc.put(applied.text, ("env", "A"), "2"), applied.edits)
    assert not edits.holds("{}", applied.edits)
