"""How fast `models pull` moves a file against plain curl, in turn from the same local server.

What is timed is the transfer: of the pull also hashing, checking and recording, but neither the start of Python nor
the questions to the hub; of curl the whole run, and the sync to disk that a pull does too. Two cases: a line of `LINE`
bytes a second, and as fast as loopback and a server of a few lines of Python go, where the processor is what is
measured.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._made_models import KINDS, write

SIZE = 128 * 2**20
LINE = 50 * 2**20
ROUNDS = 5

PULL = """
import time
from gateway.models import catalogue, pull
class Silent:
    def advance(self, done=1): pass
    def note(self, message): pass
planned = pull.plan("hf.co/owner/model-GGUF:Q4_K_M", None, catalogue.read())
start = time.perf_counter()
pull.fetch(planned, Silent())
print(time.perf_counter() - start)
"""


def main() -> None:
    """Print both rates and the median of the ratios."""
    if shutil.which("curl") is None:
        print("curl is not installed: nothing to compare with")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = write(KINDS["llama"], folder / "model.gguf").read_bytes()
        (folder / "whole.gguf").write_bytes(content + os.urandom(SIZE))
        for name, rate in ((f"a line of {LINE / 2**20:.0f} MiB/s", LINE), ("as fast as it goes", 0)):
            pairs = _compare(folder, rate)
            print(name)
            for what, seconds in (("models pull", [a for a, _ in pairs]), ("curl", [b for _, b in pairs])):
                print(f"  {what:12} {SIZE / 2**20 / statistics.median(seconds):7.0f} MiB/s")
            print(f"  {'ratio':12} {statistics.median(b / a for a, b in pairs):7.2f}   (bar: at least 0.9)", flush=True)


def _compare(folder: Path, rate: int) -> list[tuple[float, float]]:
    """Seconds of pull and curl, pair by pair."""
    command = [sys.executable, "-m", "benchmarks._hub", str(folder / "whole.gguf"), str(rate)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        pairs = []
        for turn in range(ROUNDS):
            # Each goes first in turn, so that what the machine does meanwhile favours neither.
            if turn % 2:
                curl, pull = _curl(url, folder), _pull(url, folder)
            else:
                pull, curl = _pull(url, folder), _curl(url, folder)
            pairs.append((pull, curl))
        return pairs
    finally:
        server.kill()
        server.communicate()


def _pull(url: str, folder: Path) -> float:
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    env = os.environ | {"HF_ENDPOINT": url, "TOOLKIT_HOME": str(home), "HF_HOME": str(folder / "hf"), "NO_PROXY": "*"}
    done = subprocess.run([sys.executable, "-c", PULL], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _curl(url: str, folder: Path) -> float:
    target = folder / "curl.gguf"
    target.unlink(missing_ok=True)
    start = time.perf_counter()
    address = f"{url}/owner/model-GGUF/resolve/main/model-Q4_K_M.gguf"
    subprocess.run(["curl", "--noproxy", "*", "-sSfL", "-o", str(target), address], check=True)
    with target.open("rb") as written:
        os.fsync(written.fileno())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
