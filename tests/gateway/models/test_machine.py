"""Memory of GPUs from what the vendors' tools print, on every system."""

import json
from collections.abc import Sequence
from pathlib import Path

from gateway.models import machine
from gateway.models.machine import Gpu, Machine, gpus, parse_amd, parse_nvidia

GIB = 2**30


def says(**answers: str) -> machine.Ask:
    def ask(command: Sequence[str]) -> str:
        return answers.get(Path(command[0]).name.replace("-", "_") + ("_limit" if "iogpu" in command[-1] else ""), "")

    return ask


def test_nvidia_cards_are_read_and_one_without_sizes_is_left_out() -> None:
    text = "NVIDIA GeForce RTX 4090, 24564, 23028\nNVIDIA H200, 143771, 143000\nNVIDIA GB10, [N/A], [N/A]\n"
    assert parse_nvidia(text) == (
        Gpu("NVIDIA GeForce RTX 4090", 24564 * 2**20, 23028 * 2**20),
        Gpu("NVIDIA H200", 143771 * 2**20, 143000 * 2**20),
    )
    assert parse_nvidia("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == ()


def test_amd_cards_are_read() -> None:
    card = {"VRAM Total Memory (B)": str(16 * GIB), "VRAM Total Used Memory (B)": str(GIB), "Card Series": "RX 7800"}
    assert parse_amd(json.dumps({"card0": card})) == (Gpu("RX 7800", 16 * GIB, 15 * GIB),)
    for broken in ("", "not json", "[]", '{"card0": 5}', '{"card0": {"VRAM Total Memory (B)": "N/A"}}'):
        assert parse_amd(broken) == ()


def test_an_amd_card_without_rocm_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    for number, size in (("card0", 512 * 2**20), ("card1", 16 * GIB)):
        folder = tmp_path / number / "device"
        folder.mkdir(parents=True)
        (folder / "mem_info_vram_total").write_text(f"{size}\n")
        (folder / "mem_info_vram_used").write_text(f"{2**20}\n")
    assert machine._amd_sysfs(tmp_path) == (Gpu("AMD GPU", 16 * GIB, 16 * GIB - 2**20),)


def test_apple_silicon_gives_the_gpu_its_share_or_what_was_set() -> None:
    def look(ram: int, **answers: str) -> tuple[Gpu, ...]:
        return gpus(ram_total=ram, ram_free=ram, system="Darwin", machine="arm64", ask=says(**answers))

    (small,) = look(24 * GIB, sysctl="Apple M4")
    assert (small.name, small.total, small.unified) == ("Apple M4", 16 * GIB, True)
    assert look(64 * GIB)[0].total == 48 * GIB
    assert look(64 * GIB, sysctl_limit="57344")[0].total == 56 * GIB
    assert gpus(ram_total=GIB, ram_free=GIB, system="Darwin", machine="x86_64", ask=says()) == ()


def test_windows_asks_nvidia_too() -> None:
    found = gpus(ram_total=GIB, ram_free=GIB, system="Windows", ask=says(nvidia_smi="RTX 4070, 12282, 11000\n"))
    assert found == (Gpu("RTX 4070", 12282 * 2**20, 11000 * 2**20),)


def test_room_keeps_some_free_and_counts_shared_memory_once() -> None:
    plain = Machine("x", "x", 8, 32 * GIB, 20 * GIB, (Gpu("a", 8 * GIB, 6 * GIB),))
    assert plain.room().ram == 32 * GIB - machine.KEPT_FREE
    assert plain.room().vram == 8 * GIB - machine.KEPT_FREE
    assert plain.room(now=True).ram == 20 * GIB - machine.KEPT_FREE
    shared = Machine("x", "x", 8, 32 * GIB, 20 * GIB, (Gpu("a", 21 * GIB, 20 * GIB, unified=True),))
    assert shared.room() == machine.Room(21 * GIB, 0, unified=True)


def test_this_machine_has_memory_and_cores() -> None:
    here = machine.look()
    assert here.ram_total >= here.ram_free > 0
    assert here.cores >= 1
