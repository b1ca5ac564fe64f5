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
def test_its_commands_run_in_one_shell_as_they_stand(home: Path) -> None:
    port = str(free_port())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TOOLKIT_GATEWAY_PORT": port,
        "TOOLKIT_GATEWAY_START_TIMEOUT": "120s",
        "NO_PROXY": "127.0.0.1",
    }

    def type_in(lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", lines], env=environment, cwd=home, capture_output=True, text=True, timeout=300
        )

    (block,) = (block for block in BLOCKS if "toolkit gateway up" in block)
    setting_up = ("make setup", ". .venv/bin/activate")
    lines = [line for line in block.splitlines() if not line.startswith(setting_up)]
    assert len(lines) == len(block.splitlines()) - len(setting_up)
    try:
        done = type_in("\n".join(lines).replace("127.0.0.1:4000", f"127.0.0.1:{port}"))
        assert done.returncode == 0, done.stderr
        assert '"choices"' in done.stdout, done.stdout
        assert re.search(r"^me +1 ", done.stdout, re.MULTILINE), done.stdout  # one request, in the accounts of the key
        assert type_in("toolkit gateway status").returncode != 0  # it was taken down
    finally:
        type_in("toolkit gateway down")
