"""Whether a tool may be called. Knows the call and nothing of how tools run; who is asked, and where, is passed in."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agents.tool_host import Tool


class Approval(Protocol):
    """Says whether this call may be made. Asked for one call at a time, in the order of the calls."""

    def __call__(self, tool: Tool, arguments: Mapping[str, Any]) -> bool: ...


def auto(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Every call may be made."""
    return True


def never(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """No call may be made: the model only shows what it would have done."""
    return False


class Asking:
    """Asks a person for every call. `question` shows it and returns `yes`, `no`, or `always` for this tool."""

    def __init__(self, question: Callable[[Tool, Mapping[str, Any]], str]) -> None:
        self._question = question
        self._always: set[str] = set()

    def __call__(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        if tool.name in self._always:
            return True
        answer = self._question(tool, arguments)
        if answer == "always":
            self._always.add(tool.name)
        return answer in ("yes", "always")
