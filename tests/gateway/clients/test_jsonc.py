import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clients import jsonc
from gateway.clients.jsonc import JsoncError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('\ufeff{"a": 1} // end\n', {"a": 1}),
        ('{"a": [1, 2,], /* x */ "b": {"c": null,},}', {"a": [1, 2], "b": {"c": None}}),
        (
            '// top\n{\r\n\t"u": "http://x//y /* no comment */", "e": "\\u00e4\\"" }',
            {"u": "http://x//y /* no comment */", "e": 'ä"'},
        ),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[-1.5e3, true, false]", [-1500.0, True, False]),
    ],
)
def test_json_with_comments_and_trailing_commas_is_read(text: str, value: Any) -> None:
    assert jsonc.parse(text).value == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1, column 1: it ends too early"),
        ('{"a": 1', "line 1, column 8: a comma or } is missing"),
        ('{\n  "a" 1\n}', "line 2, column 7: a colon is missing"),
        ("{\n  a: 1\n}", "line 2, column 3: a name in double quotes is missing"),
        ('{"a": }', "line 1, column 7: a value is missing"),
        ('{"a": 1 "b": 2}', "line 1, column 9: a comma or } is missing"),
        ('{"a": 1,, "b": 2}', "a name in double quotes is missing"),
        ("{} {}", "something follows the value"),
        ('{"a": 01}', "is no JSON value"),
        ('{"a": "x\ny"}', "a value is missing"),
        ('{"a": 1 /* x', "a comma or } is missing"),
        ("[" * 300, "nested more than 200 levels deep"),
        ("<<<<<<< HEAD", "a value is missing"),
    ],
)
def test_what_is_no_json_is_refused_by_line_and_column(text: str, where: str) -> None:
    with pytest.raises(JsoncError) as refused:
        jsonc.parse(text)
    assert where in refused.value.message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "n": {\n    "k": 1\n  }\n}'),
        ('{"a": 1}', '{"a": 1, "n": {"k": 1}}'),
        ('{"a": 1,}', '{"a": 1, "n": {"k": 1},}'),
        ('{\n  "a": 1\n}\n', '{\n  "a": 1,\n  "n": {\n    "k": 1\n  }\n}\n'),
        ('{\n    "a": 1, // why\n}', '{\n    "a": 1, // why\n    "n": {\n        "k": 1\n    },\n}'),
        ('{\n\t"a": 1 // why\n}', '{\n\t"a": 1, // why\n\t"n": {\n\t\t"k": 1\n\t}\n}'),
        ('{\r\n  "a": 1\r\n}', '{\r\n  "a": 1,\r\n  "n": {\r\n    "k": 1\r\n  }\r\n}'),
        ("{ // head\n  // inside\n}", '{ // head\n  // inside\n  "n": {\n    "k": 1\n  }\n}'),
        ('{\n  "n": {"k": 0, "l": 2}\n}', '{\n  "n": {"k": 1, "l": 2}\n}'),
        ('{\n  "n": {}\n}', '{\n  "n": {\n    "k": 1\n  }\n}'),
        ('{\n  "a": [1,\n 2] }', '{\n  "a": [1,\n 2],\n  "n": {\n    "k": 1\n  } }'),
    ],
)
def test_a_value_is_put_in_the_manner_of_its_surroundings(before: str, after: str) -> None:
    assert jsonc.put(before, ("n", "k"), 1) == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a": 1}', ("a",), "{}"),
        ('{"a": 1, "b": 2}', ("a",), '{ "b": 2}'),
        ('{"a": 1, "b": 2}', ("b",), '{"a": 1}'),
        ('{"a": 1, "b": 2,}', ("b",), '{"a": 1,}'),
        ('{\n  "a": 1, // one\n  "b": 2 // two\n}', ("b",), '{\n  "a": 1 // one\n // two\n}'),
        ('{\n  "a": 1, // one\n  "b": 2 }', ("b",), '{\n  "a": 1 // one\n }'),
        ('{\n  // about a\n  "a": 1,\n  "b": 2\n}', ("a",), '{\n  // about a\n  "b": 2\n}'),
        ('{"l": [1, 2, 3]}', ("l", 1), '{"l": [1, 3]}'),
        ('{"a": 1, "a": 2}', ("a",), '{"a": 1}'),
    ],
)
def test_a_value_is_removed_with_the_right_comma(before: str, path: jsonc.Path, after: str) -> None:
    assert jsonc.remove(before, path) == after
    jsonc.parse(after)


def test_a_value_cannot_be_put_into_what_is_no_object() -> None:
    with pytest.raises(JsoncError, match="env is not an object"):
        jsonc.put('{"env": "x"}', ("env", "A"), "1")
    with pytest.raises(JsoncError, match="the document is not an object"):
        jsonc.put("[]", ("env",), "1")


KEYS = st.sampled_from(["a", "b", "env", "deep", "ü\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "//", "/*", "x,}", '"\\']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
SPACE = st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t", " // n\n", "/* c */", "\n// x }\n", " /* ,\n */ "])


@st.composite
def texts(draw: st.DrawFn, value: Any = None) -> str:
    """A document as somebody may have written it: any space, any comment, any trailing comma."""
    document = draw(DOCUMENTS) if value is None else value

    def write(inner: Any) -> str:
        if isinstance(inner, dict) and not isinstance(inner, str):
            parts = [f"{draw(SPACE)}{json.dumps(key)}{draw(SPACE)}:{draw(SPACE)}{write(v)}" for key, v in inner.items()]
        elif isinstance(inner, list):
            parts = [f"{draw(SPACE)}{write(v)}" for v in inner]
        else:
            return json.dumps(inner)
        trailing = "," if parts and draw(st.booleans()) else ""
        body = f"{draw(SPACE)},".join(parts) + draw(SPACE) + trailing + draw(SPACE)
        return f"{{{body}}}" if isinstance(inner, dict) else f"[{body}]"

    return draw(SPACE) + write(document) + draw(SPACE)


@given(texts(), st.lists(KEYS, min_size=1, max_size=3), VALUES)
def test_what_is_put_is_there_and_all_else_is_as_it_was(text: str, path: list[str], value: Any) -> None:
    expected = json.loads(json.dumps(jsonc.parse(text).value))
    inner = expected
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
        if not isinstance(inner, dict):
            with pytest.raises(JsoncError):
                jsonc.put(text, tuple(path), value)
            return
    inner[path[-1]] = value
    assert jsonc.parse(jsonc.put(text, tuple(path), value)).value == expected


@given(texts(), st.data())
def test_what_is_removed_is_gone_and_all_else_is_as_it_was(text: str, data: st.DataObject) -> None:
    expected = jsonc.parse(text).value
    if not expected:
        return
    path = [data.draw(st.sampled_from(sorted(expected)))]
    inner = expected
    while isinstance(inner[path[-1]], dict | list) and inner[path[-1]] and data.draw(st.booleans()):
        inner = inner[path[-1]]
        path.append(data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))))
    del inner[path[-1]]
    assert jsonc.parse(jsonc.remove(text, tuple(path))).value == expected
