"""Questions to the Hugging Face Hub: what a repository holds, and the header of a GGUF in it. Downloads nothing whole.

Uses huggingface_hub for the API, its tokens, mirrors (`HF_ENDPOINT`) and cache, as its users expect.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx

from gateway.models import gguf
from gateway.models.download import Wanted, client, refused
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.units import format_bytes

_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:IQ[1-4]_[A-Z]+(?:_[A-Z]+)?|Q[1-8](?:_[0-9A-Z]+)*|BF16|F16|F32|MXFP4(?:_MOE)?|TQ[12]_0))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"^(?:https?://)?(?:hf\.co|huggingface\.co)/([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w./-]+))?$")
_HUB = re.compile(r"^(?:https?://)?(?:hf\.co|huggingface\.co)/")
HEADER_PIECE = 2**20


@dataclass(frozen=True)
class HubFile:
    """One file of a repository: its path there, bytes, and SHA-256 if the hub knows it."""

    path: str
    size: int
    sha256: str | None

    @property
    def name(self) -> str:
        """The name it may be stored under: the last part of its path, with nothing that could lead elsewhere."""
        last = PurePosixPath(self.path.replace("\\", "/")).name
        return re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".") or "file.gguf"


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit."""

    name: str
    commit: str
    licence: str
    files: tuple[HubFile, ...]
    endpoint: str

    def url(self, file: HubFile) -> str:
        """Where the hub gives the file out, at this commit."""
        return f"{self.endpoint}/{self.name}/resolve/{self.commit}/{quote(file.path)}"

    def wanted(self, file: HubFile) -> Wanted:
        return Wanted(self.url(file), file.name, file.size, file.sha256)


@dataclass(frozen=True)
class Selection:
    """The files of one quantisation: the model's parts in order, and its projector if it has one."""

    quant: str
    parts: tuple[HubFile, ...]
    projector: HubFile | None = None

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def files(self) -> tuple[HubFile, ...]:
        return (*self.parts, self.projector) if self.projector else self.parts


@dataclass(frozen=True)
class Reference:
    """`hf.co/OWNER/REPO:QUANT@REVISION`, as a person writes it."""

    repository: str
    quant: str | None
    revision: str | None


def parse_reference(text: str) -> Reference | None:
    """What `text` refers to on the hub, or None if it is no such reference. Raises UsageError for a broken one."""
    match = _REFERENCE.match(text)
    if match is None and _HUB.match(text):
        raise UsageError(f"{text} names no repository", hint="toolkit models pull hf.co/OWNER/REPO:QUANT")
    return Reference(match[1], match[2], match[3]) if match else None


def endpoint() -> str:
    """The hub, or the mirror that `HF_ENDPOINT` names."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def headers() -> dict[str, str]:
    """Who we are, and the user's token if there is one (`HF_TOKEN`, or from `hf auth login`)."""
    from huggingface_hub import get_token

    token = get_token()
    return {"user-agent": "local-llm-toolkit"} | ({"authorization": f"Bearer {token}"} if token else {})


def look_up(name: str, revision: str | None = None) -> Repository:
    """What the repository holds now, or at `revision`.

    Raises ToolkitError if there is no such repository, it is not open to this user, or the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = endpoint()
    try:
        info = HfApi(endpoint=where).model_info(name, revision=revision, files_metadata=True, timeout=30)
    except RevisionNotFoundError:
        raise ToolkitError(f"{name} has no revision {revision}", hint=f"toolkit models pull hf.co/{name}") from None
    except GatedRepoError:
        raise ToolkitError(
            f"{name} asks you to accept its licence first", hint=f"open {where}/{name}, then: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ToolkitError(
            f"the hub has no repository {name}, or it is not open to you",
            hint=f"open {where}/{name.partition('/')[0]}; for a private one: hf auth login",
        ) from None
    except HFValidationError:
        raise UsageError(f"{name} is no repository name", hint="toolkit models pull hf.co/OWNER/REPO:QUANT") from None
    except OfflineModeIsEnabled:
        raise ToolkitError("HF_HUB_OFFLINE is set, so the hub is not asked", hint="unset HF_HUB_OFFLINE") from None
    except HfHubHTTPError as error:
        raise ToolkitError(
            f"{where} answers {error.response.status_code if error.response else 'with an error'} for {name}",
            hint="run the same command again later",
        ) from None
    except (httpx.HTTPError, OSError) as error:
        raise ToolkitError(
            f"{where} cannot be reached: {type(error).__name__}",
            hint="check the network; a mirror is set with: export HF_ENDPOINT=...",
        ) from None
    files = tuple(
        HubFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
        if sibling.rfilename.lower().endswith(".gguf") and _stays_inside(sibling.rfilename)
    )
    licence = str(info.card_data.get("license") or "") if info.card_data else ""
    return Repository(name, info.sha or revision or "main", licence, files, where)


def quant_of(path: str) -> str:
    """The quantisation a file's name (or its folder's) tells, in capitals; empty if it tells none."""
    found = _QUANT.findall(PurePosixPath(path).name) or _QUANT.findall(path)
    return found[-1].upper() if found else ""


def split_stem(name: str) -> str:
    """A GGUF file's name without its ending and without the number of a part."""
    split = gguf.SPLIT.match(name)
    return split[1] if split else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def selections(files: Sequence[HubFile]) -> list[Selection]:
    """The quantisations among `files`, smallest first, each with the projector that goes with all of them.

    A split model counts only if all its parts are there. Importance matrices and the like are left out.
    """
    models = [file for file in files if not _is_projector(file) and "imatrix" not in file.path.lower()]
    projectors = sorted((file for file in files if _is_projector(file)), key=_projector_rank)
    projector = projectors[0] if projectors else None
    found = []
    splits: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in models:
        split = gguf.SPLIT.match(file.path)
        if split:
            splits.setdefault((split[1], int(split[3])), {})[int(split[2])] = file
        else:
            found.append(Selection(quant_of(file.path), (file,), projector))
    for (stem, count), parts in splits.items():
        if sorted(parts) == list(range(1, count + 1)):
            found.append(Selection(quant_of(stem), tuple(parts[number] for number in sorted(parts)), projector))
    return sorted(found, key=lambda one: one.size)


def select(repository: Repository, quant: str | None, file: str | None = None) -> Selection:
    """The files of `quant` (any case, with or without `UD-`), or of the file named; with neither, Q4_K_M or the
    only one there is. Raises UsageError that names what there is."""
    there = selections(repository.files)
    if not there:
        raise ToolkitError(
            f"{repository.name} holds no GGUF files", hint="search the hub for the model's name and GGUF"
        )
    if file is not None:
        for one in there:
            if one.parts[0].path == file:
                return one
    wanted = (quant or "Q4_K_M").upper()
    for candidate in (wanted, f"UD-{wanted}", wanted.removeprefix("UD-")):
        for one in there:
            if one.quant == candidate:
                return one
    if quant is None and len(there) == 1:
        return there[0]
    known = ", ".join(f"{one.quant or one.parts[0].name} ({format_bytes(one.size)})" for one in there)
    what = f"{repository.name} has no {quant}" if quant else f"{repository.name} has no Q4_K_M: say which you want"
    raise UsageError(f"{what}; there are {known}", hint=f"toolkit models pull hf.co/{repository.name}:{there[0].quant}")


def read_header(repository: Repository, file: HubFile, http: httpx.Client | None = None) -> gguf.Header:
    """The header of a GGUF on the hub up to its vocabulary: ranged requests for the beginning, not the file.

    Raises NotGguf if it is none, ToolkitError if the server does not give ranges.
    """
    url, sent = repository.url(file), headers()
    with http or client() as connection:

        def read(offset: int, count: int) -> bytes:
            last = min(file.size, offset + max(count, HEADER_PIECE)) - 1
            try:
                with connection.stream("GET", url, headers=sent | {"range": f"bytes={offset}-{last}"}) as response:
                    if response.status_code == 200 and offset == 0:  # no ranges: the beginning is all we need
                        return _beginning(response, last + 1)
                    if response.status_code != 206:
                        raise refused(response, file.name)
                    return _beginning(response, last + 1 - offset)
            except httpx.HTTPError as error:
                raise ToolkitError(
                    f"{repository.endpoint} broke off: {type(error).__name__}", hint="run the same command again"
                ) from None

        try:
            return gguf.parse(_Window(read), file.size, stop_at_vocabulary=True)
        except gguf.NotGguf as error:
            raise gguf.NotGguf(f"{repository.name}/{file.path} {error.message}", hint=f"open {url}") from None


def cached(repository: Repository, file: HubFile) -> Path | None:
    """The file in huggingface_hub's own cache, if it is there whole."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.name, file.path, revision=repository.commit)
    path = Path(found) if isinstance(found, str) else None
    return path if path is not None and path.exists() and path.stat().st_size == file.size else None


class _Window:
    """Serves small reads out of the last piece that was fetched."""

    def __init__(self, read: gguf.Read) -> None:
        self._read, self._start, self._piece = read, 0, b""

    def __call__(self, offset: int, count: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._piece):
            self._start, self._piece, begin = offset, self._read(offset, count), 0
        return self._piece[begin : begin + count]


def _beginning(response: httpx.Response, count: int) -> bytes:
    """At most `count` bytes of the body; the rest is not read."""
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) >= count:
            break
    return bytes(content[:count])


def _stays_inside(path: str) -> bool:
    """Whether a path of a repository is one the hub could have: relative, and never upward."""
    return not path.startswith("/") and ".." not in PurePosixPath(path.replace("\\", "/")).parts


def _is_projector(file: HubFile) -> bool:
    return "mmproj" in PurePosixPath(file.path).name.lower()


def _projector_rank(file: HubFile) -> tuple[int, int]:
    order = {"F16": 0, "BF16": 1, "Q8_0": 2, "F32": 3}
    return order.get(quant_of(file.path), 4), file.size
