"""What the README tells a person to type works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import REFERENCE, reference
from gateway.process import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "setup", "check", "bench"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_every_file_it_links_to_exists() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).exists(), link


def test_the_command_reference_has_not_drifted() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run: make docs"


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(home: Path) -> None:
    port = str(free_port())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TOOLKIT_GATEWAY_PORT": port,
        "TOOLKIT_GATEWAY_START_TIMEOUT": "120s",
        "NO_PROXY": "127.0.0.1",
    }

    def type_in(command: str) -> str:
        line = command.replace("127.0.0.1:4000", f"127.0.0.1:{port}")
        done = subprocess.run(
            ["bash", "-c", line], env=environment, cwd=home, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    commands = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    ours = [line for line in commands if line.startswith(("toolkit ", "curl "))]
    assert any(line.startswith("curl ") for line in ours)
    down = next(line for line in ours if line.startswith("toolkit gateway down"))
    ours.remove(down)
    try:
        for line in ours:
            printed = type_in(line)
            if line.startswith("toolkit keys create"):
                found = re.search(r"sk-[A-Za-z0-9_-]{20,}", printed)
                assert found, printed
                environment["TOOLKIT_KEY"] = found[0]
            if line.startswith("curl "):
                assert '"choices"' in printed, printed
    finally:
        type_in(down)
