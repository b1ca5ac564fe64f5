"""What the servers share: which paths, which addresses and how much. Knows nothing of tools or of MCP.

Paths: a text from a model becomes a `Place` by rules on its letters alone, and a file by opening one folder after
another without following links, so that nothing can be exchanged between the check and the use. Addresses: only
public ones, checked after resolution; the caller connects to the address that was checked, not to the name.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import re
import secrets
import socket
import stat
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.units import format_bytes

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_PATH = 1024
MAX_NAME = 255
# Names that mean a device on Windows whatever their extension, and never a file anywhere.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
# Never, hidden or not: what is in them is run by other programs, or opens other machines.
_FORBIDDEN = {".git", ".hg", ".svn", ".ssh", ".gnupg", ".aws", ".kube", ".docker", ".netrc"}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)


class Refusal(ToolkitError):
    """What was asked for is not allowed, or not there: a sentence the model can act on."""


def clip(text: str, limit: int) -> tuple[str, bool]:
    """At most `limit` characters of `text`, and whether something was cut."""
    return (text, False) if len(text) <= limit else (text[:limit], True)


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """The flags of a server over folders; `folder_options` reads `--root`."""
    parser.add_argument(
        "--root", action="append", default=[], metavar="FOLDER", help="allowed folder, repeatable (default: this one)"
    )
    parser.add_argument("--read-only", action="store_true", help="offer no tool that writes")


def folder_options(given: Sequence[str], *, server: str) -> list[Path]:
    """The folders a server may touch: those given, else the current one.

    Raises UsageError where that would be a whole home, a whole disk, or nothing.
    """
    folders = []
    for text in given or [str(Path.cwd())]:
        folder = Path(text).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", hint=f"mkdir -p {folder}")
        folder = folder.resolve(strict=True)
        if folder in (Path(folder.anchor), Path.home().resolve()):
            raise UsageError(f"{folder} is too much to allow", hint=f"toolkit mcp run {server} --root FOLDER")
        folders.append(folder)
    return folders


# Paths ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A path below an allowed folder, checked letter by letter; says nothing of what is there."""

    root: Path
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """How a model sees it: relative to its folder, with forward slashes."""
        return "/".join(self.parts) or "."

    @property
    def path(self) -> Path:
        """The same for programs that take nothing but a path. May have become a link since it was checked."""
        return self.root.joinpath(*self.parts)


class Entry(NamedTuple):
    """One entry of a folder. `size` in bytes, 0 for a folder."""

    place: Place
    is_folder: bool
    size: int


def check_name(name: str) -> str | None:
    """Why `name` cannot be one component of a path, or None if it can."""
    if name in ("", ".", ".."):
        return "steps like `..` are not allowed"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        return f"a name has at most {MAX_NAME} bytes"
    if any(unicodedata.category(letter) in _INVISIBLE for letter in name):
        return "control and invisible characters are not allowed"
    if unicodedata.normalize("NFC", name) != name:
        return "write the name in its composed form (NFC)"
    plain = unicodedata.normalize("NFKC", name)
    if plain != name and (set(plain) & set("/\\:") or plain.startswith((".", "-", "~")) or plain.strip() != plain):
        return "look-alikes of `/`, `.`, `-` and `~` are not allowed"
    if set(name) & set("/\\:"):
        return "`\\` and `:` are not allowed; separate folders by `/`"
    if name.startswith(("-", "~")):
        return "names that begin with `-` or `~` are not allowed"
    if name.endswith((".", " ")) or name.startswith(" "):
        return "names do not begin or end with a space, nor end with a dot"
    if _DEVICE.fullmatch(name):
        return "it is the name of a device"
    if plain.casefold() in _FORBIDDEN:
        return f"{name} is never opened"
    return None


class Folders:
    """The allowed folders and the only way into them.

    `hidden` also allows names that begin with a dot (never `.git`, `.ssh` and the like). Nothing here follows a
    symbolic link. All methods raise Refusal.
    """

    def __init__(self, roots: Sequence[Path], *, hidden: bool = False) -> None:
        self.roots = tuple(root.resolve(strict=True) for root in roots)
        self.hidden = hidden

    def place(self, text: str) -> Place:
        """`text` (relative to the first folder that has it, or absolute) as a place; touches only existence."""
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        if not text or len(text) > MAX_PATH:
            raise Refusal(f"a path has 1 to {MAX_PATH} characters, not {len(text)}", hint=self._hint())
        if "\0" in text:
            raise Refusal("a path has no NUL character", hint=self._hint())
        roots: Sequence[Path] = self.roots
        rest = text
        if text.startswith("/") or Path(text).is_absolute():
            lexical = Path(text)
            if ".." in lexical.parts:
                raise Refusal(f"{shown!r} is refused: steps like `..` are not allowed", hint=self._hint())
            owners = [root for root in self.roots if lexical == root or root in lexical.parents]
            if not owners:
                raise Refusal(f"{shown!r} is outside the allowed folders", hint=self._hint())
            roots = [max(owners, key=lambda root: len(root.parts))]
            rest = lexical.relative_to(roots[0]).as_posix()
        names = [] if rest in (".", "./") else rest.removeprefix("./").rstrip("/").split("/")
        for name in names:
            reason = check_name(name)
            if reason is None and name.startswith(".") and not self.hidden:
                reason = "hidden files are not allowed here"
            if reason is not None:
                raise Refusal(f"{shown!r} is refused: {reason}", hint=self._hint())
        places = [Place(root, tuple(names)) for root in roots]
        return next((place for place in places if self.exists(place)), places[0])

    def exists(self, place: Place) -> bool:
        """Whether there is anything by that name, a link included."""
        try:
            place.path.lstat()
        except (OSError, ValueError):
            return False
        return True

    def is_file(self, place: Place) -> bool:
        """Whether a regular file can be opened there."""
        try:
            self.check_file(place)
        except Refusal:
            return False
        return True

    def read(self, place: Place, *, limit: int) -> bytes:
        """The whole of a regular file of at most `limit` bytes."""
        with self._opened(place) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > limit:
                raise Refusal(
                    f"{place.name} has {format_bytes(size)}; the limit is {format_bytes(limit)}",
                    hint="choose a smaller file",
                )
            chunks, left = [], limit + 1
            while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
                chunks.append(chunk)
                left -= len(chunk)
            if left <= 0:
                raise Refusal(
                    f"{place.name} grew over {format_bytes(limit)} while it was read", hint="choose a smaller file"
                )
            return b"".join(chunks)

    def check_file(self, place: Place) -> int:
        """The size of a regular file that can be opened without following a link."""
        with self._opened(place) as descriptor:
            return os.fstat(descriptor).st_size

    def write(self, place: Place, content: bytes, *, replace: bool) -> None:
        """Put `content` there whole, or leave what was there. The folder must exist.

        With `replace` an existing regular file is exchanged and keeps its permissions; without, one is refused.
        """
        if not place.parts:
            raise Refusal("a folder cannot be written", hint="name a file in it")
        name = place.parts[-1]
        with self._folder(Place(place.root, place.parts[:-1])) as folder:
            mode = 0o644
            existing = _entry_status(name, folder)
            if existing is not None:
                self._check_case(folder, name, place)
                if not stat.S_ISREG(existing.st_mode):
                    raise Refusal(f"{place.name} is not a regular file", hint=self._hint())
                if not replace:
                    raise Refusal(f"{place.name} exists already", hint="edit it, or choose another name")
                mode = stat.S_IMODE(existing.st_mode) & 0o777
            temporary = f".{secrets.token_hex(8)}.toolkit-partial"
            descriptor = _open_at(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY, folder, 0o600
            )
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    if os.name == "posix":
                        os.fchmod(file.fileno(), mode)
                if replace:
                    _replace_at(temporary, name, folder)
                else:
                    _link_at(temporary, name, folder, place)
            except BaseException:
                with contextlib.suppress(OSError):
                    _unlink_at(temporary, folder)
                raise

    def entries(self, place: Place) -> list[Entry]:
        """What a folder holds, by name; links, devices and hidden files are left out."""
        found = []
        with self._folder(place) as folder, os.scandir(folder.scan) as listing:
            for item in listing:
                inner = Place(place.root, (*place.parts, item.name))
                if check_name(item.name) or (item.name.startswith(".") and not self.hidden):
                    continue
                try:
                    status = item.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone since it was listed
                if stat.S_ISDIR(status.st_mode):
                    found.append(Entry(inner, True, 0))
                elif stat.S_ISREG(status.st_mode):
                    found.append(Entry(inner, False, status.st_size))
        return sorted(found, key=lambda entry: (entry.place.parts[-1].casefold(), entry.place.parts))

    def walk(self, place: Place, *, limit: int) -> Iterator[Entry]:
        """Every file below a folder, a folder's own files first; at most `limit` entries are looked at."""
        waiting = [place]
        seen = 0
        while waiting:
            folders = []
            try:
                entries = self.entries(waiting.pop())
            except Refusal:
                continue  # not readable, or gone since it was listed
            for entry in entries:
                seen += 1
                if seen > limit:
                    return
                if entry.is_folder:
                    folders.append(entry.place)
                else:
                    yield entry
            waiting.extend(reversed(folders))

    def _hint(self) -> str:
        return f"use a path below {', '.join(str(root) for root in self.roots)}"

    @contextlib.contextmanager
    def _folder(self, place: Place) -> "Iterator[_Folder]":
        """The folder, opened step by step from its root without following links."""
        current = _Folder.root(place.root)
        try:
            for depth, name in enumerate(place.parts):
                here = Place(place.root, place.parts[: depth + 1])
                status = _entry_status(name, current)
                if status is None:
                    raise Refusal(f"there is no folder {here.name}", hint="list the files first")
                if stat.S_ISLNK(status.st_mode):
                    raise Refusal(f"{here.name} is a symbolic link; links are not followed", hint=self._hint())
                if not stat.S_ISDIR(status.st_mode):
                    raise Refusal(f"{here.name} is not a folder", hint=self._hint())
                self._check_case(current, name, here)
                try:
                    following = current.enter(name)
                except OSError as error:
                    raise Refusal(f"{here.name} cannot be opened: {error.strerror}", hint=self._hint()) from None
                current.close()
                current = following
            yield current
        finally:
            current.close()

    @contextlib.contextmanager
    def _opened(self, place: Place) -> Iterator[int]:
        if not place.parts:
            raise Refusal("that is a folder, not a file", hint="list it, then name a file")
        name = place.parts[-1]
        with self._folder(Place(place.root, place.parts[:-1])) as folder:
            status = _entry_status(name, folder)
            if status is None:
                raise Refusal(f"there is no file {place.name}", hint="list the files first")
            if stat.S_ISLNK(status.st_mode):
                raise Refusal(f"{place.name} is a symbolic link; links are not followed", hint=self._hint())
            if stat.S_ISDIR(status.st_mode):
                raise Refusal(f"{place.name} is a folder, not a file", hint="list it, then name a file")
            if not stat.S_ISREG(status.st_mode):
                raise Refusal(f"{place.name} is a device, a pipe or a socket, not a file", hint=self._hint())
            self._check_case(folder, name, place)
            try:
                # Not blocking: what was a file a moment ago may be a pipe without a writer now.
                descriptor = _open_at(name, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY, folder, 0)
            except OSError as error:
                raise Refusal(f"{place.name} cannot be opened: {error.strerror}", hint=self._hint()) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refusal(f"{place.name} is not a regular file", hint=self._hint())
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_case(self, folder: "_Folder", name: str, place: Place) -> None:
        """On a file system that ignores case or Unicode form, one file has one name here: the one it was given."""
        with os.scandir(folder.scan) as listing:
            names = [item.name for item in listing]
        if name in names:
            return
        near = [other for other in names if other.casefold() == name.casefold()]
        meant = f": its name is {near[0]}" if near else ""
        raise Refusal(f"{place.name} is not how the file is named{meant}", hint="list the files first")


@dataclass
class _Folder:
    """An open folder: by descriptor where the platform has them, else by path."""

    path: Path
    descriptor: int | None

    @property
    def scan(self) -> "int | Path":
        return self.path if self.descriptor is None else self.descriptor

    @classmethod
    def root(cls, path: Path) -> "_Folder":
        if os.open not in os.supports_dir_fd:
            return cls(path, None)
        return cls(path, os.open(path, os.O_RDONLY | _DIRECTORY | _CLOEXEC))

    def enter(self, name: str) -> "_Folder":
        if self.descriptor is None:
            return _Folder(self.path / name, None)
        flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
        return _Folder(self.path / name, os.open(name, flags, dir_fd=self.descriptor))

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _entry_status(name: str, folder: _Folder) -> os.stat_result | None:
    try:
        if folder.descriptor is None:
            return (folder.path / name).stat(follow_symlinks=False)
        return os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    except OSError:
        return None


def _open_at(name: str, flags: int, folder: _Folder, mode: int) -> int:
    if folder.descriptor is None:
        return os.open(folder.path / name, flags, mode)
    return os.open(name, flags, mode, dir_fd=folder.descriptor)


def _replace_at(source: str, target: str, folder: _Folder) -> None:
    if folder.descriptor is None:
        (folder.path / source).replace(folder.path / target)
    else:
        os.replace(source, target, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)


def _link_at(source: str, target: str, folder: _Folder, place: Place) -> None:
    """Give the file its name only if no other file has taken it meanwhile."""
    try:
        if folder.descriptor is None:
            (folder.path / source).rename(folder.path / target)  # Windows: fails if the target exists
            return
        os.link(source, target, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor, follow_symlinks=False)
    except FileExistsError:
        raise Refusal(f"{place.name} exists already", hint="edit it, or choose another name") from None
    _unlink_at(source, folder)


def _unlink_at(name: str, folder: _Folder) -> None:
    if folder.descriptor is None:
        (folder.path / name).unlink()
    else:
        os.unlink(name, dir_fd=folder.descriptor)


# Addresses -----------------------------------------------------------------------------------------------------

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also where some clouds keep their metadata
        "168.63.129.16/32",  # Azure's own service address, though globally routable by its number
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fec0::/10",
    )
)


def is_public(address: Address) -> bool:
    """Whether `address`, and every IPv4 address embedded in it, belongs to the public Internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None and not is_public(address.sixtofour):
            return False
        if address.teredo is not None:
            return False
        if any(address in network for network in _NAT64):
            return address in _NAT64[0] and is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in network for network in _NEVER if network.version == address.version):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
        or address.is_unspecified
    )


async def public_address(host: str, port: int, *, allowed: Collection[tuple[str, int]] = ()) -> str:
    """The address of `host` to connect to: public, or one of the `allowed` (address, port) pairs.

    A name with a single forbidden address is refused whole. Raises Refusal; OSError does not escape.
    """
    try:
        async with asyncio.timeout(10):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise Refusal(f"the name {host[:100]} does not resolve", hint="check the address, or search for it") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        if (text, port) in allowed:
            continue
        if "%" in text or not is_public(ipaddress.ip_address(text)):
            raise Refusal(
                f"{host[:100]} is on this machine or in a private network; only public pages can be read",
                hint="use a public address",
            )
    if not addresses:
        raise Refusal(f"the name {host[:100]} does not resolve", hint="check the address, or search for it")
    return addresses[0]
