"""How long `toolkit --help` takes, as a multiple of `python -c "import typer"`, in turn in the same run."""

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15


def seconds(command: list[str]) -> float:
    """Wall seconds of one run of `command`."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the median of both and the median of the ratios, pair by pair."""
    toolkit = shutil.which("toolkit", path=str(Path(sys.executable).parent)) or "toolkit"
    ours, base = [toolkit, "--help"], [sys.executable, "-c", "import typer"]
    seconds(ours), seconds(base)
    pairs = [(seconds(ours), seconds(base)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"toolkit --help           {statistics.median(a for a, _ in pairs) * 1000:6.0f} ms")
    print(f'python -c "import typer" {statistics.median(b for _, b in pairs) * 1000:6.0f} ms')
    print(f"ratio                    {ratio:6.2f}   (bar: at most 2.5)")
