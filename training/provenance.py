"""Where a model comes from: a hash of all that decides its data, and the commit of the tree it was made in."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from training.catalogue import KINDS
from training.conversation import render_answer, render_opening
from training.generator import Generator, Recipe

SAMPLE = 200


def data_hash(seed: int) -> str:
    """SHA-256 over the hand-written files and a sample of what the generator makes of them."""
    digest = hashlib.sha256()
    for path in sorted(KINDS.rglob("*.txt")):
        digest.update(path.relative_to(KINDS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    generator = Generator(seed)
    for _ in range(SAMPLE):
        sitting = generator.sitting(Recipe())
        digest.update(render_opening(sitting.system, sitting.tools).encode())
        for decision in sitting.decisions:
            digest.update((decision.before + render_answer(decision.answer)).encode())
    return digest.hexdigest()


def commit() -> str:
    """The commit of the working tree, marked where `training/` differs from it; "unknown" outside a repository."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("-changed" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
