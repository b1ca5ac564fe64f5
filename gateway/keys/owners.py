"""Which process holds a reservation, and whether it still lives. Knows nothing of stores.

A process is its host, its number and its start, since numbers are given again.
"""

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

# How often a gateway says that it lives, and looks for others that do not.
HEARTBEAT_SECONDS = 15.0
# An owner on another host that was silent for longer than this (milliseconds) is taken for dead.
LEASE = 60_000


@dataclass(frozen=True)
class Owner:
    """One process that admits requests. `seen_at`: its last heartbeat, milliseconds since 1970."""

    id: str
    host: str
    pid: int
    started: str
    seen_at: int

    def lives(self, *, here: str, now: int) -> bool:
        """Whether it still runs: asked of the system on this host, told by its heartbeat on another."""
        if self.host == here:
            return started(self.pid) == self.started
        return now - self.seen_at <= LEASE


def host_name() -> str:
    """This machine since its last start: a container or a reboot is another host."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{socket.gethostname()}/{boot.read_text(encoding='ascii').strip()}"
    except OSError:
        return socket.gethostname()


def started(pid: int) -> str | None:
    """A mark that two processes with the same number never share; None if there is no such process.

    On Linux the kernel's own count since boot: the wall clock may be set while the process lives.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (ProcessLookupError, PermissionError):
        return None
    else:
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in {"Z", "X"} else rest[18]
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return None
