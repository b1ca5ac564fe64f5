"""What all discoveries share: one bounded question to a server that may not be there, and the form of the answer."""

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from gateway.upstreams.served import ServedModel

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Found:
    """What one upstream offers. `notes` say what a person should know; a server that is not there is no note."""

    models: tuple[ServedModel, ...] = ()
    notes: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A JSON object, or None with the reason in `notes` (none if nothing listens there)."""

    document: dict[str, Any] | None
    notes: tuple[str, ...] = ()


def ask(client: "httpx.Client", url: str, what: str, *, post: object = None) -> Answer:
    """GET `url` (POST if there is a body). Never raises for what a server does or does not answer."""
    import httpx

    try:
        response = client.get(url) if post is None else client.post(url, json=post)
        response.raise_for_status()
        document = response.json()
    except httpx.ConnectError:
        return Answer(None)
    except httpx.TimeoutException:
        return Answer(None, (f"{what} at {url} did not answer in time: left out",))
    except httpx.HTTPStatusError as error:
        return Answer(None, (f"{what} at {url} answers {error.response.status_code}: left out",))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Answer(None, (f"{what} at {url} cannot be understood ({type(error).__name__}): left out",))
    if not isinstance(document, dict):
        return Answer(None, (f"{what} at {url} cannot be understood (no JSON object): left out",))
    return Answer(document)


def base_url(url: str) -> str:
    """`url` without a trailing slash and without `/v1`."""
    return url.rstrip("/").removesuffix("/v1")


def items(document: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`; anything else that stands there is left out."""
    value = (document or {}).get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: object) -> int | None:
    """`value` if it is a positive whole number, as a context length must be."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def is_loopback(url: str) -> bool:
    """Whether the server at `url` is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
