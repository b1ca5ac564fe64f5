"""Where the toolkit keeps things on this machine, and how it writes them. Knows nothing of what they mean.

`TOOLKIT_HOME`, when set, holds everything below one folder; otherwise each platform's own folders are used.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import platformdirs


def config_dir() -> Path:
    """Settings that a person edits: `gateway.yaml`, `models.yaml`, own suites."""
    return _folder("config", platformdirs.user_config_path)


def data_dir() -> Path:
    """What must survive: the key store, pulled models."""
    return _folder("data", platformdirs.user_data_path)


def state_dir() -> Path:
    """What can be lost: logs, the record of a running gateway, generated configs."""
    return _folder("state", platformdirs.user_state_path)


def cache_dir() -> Path:
    """What can be fetched again."""
    return _folder("cache", platformdirs.user_cache_path)


def _folder(kind: str, default: Callable[..., Path]) -> Path:
    home = os.environ.get("TOOLKIT_HOME")
    if home:
        return Path(home).expanduser().absolute() / kind
    return default("toolkit", appauthor=False)


def bundled(name: str) -> Path:
    """A file shipped in `configs/`, for example `suites/five-tools.yaml`."""
    return Path(str(files("configs").joinpath(name)))


def private_dir(path: Path) -> Path:
    """Make `path` and its parents; only the user may enter `path` itself."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


@contextmanager
def atomic_path(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """A temporary file beside `path`, to be written; it becomes `path` whole, or is removed.

    `mode` holds from the first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        if os.name == "posix":
            os.fchmod(descriptor, mode)
        os.close(descriptor)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path` whole, or leave what was there."""
    with atomic_path(path, mode=mode) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write `text` as UTF-8, line ends as given, to `path` whole, or leave what was there."""
    write_bytes(path, text.encode("utf-8"), mode=mode)
