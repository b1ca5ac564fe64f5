"""The real clients, headless, through the real gateway: Claude Code in two versions, and OpenCode.

Only loopback is used. Most upstreams are scripted, since what the clients do with an exact answer is what matters; the
built-in model answers each client once for real. `make clients` installs them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gguf import GGUFReader

from gateway import supervisor
from gateway.clients import client_key
from gateway.keys.spend import By, report
from gateway.keys.store import open_store
from gateway.models.builtin import BALANCED
from gateway.process import free_port
from gateway.settings import load_settings
from tests.conftest import isolate, only_builtin
from tests.gateway.clients.door import door
from tests.gateway.clients.scripted_ollama import TAG, ollama
from tests.gateway.clients.scripted_upstream import Body, Says, Upstream, results, tool_names, upstream
from tests.mcp_servers.calls import CALLS, Call, compact, options, services
from tests.mcp_servers.stand_ins import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

MODULES = Path(__file__).with_name("node_modules")
PROGRAMS = {
    "claude-code 2.1.197": MODULES / "claude-code-pinned" / "bin" / "claude.exe",
    "claude-code 2.1.330": MODULES / "claude-code-newest" / "bin" / "claude.exe",
    "opencode 1.18.33": MODULES / "opencode-ai" / "bin" / "opencode.exe",
}
BUILTIN = "toolkit-tiny"
AT_ONCE = 10  # seconds from a client's first request, so that its own start on a busy machine does not count
QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "MCP_CONNECTION_NONBLOCKING": "0",
}


@dataclass(frozen=True)
class Running:
    """The gateway the clients talk to, and what answers behind the model `scripted`."""

    home: Path
    url: str
    upstream: Upstream
    ollama: Upstream

    def written_by(self, model: str) -> int:
        """Tokens that `model` has written so far, as the key store counts."""
        with pytest.MonkeyPatch.context() as patch:
            isolate(self.home, patch)
            with open_store(load_settings().keys.url) as store:
                return sum(line.completion_tokens for line in report(store, by=By.MODEL) if line.name == model)

    def stored(self, name: str, **limits: int) -> Path:
        """Make the key of a client by hand, with limits that `connect` does not set, where `connect` finds it."""
        with pytest.MonkeyPatch.context() as patch:
            isolate(self.home, patch)
            with open_store(load_settings().keys.url) as store:
                client_key.drop(store, name)
                path = client_key.ensure(store, name).path
                if limits:
                    store.delete(name)
                    path.write_text(store.create(name, **limits).secret, encoding="utf-8")
        return path


@dataclass(frozen=True)
class Client:
    """One client in a fresh home and an empty project."""

    name: str
    home: Path
    project: Path
    environment: dict[str, str]

    def toolkit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-P", "-m", "toolkit.cli.main", *arguments)

    def launch(self, question: str, *options: str, model: str = "scripted", lean: bool = False) -> str:
        """What it prints when launched on the gateway."""
        flags = ["--lean"] if lean else []
        done = self.toolkit("launch", self.name, "--model", model, *flags, "--", *self.asking(question, *options))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, gateway: Running) -> str:
        """What is on its screen when the gateway refuses it; it has ended `AT_ONCE` seconds after it first asked."""
        with door(gateway.url) as entry:
            for path in self.settings():
                path.write_text(path.read_text(encoding="utf-8").replace(gateway.url, entry.url), encoding="utf-8")
            done = self.run(*_program(self), *self.asking("say hello"), timeout=120)
            ended = time.monotonic()
        assert entry.first is not None, done.stdout + done.stderr
        assert ended - entry.first < AT_ONCE, done.stdout + done.stderr
        return done.stdout + done.stderr

    def settings(self) -> list[Path]:
        """The files that `connect` has written."""
        return [path for path in self.home.rglob("*") if path.name in ("settings.json", "opencode.json")]

    def asking(self, question: str, *options: str) -> list[str]:
        """The client's own arguments for one question without a terminal."""
        return ["-p", question, *options] if self.name == "claude-code" else ["run", "--title", "x", question]

    def run(self, *command: str, timeout: float = 170) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clients-gateway")
    with (
        upstream(lambda body: Says("hello from the script")) as scripted,
        ollama(lambda body: Says()) as at_ollama,
        pytest.MonkeyPatch.context() as patch,
    ):
        isolate(folder, patch)
        config = folder / "gateway.yaml"
        config.write_text(
            "models:\n"
            f"  - {{name: scripted, url: '{scripted.url}', context: 64k}}\n"
            f"  - {{name: at-ollama, ollama: '{TAG}', context: 64k}}\n"
            f"  - {{name: {BUILTIN}, gguf: '{_widened(folder)}', context: 16k, max_output: 256, threads: 1, "
            "slots: 1}\n"
            f"  - {{name: gone, url: 'http://127.0.0.1:{free_port()}', upstream_name: x, context: 64k}}\n",
            encoding="utf-8",
        )
        flags = only_builtin() | {
            "gateway__port": free_port(),
            "discover__builtin": False,
            "discover__ollama": at_ollama.url,
        }
        with supervisor.attached(config, flags, note=lambda _: None) as found:
            yield Running(folder, found.url, scripted, at_ollama)


def _widened(folder: Path) -> Path:
    """A copy of the built-in model that says it was trained with more: the toolkit points no client at less."""
    path = folder / BALANCED.name
    shutil.copyfile(BALANCED, path)
    GGUFReader(path, "r+").fields["llama.context_length"].parts[-1][0] = 16_384
    return path


@pytest.fixture(params=PROGRAMS)
def client(request: pytest.FixtureRequest, gateway: Running, tmp_path: Path) -> Client:
    program = PROGRAMS[request.param]
    if not program.exists():
        assert not os.environ.get("TOOLKIT_REQUIRE_CLIENTS"), f"{program} is missing: make clients"
        pytest.skip("the clients are not installed: make clients")
    name = request.param.split()[0]
    for folder in ("bin", "fresh", "project"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / {"claude-code": "claude", "opencode": "opencode"}[name]).symlink_to(program)
    environment = {
        **QUIET,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "fresh"),
        "TOOLKIT_HOME": str(gateway.home / "toolkit"),
    }
    gateway.upstream.asked.clear()
    gateway.upstream.script = lambda body: Says("hello from the script")
    return Client(name, tmp_path / "fresh", tmp_path / "project", environment)


def in_turn(*steps: Callable[[Body], Says]) -> Callable[[Body], Says]:
    """One step for each result of a tool that the client has sent so far; the last one stays."""
    return lambda body: steps[min(len(results(body)), len(steps) - 1)](body)


def calls(name: str, **arguments: object) -> Callable[[Body], Says]:
    """A call of the tool of that name, however the client writes it (Bash, bash; mcp__x__y, x_y)."""

    def step(body: Body) -> Says:
        offered = tool_names(body)
        meant = [
            tool for tool in offered if tool.lower() == name or tool.removeprefix("mcp__").replace("__", "_") == name
        ]
        assert meant, f"{name} is not among {offered}"
        return Says(calls=((meant[0], dict(arguments)),))

    return step


def last_result(body: Body) -> Says:
    return Says(f"the tool said: {results(body)[-1]}")


def test_it_answers(gateway: Running, client: Client) -> None:
    assert "hello from the script" in client.launch("say hello")
    roles = [message["role"] for message in gateway.upstream.asked[0]["messages"]]
    assert roles[0] == "system"
    assert roles.count("system") == 1
    assert "say hello" in json.dumps(gateway.upstream.asked[0]["messages"][-1])


def test_a_lean_launch_sends_a_small_prompt(gateway: Running, client: Client) -> None:
    client.launch("say hello", lean=True)
    (asked,) = gateway.upstream.asked
    assert sorted(name.lower() for name in tool_names(asked)) == ["bash", "edit", "read", "write"]
    assert len(json.dumps(asked)) < 25_000


def test_a_shell_command_goes_all_the_way_round(gateway: Running, client: Client) -> None:
    gateway.upstream.script = in_turn(calls("bash", command="echo $((6 * 7))", description="count"), last_result)
    assert "the tool said: 42" in client.launch("count", "--allowedTools", "Bash")
    assert len(gateway.upstream.asked) == 2


def test_a_file_is_read_and_edited(gateway: Running, client: Client) -> None:
    file = client.project / "poem.txt"
    file.write_text("roses are red\n", encoding="utf-8")
    if client.name == "claude-code":
        read = calls("read", file_path=str(file))
        edit = calls("edit", file_path=str(file), old_string="red", new_string="blue")
    else:
        read = calls("read", filePath=str(file))
        edit = calls("edit", filePath=str(file), oldString="red", newString="blue")
    gateway.upstream.script = in_turn(read, edit, last_result)
    client.launch("mend the poem", "--allowedTools", "Read,Edit")
    assert "roses are red" in results(gateway.upstream.asked[1])[0]
    assert file.read_text(encoding="utf-8") == "roses are blue\n"


def test_a_tool_of_each_of_our_servers_is_called_over_mcp(gateway: Running, client: Client) -> None:
    """Then one call that is refused: the model reads why."""
    (client.project / "t.csv").write_text("a\n1\n2\n", encoding="utf-8")
    refused = Call("read_file", {"path": "../t.csv"}, "steps like `..` are not allowed")
    turns = [*CALLS.items(), ("files", refused)]
    gateway.upstream.script = in_turn(
        *(calls(f"{server}_{call.tool}", **call.arguments) for server, call in turns), last_result
    )
    with serving(services) as outside:
        given = options(outside.url)
        for names in ([name for name in CALLS if name not in given], *([name, *given[name]] for name in given)):
            connected = client.toolkit("mcp", "connect", client.name, *names)
            assert connected.returncode == 0, connected.stderr
        client.launch("do it all", "--allowedTools", ",".join(f"mcp__{name}" for name in CALLS))
        assert {"/simple/price", "/search", "/sdapi/v1/txt2img"} <= set(outside.paths)
    said = results(gateway.upstream.asked[-1])
    for (name, call), text in zip(turns, said, strict=True):
        assert call.answer.replace(" ", "") in compact(text), f"{name}: {text}"
    assert client.toolkit("mcp", "disconnect", client.name).returncode == 0


def test_several_calls_in_one_answer_of_ollama_all_run(gateway: Running, client: Client) -> None:
    words = {0: ("one", "two"), 2: ("three", "four")}

    def script(body: Body) -> Says:
        done = results(body)
        if len(done) not in words:
            return Says(f"the tools said: {' '.join(result.strip() for result in done)}")
        steps = [calls("bash", command=f"echo {word}", description=word)(body) for word in words[len(done)]]
        return Says("so", tuple(call for step in steps for call in step.calls), together=len(done) == 2)

    gateway.ollama.script = script
    said = client.launch("count", "--allowedTools", "Bash", model="at-ollama")
    first, second, *others = said.partition("the tools said: ")[2].split()
    assert ({first, second}, set(others)) == ({"one", "two"}, {"three", "four"})  # calls run side by side


def test_connect_is_all_it_takes_and_undo_takes_it_back(gateway: Running, client: Client) -> None:
    before = sorted(client.home.rglob("*"))
    connected = client.toolkit("connect", client.name, "--model", "scripted")
    assert connected.returncode == 0, connected.stderr
    done = client.run(*_program(client), *client.asking("say hello"))
    assert "hello from the script" in done.stdout, done.stdout + done.stderr
    settings = client.settings()
    assert client.toolkit("connect", "undo", client.name).returncode == 0
    assert not any(path.exists() for path in settings if path not in before)


def test_the_builtin_model_answers_each_client_for_real(gateway: Running, client: Client) -> None:
    """Few words in the prompt and no tools, as in its training: with a client's own it would answer gibberish.

    Claude Code adds a reminder of many lines, after which it often runs on until it is cut off, and Claude Code tells
    that as an error: hence twelve tries, and a question that it mostly answers.
    """
    before = gateway.written_by(BUILTIN)
    prompt = "You are a helpful assistant."
    agent = {"agent": {"build": {"prompt": prompt, "tools": {"*": False}}}}
    (client.project / "opencode.json").write_text(json.dumps(agent), encoding="utf-8")
    asking = client.asking("Are you a human?", "--tools", "", "--system-prompt", prompt)
    launch = ("launch", client.name, "--model", BUILTIN, "--lean", "--", *asking)
    tries = [done := client.toolkit(*launch)]
    while done.returncode != 0 and len(tries) < 12:
        tries.append(done := client.toolkit(*launch))
    assert done.returncode == 0, tries
    assert any(letter.isalpha() for letter in done.stdout), done
    assert gateway.upstream.asked == []
    deadline = time.monotonic() + 20
    while gateway.written_by(BUILTIN) == before:  # the books are closed after the answer
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_key_over_budget_is_on_the_screen_at_once(gateway: Running, client: Client) -> None:
    gateway.stored(client.name, budget_tokens=1)
    client.toolkit("connect", client.name, "--model", "scripted")
    assert "budget" in client.refused(gateway).lower()
    assert gateway.upstream.asked == []
    client.toolkit("connect", "undo", client.name)


def test_a_wrong_key_is_on_the_screen_at_once(gateway: Running, client: Client) -> None:
    client.toolkit("connect", client.name, "--model", "scripted")
    gateway.stored(client.name).write_text("sk-toolkit-wrong\n", encoding="utf-8")
    assert "key" in client.refused(gateway).lower()
    assert gateway.upstream.asked == []
    gateway.stored(client.name)
    client.toolkit("connect", "undo", client.name)


def test_a_dead_upstream_is_on_the_screen_at_once(gateway: Running, client: Client) -> None:
    client.toolkit("connect", client.name, "--model", "gone")
    assert "The server behind gone does not answer" in client.refused(gateway)
    client.toolkit("connect", "undo", client.name)


def _program(client: Client) -> list[str]:
    return ["claude" if client.name == "claude-code" else "opencode"]
