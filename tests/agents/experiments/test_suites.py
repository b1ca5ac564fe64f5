from collections.abc import Callable
from pathlib import Path

import pytest

from agents.experiments.suites import ANY, NONE, bundled_suites, load_suite
from agents.tool_host import Tool
from toolkit.core.errors import UsageError

Write = Callable[[str], str]

OWN = """
name: my-tools
tools:
  - {name: get_weather, description: Weather for a city, parameters: {city: Name of the city}}
  - {name: get_time, description: Local time in a city, parameters: {city: Name of the city}}
tasks:
  get_weather:
    - Do I need an umbrella in Oslo?
  get_time:
    - Is it late in Tokyo?
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


def refused(path: str) -> UsageError:
    with pytest.raises(UsageError) as error:
        load_suite(path)
    return error.value


@pytest.mark.parametrize("name", bundled_suites())
def test_every_suite_that_comes_with_the_toolkit_is_valid(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert len(suite.tasks) >= 60


def test_the_five_tool_suite_is_balanced_over_its_tools() -> None:
    suite = load_suite("five-tools")
    rights = [task.right for task in suite.tasks]
    assert len(rights) >= 120
    assert {rights.count(tool) for tool in suite.tasks[0].tools} == {len(rights) // 5}


def test_a_suite_of_ten_lines_says_it_all(write: Write) -> None:
    suite = load_suite(write(OWN))
    assert [(task.id, task.right) for task in suite.tasks] == [
        ("get_weather-01", "get_weather"),
        ("get_time-01", "get_time"),
    ]
    tool = suite.resolve([])[""]["get_time"]
    assert tool.parameters["required"] == ["city"]
    assert tool.parameters["properties"]["city"] == {"type": "string", "description": "Name of the city"}


def test_a_task_for_a_tool_that_is_not_offered_is_refused_with_those_that_are(write: Write) -> None:
    error = refused(write(OWN.replace("  get_time:\n", "  get_tim:\n")))
    assert "get_tim is none of the tools offered: get_weather, get_time" in error.message


def test_a_key_nobody_knows_is_refused_with_the_one_that_was_meant(write: Write) -> None:
    assert "did you mean tools?" in refused(write(OWN.replace("tools:", "tool:", 1))).message


def test_the_same_request_twice_is_refused(write: Write) -> None:
    error = refused(write(OWN + "    - Is it late in Tokyo?\n"))
    assert "'Is it late in Tokyo?' stands twice" in error.message


def test_a_tool_that_is_only_named_needs_a_server_that_offers_it(write: Write) -> None:
    text = "name: x\ntools: [a_tool, b_tool]\ntasks: {a_tool: [do it]}\n"
    assert "no server is named" in refused(write(text)).message
    suite = load_suite(write("servers: [web]\n" + text))
    with pytest.raises(UsageError, match="uses the tool b_tool, which no server of web offers; they offer a_tool"):
        suite.resolve([Tool("a_tool", "", {})])


@pytest.mark.parametrize("right", [ANY, NONE])
def test_any_and_none_are_labels_of_their_own(write: Write, right: str) -> None:
    suite = load_suite(write(OWN.replace("  get_time:\n", f"  {right}:\n")))
    assert suite.tasks[1].right == right


def test_a_share_of_a_suite_is_drawn_evenly_over_the_right_tools() -> None:
    drawn = load_suite("five-tools").draw(60)
    rights = [task.right for task in drawn.tasks]
    assert {rights.count(tool) for tool in set(rights)} == {12}


def test_a_suite_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert "there is no suite named five; there are" in refused("five").message
