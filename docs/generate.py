"""Write the generated pages: the command reference. `make docs`; a test fails when a page has drifted."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from typer.main import get_command

from toolkit.cli.main import NOUNS

REFERENCE = Path(__file__).parent / "commands.md"


def reference() -> str:
    """The command reference as Markdown: every command with its usage, arguments and options."""
    parts = [
        "# Commands",
        "Written by `make docs` from the commands themselves.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C. Data goes to stdout, everything else to stderr.",
    ]
    for noun, about in NOUNS.items():
        noun_app = import_module(f"toolkit.cli.{noun}").app
        noun_app._add_completion = False
        parts.append(f"## toolkit {noun}\n\n{about}.")
        parts.extend(_pages(get_command(noun_app), f"toolkit {noun}"))
    return "\n\n".join(parts) + "\n"


def _pages(command: Any, path: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner:
        for name, sub in inner.items():
            yield from _pages(sub, f"{path} {name}")
        return
    context = command.make_context(
        path, [], resilient_parsing=True, terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    context.info_name = path
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"```text\n{text}\n```"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
