"""Draw the terminal pictures of the pages on Claude Code and OpenCode: `make pictures`.

Each client really runs, in a terminal of tmux's, connected to a gateway as its page says; what is on its screen at the
end becomes an SVG. The model behind the gateway is scripted, so that the same picture comes out each time. Needs tmux
and `make clients`.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gateway import supervisor
from gateway.process import free_port
from tests.conftest import only_builtin
from tests.gateway.clients.scripted_upstream import Body, Says, results, tool_names, upstream

IMAGES = Path(__file__).parent / "images"
PROGRAMS = Path(__file__).parents[1] / "tests" / "gateway" / "clients" / "node_modules"
CLIENTS = {
    "claude-code": ("claude", PROGRAMS / "claude-code-newest" / "bin" / "claude.exe"),
    "opencode": ("opencode", PROGRAMS / "opencode-ai" / "bin" / "opencode.exe"),
}
WIDTH, HEIGHT = 96, 30
PATIENCE = 240  # seconds
QUESTION = "How many lines does poem.txt have?"
ANSWER = "poem.txt has 2 lines."


def script(body: Body) -> Says:
    """Counts with the client's shell, then answers."""
    if results(body):
        return Says(ANSWER)
    shell = next((name for name in tool_names(body) if name.lower() == "bash"), None)
    if shell is None:
        return Says("Counting lines")  # asked for a title
    return Says(calls=((shell, {"command": "wc -l poem.txt", "description": "Count the lines"}),))


def main() -> None:
    """Write `images/CLIENT.svg` for both clients, or for those named."""
    named = sys.argv[1:] or list(CLIENTS)
    with tempfile.TemporaryDirectory() as folder, upstream(script) as model:
        os.environ["TOOLKIT_HOME"] = f"{folder}/toolkit"
        config = Path(folder, "gateway.yaml")
        config.write_text(f"models: [{{name: scripted, url: '{model.url}', context: 64k}}]\n", encoding="utf-8")
        flags = only_builtin() | {"gateway__port": free_port(), "discover__builtin": False}
        with supervisor.attached(config, flags, note=lambda _: None):
            for client in named:
                screen = run(client, Path(folder))
                (IMAGES / f"{client}.svg").write_text(drawn(screen, client), encoding="utf-8")


def run(client: str, folder: Path) -> str:
    """The screen of `client` after it has answered, with the terminal's colours."""
    program, binary = CLIENTS[client]
    home, project = folder / client, folder / client / "poems"
    for path in (project, home / "bin"):
        path.mkdir(parents=True)
    (project / "poem.txt").write_text("roses are red\nviolets are blue\n", encoding="utf-8")
    (home / "bin" / program).symlink_to(binary)
    # What a person has answered once, when the client was first started and first saw this folder.
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    answered = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(project): trusted}}
    (home / ".claude.json").write_text(json.dumps(answered), encoding="utf-8")
    environment = {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TOOLKIT_HOME": os.environ["TOOLKIT_HOME"],
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    }
    connect = [sys.executable, "-P", "-m", "toolkit.cli.main", "connect", client, "--model", "scripted"]
    subprocess.run(connect, env=environment, cwd=project, check=True, capture_output=True)
    allowed = ["--allowedTools", "Bash"] if client == "claude-code" else []
    terminal = Terminal(f"toolkit-pictures-{os.getpid()}", [program, *allowed], environment, project)
    try:
        terminal.wait_for("scripted")  # the model's name: it is ready
        terminal.type(QUESTION)
        terminal.wait_for(QUESTION)
        terminal.press("Enter")
        return terminal.wait_for(ANSWER)
    finally:
        terminal.close()


class Terminal:
    """A program in a terminal of tmux's, on a server of its own."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self._tmux = ["tmux", "-L", name, "-f", os.devnull]
        self._environment = dict(environment)
        line = shlex.join(command)
        self._do("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "-c", str(folder), line)

    def type(self, text: str) -> None:
        self._do("send-keys", "-l", text)

    def press(self, key: str) -> None:
        self._do("send-keys", key)

    def wait_for(self, text: str) -> str:
        """The screen once `text` stands on it and nothing moves any more."""
        deadline, before = time.monotonic() + PATIENCE, ""
        while time.monotonic() < deadline:
            screen = self._do("capture-pane", "-p", "-e", "-N")
            if text in Text.from_ansi(screen).plain and screen == before:
                return screen
            before = screen
            time.sleep(1)
        raise TimeoutError(f"{text!r} did not come:\n{before}")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _do(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout


def drawn(screen: str, client: str) -> str:
    """The screen as an SVG that loads nothing from anywhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    svg = console.export_svg(title=f"{CLIENTS[client][0]} on a model of the gateway", unique_id=client)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


if __name__ == "__main__":
    main()
