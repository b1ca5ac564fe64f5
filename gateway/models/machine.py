"""What memory this machine has, and has free now: RAM, and graphics memory of NVIDIA, AMD and Apple.

Asks the system and the vendors' own tools; a tool that is missing or silent means no such GPU. The parsing is pure.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.models.fit import Room

KEPT_FREE = 512 * 2**20  # for the system and the gateway itself
APPLE_SHARE = 0.75  # what macOS lets the GPU take of a large memory; two thirds up to 36 GB (see `_apple`)

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Gpu:
    """One graphics device, in bytes. `unified`: its memory is the machine's own."""

    name: str
    total: int
    free: int
    unified: bool = False


@dataclass(frozen=True)
class Machine:
    """Memory in bytes, processors that this process may use."""

    system: str
    cpu: str
    cores: int
    ram_total: int
    ram_free: int
    gpus: tuple[Gpu, ...] = ()

    def room(self, *, now: bool = False) -> Room:
        """What a model may take: all that a quiet machine has, or what is free `now`."""
        ram = (self.ram_free if now else self.ram_total) - KEPT_FREE
        unified = any(gpu.unified for gpu in self.gpus)
        if unified:
            allowed = sum(gpu.free if now else gpu.total for gpu in self.gpus)
            return Room(max(0, min(ram, allowed)), 0, unified=True)
        # llama.cpp leaves about this much of each card to drivers and other programs.
        cards = sum(max(0, (gpu.free if now else gpu.total) - KEPT_FREE) for gpu in self.gpus)
        return Room(max(0, ram), cards)


def look() -> Machine:
    """This machine as it is now; takes up to a few seconds where a vendor's tool is slow."""
    import psutil

    ram = psutil.virtual_memory()
    total = min(ram.total, _container_limit() or ram.total)
    free = max(0, min(ram.available, total))
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        cpu=platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        ram_total=total,
        ram_free=free,
        gpus=gpus(ram_total=total, ram_free=free),
    )


def gpus(
    *, ram_total: int, ram_free: int, system: str = "", machine: str = "", ask: Ask | None = None
) -> tuple[Gpu, ...]:
    """The graphics devices llama.cpp could use on this system."""
    system, machine, ask = system or platform.system(), machine or platform.machine(), ask or _ask
    if system == "Darwin":
        return _apple(ram_total, ram_free, ask) if machine == "arm64" else ()
    found = parse_nvidia(ask(("nvidia-smi", f"--query-gpu={NVIDIA_QUERY}", "--format=csv,noheader,nounits")))
    if not found:
        found = parse_amd(ask(("rocm-smi", "--showmeminfo", "vram", "--showproductname", "--json")))
    if not found and system == "Linux":
        found = _amd_sysfs(Path("/sys/class/drm"))
    return found


NVIDIA_QUERY = "name,memory.total,memory.free"


def parse_nvidia(text: str) -> tuple[Gpu, ...]:
    """`nvidia-smi --query-gpu=name,memory.total,memory.free --format=csv,noheader,nounits`: MiB a line each.

    A card that shares the machine's memory prints `[N/A]` for its sizes and is left out here.
    """
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
            found.append(Gpu(fields[0], int(fields[1]) * 2**20, int(fields[2]) * 2**20))
    return tuple(found)


def parse_amd(text: str) -> tuple[Gpu, ...]:
    """`rocm-smi --showmeminfo vram --showproductname --json`: bytes, one object a card."""
    try:
        document = json.loads(text) if text.strip() else {}
    except ValueError:
        return ()
    found = []
    for card in document.values() if isinstance(document, dict) else ():
        if not isinstance(card, dict):
            continue
        total, used = (str(card.get(f"VRAM Total {what}", "")) for what in ("Memory (B)", "Used Memory (B)"))
        if total.isdecimal() and used.isdecimal():
            name = str(card.get("Card Series") or card.get("Card series") or "AMD GPU")
            found.append(Gpu(name, int(total), max(0, int(total) - int(used))))
    return tuple(found)


def _amd_sysfs(folder: Path) -> tuple[Gpu, ...]:
    """AMD cards by the kernel's own files, where no ROCm tool is installed (Vulkan needs none)."""
    found = []
    for total in sorted(folder.glob("card[0-9]*/device/mem_info_vram_total")):
        try:
            size = int(total.read_text(encoding="ascii"))
            used = int(total.with_name("mem_info_vram_used").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if size >= 2**30:  # a graphics unit in the processor shows a small carve-out: its memory is RAM
            found.append(Gpu("AMD GPU", size, max(0, size - used)))
    return tuple(found)


def _apple(ram_total: int, ram_free: int, ask: Ask) -> tuple[Gpu, ...]:
    """Apple silicon: one memory. The GPU may take what `iogpu.wired_limit_mb` says, or by default the share that
    Metal recommends: about two thirds up to 36 GB, three quarters above."""
    name = ask(("sysctl", "-n", "machdep.cpu.brand_string")).strip() or "Apple GPU"
    limit = ask(("sysctl", "-n", "iogpu.wired_limit_mb")).strip()
    if limit.isdecimal() and int(limit):
        total = int(limit) * 2**20
    else:
        total = int(ram_total * (2 / 3 if ram_total <= 36 * 2**30 else APPLE_SHARE))
    return (Gpu(name, total, min(total, ram_free), unified=True),)


def _container_limit() -> int | None:
    """The memory limit of the control group this process is in, if there is one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < 2**60:
            return int(text)
    return None


def _ask(command: Sequence[str]) -> str:
    """What a tool prints; nothing if it is not there, fails or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
