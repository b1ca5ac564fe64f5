"""Ends this process when its parent is gone, however the parent went.

The parent keeps the write end of our stdin open and never writes. When it exits, also by SIGKILL, the read ends
and this process ends itself with everything it started. `python -P -m gateway.lifeline -- CMD...` runs a foreign
program under the same rule.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 3.0


def watch() -> None:
    """Watch stdin from a daemon thread; at its end ask this process to stop, and after `GRACE` seconds make it."""
    threading.Thread(target=_until_parent_is_gone, name="lifeline", daemon=True).start()


def _until_parent_is_gone() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    import psutil  # only now: a server that starts should not wait for it

    children = psutil.Process().children(recursive=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    for process in {*children, *psutil.Process().children(recursive=True)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(1)


def main(command: list[str]) -> int:
    """Run `command` until it ends or the parent is gone; its exit code is ours."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(signum: int, frame: object) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    watch()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
