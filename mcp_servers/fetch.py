"""Gets public pages and nothing else: every hop is resolved, checked and connected to by its checked address.

No proxy, no cookies, no credentials; bounded in hops, time, size and kinds of content; robots.txt is respected.
"""

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from mcp_servers.guard import Refusal, public_address
from toolkit import __version__

AGENT = f"toolkit-mcp/{__version__}"
PORTS = {80, 443, 8000, 8080, 8443}
TYPES = {"application/json", "application/ld+json", "application/xhtml+xml", "application/xml"}
REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Limits:
    """Redirects followed, seconds for all of them, bytes of a page after decompression."""

    hops: int = 5
    seconds: float = 20.0
    size: int = 3 << 20
    robots_size: int = 512 << 10
    robots_kept: float = 3600.0


class Page(NamedTuple):
    """What an address answered. `url` is where it was found."""

    url: str
    media_type: str
    charset: str | None
    content: bytes

    def text(self) -> str:
        """The content in the encoding it declares, else as UTF-8."""
        for encoding in (self.charset, "utf-8"):
            try:
                return self.content.decode(encoding or "utf-8")
            except (LookupError, UnicodeDecodeError):
                continue
        return self.content.decode("utf-8", "replace")


@dataclass
class Fetcher:
    """Fetches pages. `allowed`: (address, port) pairs beyond the public Internet, for tests, never by a setting."""

    allowed: Collection[tuple[str, int]] = ()
    ports: Collection[int] = frozenset(PORTS)
    limits: Limits = field(default_factory=Limits)
    certificates: ssl.SSLContext | None = None  # None: those of public sites
    _client: httpx.AsyncClient | None = None
    _robots: dict[str, tuple[float, Any]] = field(default_factory=dict)

    async def get(self, url: str) -> Page:
        """The page at `url`, redirects followed. Raises Refusal with a reason the model can act on."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self._follow(url, robots=True)
        except TimeoutError:
            raise Refusal(f"the page takes longer than {self.limits.seconds:g} s", hint="try another page") from None

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()

    async def _follow(self, url: str, *, robots: bool) -> Page:
        target = checked_url(url)
        for _ in range(self.limits.hops + 1):
            if robots:
                await self._ask_robots(target)
            answer = await self._once(target, _page if robots else _robots_txt)
            if isinstance(answer, Page):
                return answer
            target = checked_url(str(target.join(answer)))
        raise Refusal(f"the page redirects more than {self.limits.hops} times", hint="try another page")

    async def _once(self, target: httpx.URL, take: "_Take") -> Page | str:
        """One request: what `take` makes of the answer, or where it redirects to."""
        port = target.port or (443 if target.scheme == "https" else 80)
        if port not in self.ports and not any(port == other for _, other in self.allowed):
            raise Refusal(f"port {port} is not one of the web's", hint="use an address without a port")
        address = await public_address(target.host, port, allowed=self.allowed)
        # The name is resolved once, here; TLS still proves the name, and the server still hears it.
        host = target.netloc.decode("ascii")
        headers = {"Host": host, "User-Agent": AGENT, "Accept": "text/html, text/*;q=0.9, application/json;q=0.8"}
        try:
            request = self._http().build_request(
                "GET",
                target.copy_with(host=address, fragment=None),
                headers=headers,
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            )
            response = await self._http().send(request, stream=True)
            try:
                if response.status_code in REDIRECTS:
                    location = response.headers.get("location")
                    if not location:
                        raise Refusal("the page redirects nowhere", hint="try another page")
                    return str(location)
                if response.status_code >= 400:
                    raise _Status(response.status_code)
                return await take(target, response, self.limits)
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise Refusal(f"{target.host} does not answer in time", hint="try another page") from None
        except httpx.ConnectError as error:
            reason = "its certificate cannot be trusted" if "CERTIFICATE" in str(error).upper() else "no connection"
            raise Refusal(f"{target.host} cannot be reached: {reason}", hint="try another page") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            raise Refusal(f"{target.host} does not speak HTTP properly", hint="try another page") from None

    async def _ask_robots(self, target: httpx.URL) -> None:
        """Raise Refusal where the site asks programs to stay out (RFC 9309)."""
        origin = f"{target.scheme}://{target.netloc.decode('ascii')}"
        known = self._robots.get(origin)
        if known is None or time.monotonic() > known[0]:
            from protego import Protego

            try:
                page = await self._follow(f"{origin}/robots.txt", robots=False)
                rules = Protego.parse(page.text())
            except _Status as answer:
                if answer.status >= 500:
                    raise Refusal(
                        f"{target.host} answers with status {answer.status} for its robots.txt, which means: stay out",
                        hint="try another page",
                    ) from None
                rules = Protego.parse("")
            if len(self._robots) > 200:
                self._robots.clear()
            known = (time.monotonic() + self.limits.robots_kept, rules)
            self._robots[origin] = known
        if not known[1].can_fetch(str(target), AGENT):
            raise Refusal(
                f"the robots.txt of {target.host} asks programs not to read this page", hint="try another page"
            )

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self.certificates or certificates(),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(10.0),
                # Kept connections are found by address; two names on one address must not share them.
                limits=httpx.Limits(max_connections=20, max_keepalive_connections=0),
            )
        self._client.cookies.clear()
        return self._client


class _Status(Refusal):
    def __init__(self, status: int) -> None:
        super().__init__(f"the page answers with status {status}", hint="check the address, or search for it")
        self.status = status


@functools.cache
def certificates() -> ssl.SSLContext:
    """The certificates of public sites; loading them takes longer than most requests."""
    return httpx.create_ssl_context()


def checked_url(text: str) -> httpx.URL:
    """`text` as an absolute web address without credentials. Raises Refusal."""
    try:
        if any(ord(letter) <= 32 or ord(letter) == 127 for letter in text.strip()) or "\\" in text:
            raise httpx.InvalidURL("characters")
        url = httpx.URL(text.strip())
        host = url.host
        url.netloc.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError):
        raise Refusal("that is not a web address", hint="write it like https://example.org/page") from None
    if url.scheme not in ("http", "https"):
        raise Refusal("only http:// and https:// addresses can be read", hint="write it like https://example.org/page")
    if url.userinfo:
        raise Refusal(
            "an address with a user name or a password is not read", hint="leave out what stands before the @"
        )
    if url.port is not None and not 0 < url.port < 65536:
        raise Refusal("that is not a web address: its port does not exist", hint="leave the port out")
    if not host or host.endswith(".") or len(host) > 253 or "%" in host:
        raise Refusal("that is not a web address", hint="write it like https://example.org/page")
    return url


_Take = Callable[[httpx.URL, httpx.Response, Limits], Awaitable[Page]]


async def _robots_txt(target: httpx.URL, response: httpx.Response, limits: Limits) -> Page:
    """The rules, whatever they call themselves; what is beyond the limit is not read, as RFC 9309 allows."""
    content = bytearray()
    async for chunk in response.aiter_bytes(1 << 16):
        content += chunk
        if len(content) > limits.robots_size:
            break
    return Page(str(target), "text/plain", "utf-8", bytes(content[: limits.robots_size]))


async def _page(target: httpx.URL, response: httpx.Response, limits: Limits) -> Page:
    size = limits.size
    declared = response.headers.get("content-type", "")
    media_type = declared.split(";")[0].strip().lower()
    if media_type and not media_type.startswith("text/") and media_type not in TYPES:
        raise Refusal(f"the page is not text but {media_type[:60]}", hint="try a page with text")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > size:
        raise Refusal(f"the page has {int(length):,} bytes; the limit is {size:,}", hint="try a smaller page")
    content = bytearray()
    async for chunk in response.aiter_bytes(1 << 16):
        content += chunk
        if len(content) > size:
            raise Refusal(f"the page has more than {size:,} bytes", hint="try a smaller page")
    if not media_type:
        media_type = "text/html" if b"<html" in content[:2000].lower() else "text/plain"
    if b"\0" in content[:1000]:
        raise Refusal("the page is not text", hint="try a page with text")
    return Page(str(target), media_type, response.charset_encoding, bytes(content))
