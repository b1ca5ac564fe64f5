import asyncio
import ipaddress
import os
import socket
import stat
import string
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_servers import guard
from mcp_servers.guard import Folders, Place, Refusal, check_name, folder_options, is_public, public_address
from toolkit.core.errors import UsageError

SECRET = b"outside-secret"


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """An allowed folder with ordinary things in it, and a folder beside it that holds a secret."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "sub" / "deep", outside):
        folder.mkdir(parents=True)
    (inside / "plain.txt").write_bytes(b"hello")
    (inside / "sub" / "inner.txt").write_bytes(b"inner")
    (outside / "secret.txt").write_bytes(SECRET)
    return inside, outside


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=12)
texts = st.one_of(
    names,
    st.lists(
        st.one_of(
            names, st.sampled_from(["..", ".", "", "~", "sub", "link", "outside", "\u2025", "．．", "sub/..", "\\"])
        )
    ).map("/".join),
)


@settings(max_examples=400)
@given(texts)
@example("../outside/secret.txt")
@example("sub/../../outside/secret.txt")
@example("/etc/passwd")
@example("link/secret.txt")
def test_whatever_text_is_given_nothing_outside_is_read(roots: tuple[Path, Path], text: str) -> None:
    inside, outside = roots
    link = inside / "link"
    if not link.is_symlink():
        link.symlink_to(outside)
    folders = Folders([inside], hidden=True)
    try:
        content = folders.read(folders.place(text), limit=1000)
    except Refusal:
        return
    assert content in (b"hello", b"inner")


@settings(max_examples=300)
@given(texts)
@example("../outside/new.txt")
@example("link/new.txt")
@example("/etc/toolkit-test")
def test_whatever_text_is_given_nothing_outside_is_written(roots: tuple[Path, Path], text: str) -> None:
    inside, outside = roots
    link = inside / "link"
    if not link.is_symlink():
        link.symlink_to(outside)
    folders = Folders([inside])
    try:
        place = folders.place(text)
        folders.write(place, b"written", replace=True)
    except Refusal:
        pass
    else:
        assert place.path.resolve().is_relative_to(inside)
        assert place.path.read_bytes() == b"written"
        (inside / "plain.txt").write_bytes(b"hello")
        (inside / "sub" / "inner.txt").write_bytes(b"inner")
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert not list(inside.rglob("*toolkit-partial"))


@given(names)
def test_a_name_that_passes_is_one_visible_component_in_one_spelling(name: str) -> None:
    if check_name(name) is None:
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\\:\0")
        assert unicodedata.normalize("NFC", name) == name
        assert not name.startswith(("-", "~", " "))
        assert all(unicodedata.category(letter)[0] != "C" for letter in name)


@given(st.text(string.ascii_letters + string.digits + "_-. ", min_size=1, max_size=20).map(lambda text: f"a{text}b"))
def test_an_ordinary_name_passes(name: str) -> None:
    assert check_name(name) is None


@pytest.mark.parametrize(
    "name", ["Grüße.txt", "数据.csv", "Ελλάδα", "a b", "file (1).txt", "a+b@c,d;e=f", "wait….md", "ﬁle"]
)
def test_names_people_use_pass(name: str) -> None:
    assert check_name(name) is None


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_is_public_in_every_disguise_or_in_none(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    assert is_public(mapped) == is_public(address)
    assert is_public(translated) == is_public(address)
    if not is_public(address):
        assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))


@given(st.ip_addresses())
def test_no_public_address_is_anything_the_standard_library_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        forbidden = [address.is_private, address.is_loopback, address.is_link_local, address.is_multicast]
        assert not any(forbidden)


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


async def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    with pytest.raises(Refusal, match="private network"):
        await public_address("mixed.example", 80)


async def test_an_allowed_pair_of_address_and_port_allows_no_other_port() -> None:
    assert await public_address("127.0.0.1", 8080, allowed={("127.0.0.1", 8080)}) == "127.0.0.1"
    with pytest.raises(Refusal):
        await public_address("127.0.0.1", 8081, allowed={("127.0.0.1", 8080)})


def test_a_folder_exchanged_for_a_link_between_check_and_use_is_not_followed(roots: tuple[Path, Path]) -> None:
    inside, outside = roots
    (inside / "sub" / "secret.txt").write_bytes(b"inner")
    folders = Folders([inside])
    place = folders.place("sub/secret.txt")
    (inside / "sub").rename(inside / "was")
    (inside / "sub").symlink_to(outside)
    with pytest.raises(Refusal, match="symbolic link"):
        folders.read(place, limit=100)
    with pytest.raises(Refusal, match="symbolic link"):
        folders.write(place, b"x", replace=True)
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_a_folder_exchanged_again_and_again_while_it_is_read_never_lets_the_secret_out(
    roots: tuple[Path, Path],
) -> None:
    inside, outside = roots
    (inside / "sub" / "secret.txt").write_bytes(b"inner")
    folders = Folders([inside])
    stop = threading.Event()

    def exchange() -> None:
        real, link = inside / "was", inside / "link"
        link.symlink_to(outside)
        while not stop.is_set():
            (inside / "sub").rename(real)
            link.rename(inside / "sub")
            (inside / "sub").rename(link)
            real.rename(inside / "sub")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen, refused = set(), 0
    try:
        for _ in range(2000):
            try:
                seen.add(folders.read(Place(inside, ("sub", "secret.txt")), limit=100))
            except Refusal:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"inner"}
    assert refused > 0


def test_a_failed_write_leaves_the_file_and_no_trace(roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    inside, _ = roots
    folders = Folders([inside])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(guard.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folders.write(folders.place("plain.txt"), b"new", replace=True)
    assert (inside / "plain.txt").read_bytes() == b"hello"
    assert sorted(path.name for path in inside.iterdir()) == ["plain.txt", "sub"]


def test_a_file_keeps_its_permissions_and_a_new_one_is_not_executable(roots: tuple[Path, Path]) -> None:
    inside, _ = roots
    (inside / "plain.txt").chmod(0o750)
    folders = Folders([inside])
    folders.write(folders.place("plain.txt"), b"new", replace=True)
    folders.write(folders.place("other.txt"), b"new", replace=False)
    assert stat.S_IMODE((inside / "plain.txt").stat().st_mode) == 0o750
    assert stat.S_IMODE((inside / "other.txt").stat().st_mode) == 0o644


def test_a_hard_link_is_cut_by_writing_not_followed(roots: tuple[Path, Path]) -> None:
    inside, outside = roots
    os.link(outside / "secret.txt", inside / "hard.txt")
    folders = Folders([inside])
    folders.write(folders.place("hard.txt"), b"new", replace=True)
    assert (outside / "secret.txt").read_bytes() == SECRET


@pytest.mark.parametrize("given", ["/", "~", "/nowhere/at/all"])
def test_a_whole_disk_a_whole_home_and_nothing_cannot_be_allowed(given: str) -> None:
    with pytest.raises(UsageError):
        folder_options([given], server="files")
