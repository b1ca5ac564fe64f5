"""What a llama.cpp server tells of itself: which file it serves, as a digest, so that a run is not resumed on another
model of the same name; and how many questions it works on at once.
"""

import hashlib
from pathlib import Path
from typing import Any

import httpx

WHOLE = 1 << 28  # up to 256 MiB the whole file is read, beyond that so many pieces, evenly spread
PIECES, PIECE = 64, 1 << 20


def file_digest(url: str) -> str | None:
    """Digest of the GGUF behind the server at `url`; None if it does not say, or the file is not on this machine."""
    path = _props(url).get("model_path")
    if not path or not Path(path).is_file():
        return None
    return digest(Path(path))


def slots(url: str) -> int | None:
    """How many questions the server at `url` works on at once, each with a prompt of its own in the cache."""
    count = _props(url).get("total_slots")
    return count if isinstance(count, int) and count > 0 else None


def digest(path: Path) -> str:
    """SHA-256 of a small file, or of the size and evenly spread pieces of a large one (marked by its prefix)."""
    size = path.stat().st_size
    held = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE:
            while block := file.read(1 << 22):
                held.update(block)
            return f"sha256:{held.hexdigest()}"
        held.update(str(size).encode())
        for number in range(PIECES):
            file.seek((size - PIECE) * number // (PIECES - 1))
            held.update(file.read(PIECE))
    return f"sampled-sha256:{held.hexdigest()}"


def _props(url: str) -> dict[str, Any]:
    try:
        document = httpx.get(f"{url.rstrip('/')}/props", timeout=5.0).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
