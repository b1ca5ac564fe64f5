import asyncio
import gzip
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client

from mcp_servers.fetch import Fetcher, Limits, checked_url
from mcp_servers.guard import Refusal
from mcp_servers.web import Provider, Search, make, provider_for
from tests.mcp_servers.stand_ins import Answer, Asked, StandIn, serving
from toolkit.core.errors import UsageError

ARTICLE = """<html><head><title>Of whales</title></head><body>
<nav><a href="/a">Home</a><a href="/b">About us</a></nav>
<article><h1>Of whales</h1><p>The blue whale is the largest animal that has ever lived, and it eats krill.</p>
<h2>Size</h2><p>It can be <b>thirty metres</b> long; see <a href="/krill">what it eats</a> for the reason.</p>
<table><tr><th>Whale</th><th>Metres</th></tr><tr><td>Blue</td><td>30</td></tr></table></article>
<footer>Copyright nobody at all</footer><script>alert('never')</script></body></html>"""


def site(asked: Asked) -> Answer:
    """A stand-in for a small web site."""
    pages: dict[str, Answer] = {
        "/robots.txt": Answer("User-agent: *\nDisallow: /private\nAllow: /private/open\n"),
        "/article": Answer(ARTICLE),
        "/private/page": Answer("not for programs"),
        "/private/open": Answer("<p>for everybody, programs included, whatever else is not</p>"),
        "/plain": Answer("just text", headers={"Content-Type": "text/plain; charset=latin-1"}),
        "/json": Answer({"answer": 42}),
        "/image": Answer(b"\x89PNG", headers={"Content-Type": "image/png"}),
        "/script-only": Answer("<html><body><script>render()</script></body></html>"),
        "/packed": Answer(gzip.compress(ARTICLE.encode()), headers={"Content-Encoding": "gzip"}),
        "/bomb": Answer(
            gzip.compress(b"a" * 20_000_000), headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        ),
        "/endless": Answer(chunks=(b"<p>more</p>" * 1000 for _ in itertools.count()), headers={"Connection": "close"}),
        "/declared": Answer(b"", headers={"Content-Length": "99999999999"}, chunks=iter(())),
        "/long": Answer(
            "<article>" + "".join(f"<p>Paragraph {n} of a long text.</p>" for n in range(2000)) + "</article>"
        ),
        "/loop": Answer(status=302, headers={"Location": "/loop"}),
        "/nowhere": Answer(status=302),
        "/gone": Answer("gone", status=404),
        "/moved": Answer(status=301, headers={"Location": "/article"}),
    }
    return pages.get(asked.path, Answer("not here", status=404))


@pytest.fixture
def web() -> Iterator[StandIn]:
    with serving(site) as running:
        yield running


@pytest.fixture
def read(web: StandIn) -> Callable[..., Any]:
    async def ask(url: str, **arguments: Any) -> Any:
        fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, limits=Limits(seconds=5))
        async with Client(make(Search(None), fetcher)) as client:
            return await client.call_tool("read_page", {"url": url, **arguments})

    return ask


def said(answer: Any) -> str:
    return str(answer.content[0].text)


async def test_a_page_comes_as_markdown_without_what_stands_around_it(web: StandIn, read: Callable[..., Any]) -> None:
    page = (await read(f"{web.url}/article")).structured_content
    assert page["title"] == "Of whales"
    assert "**thirty metres**" in page["markdown"]
    assert "Blue" in page["markdown"]
    assert "never" not in page["markdown"]
    assert "Copyright" not in page["markdown"]
    assert page["next_start"] is None
    assert page["url"] == f"{web.url}/article"


async def test_a_long_page_is_read_on_without_being_fetched_again(web: StandIn) -> None:
    async with Client(make(Search(None), Fetcher(allowed={("127.0.0.1", web.port)}))) as client:
        first = (await client.call_tool("read_page", {"url": f"{web.url}/long"})).structured_content
        assert first is not None
        text, start = first["markdown"], first["next_start"]
        while start is not None:
            more = (await client.call_tool("read_page", {"url": f"{web.url}/long", "start": start})).structured_content
            assert more is not None
            text, start = text + more["markdown"], more["next_start"]
    assert len(text) == first["characters"]
    assert "Paragraph 1999 of" in text
    assert web.paths.count("/long") == 1


@pytest.mark.parametrize(
    ("path", "text"), [("/plain", "just text"), ("/json", '{"answer": 42}'), ("/packed", "largest animal")]
)
async def test_other_kinds_of_text_come_as_they_are(
    path: str, text: str, web: StandIn, read: Callable[..., Any]
) -> None:
    assert text in (await read(web.url + path)).structured_content["markdown"]


async def test_a_redirect_is_followed_and_told(web: StandIn, read: Callable[..., Any]) -> None:
    assert (await read(f"{web.url}/moved")).structured_content["url"] == f"{web.url}/article"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/private/page", "robots.txt of 127.0.0.1 asks programs not to read"),
        ("/image", "not text but image/png"),
        ("/script-only", "made by scripts"),
        ("/bomb", "more than 3,145,728 bytes"),
        ("/endless", "more than 3,145,728 bytes"),
        ("/declared", "99,999,999,999 bytes"),
        ("/loop", "redirects more than 5 times"),
        ("/nowhere", "redirects nowhere"),
        ("/gone", "status 404"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(
    path: str, reason: str, web: StandIn, read: Callable[..., Any]
) -> None:
    answer = await read(web.url + path)
    assert answer.is_error
    assert reason in said(answer)
    if path.startswith("/private"):
        assert path not in web.paths


async def test_the_longest_rule_of_robots_wins(web: StandIn, read: Callable[..., Any]) -> None:
    assert "for everybody" in (await read(f"{web.url}/private/open")).structured_content["markdown"]


async def test_a_site_whose_robots_txt_fails_is_left_alone(web: StandIn, read: Callable[..., Any]) -> None:
    web.answer = lambda asked: Answer(status=503) if asked.path == "/robots.txt" else site(asked)
    answer = await read(f"{web.url}/article")
    assert "stay out" in said(answer)
    assert "/article" not in web.paths


async def test_a_site_that_never_ends_its_answer_is_left_in_time(web: StandIn) -> None:
    def slow() -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b"."

    web.answer = lambda asked: Answer(chunks=slow()) if asked.path == "/slow" else site(asked)
    fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, limits=Limits(seconds=0.5))
    with pytest.raises(Refusal, match=r"takes longer than 0\.5 s"):
        await fetcher.get(f"{web.url}/slow")
    await fetcher.close()


async def test_no_credential_cookie_or_referrer_is_sent(web: StandIn, read: Callable[..., Any]) -> None:
    web.answer = lambda asked: Answer(
        ARTICLE if asked.path == "/article" else "", headers={"Set-Cookie": "a=b"}, status=200
    )
    await read(f"{web.url}/article")
    for asked in web.asked:
        assert not {"cookie", "authorization", "referer"} & set(asked.headers)
        assert asked.headers["user-agent"].startswith("toolkit-mcp/")


# Server-side request forgery -----------------------------------------------------------------------------------
# Every attempt aims at a stand-in on loopback that must hear nothing. `{port}` is its port.

FORGED = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost.localdomain:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://127.127.127.127:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fd00::1]:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.1.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://168.63.129.16/metadata",
    "http://192.0.0.192/opc/v2/instance/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://127。0。0。1:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://site.invalid@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@site.invalid:22/",
    "http://site.invalid#@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@site.invalid/",
    "http://site.invalid\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http://127.0.0.1%00.site.invalid:{port}/",
    "http://127.0.0.1:{port}%2f@site.invalid/",
    "http://127.0.0.1:{port}\r\nHost: example.org/",
    "http://127.0.0.1\t:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "ftp://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/info",
    "data:text/html,<p>x</p>",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "javascript:alert(1)",
    "http://1.1.1.1:22/",
    "http://1.1.1.1:6379/",
    "https://127.0.0.1:{port}/",
]


@pytest.fixture(scope="module")
def victim() -> Iterator[StandIn]:
    with serving(lambda asked: Answer("secret of the machine")) as running:
        yield running


@pytest.mark.parametrize("url", FORGED)
async def test_an_address_of_this_machine_or_of_a_private_network_is_refused(url: str, victim: StandIn) -> None:
    before = len(victim.asked)
    # Its port is one of the web's, so that nothing but the check of addresses stands in the way.
    fetcher = Fetcher(ports={80, 443, victim.port}, limits=Limits(seconds=5))
    with pytest.raises(Refusal):
        await fetcher.get(url.replace("{port}", str(victim.port)))
    await fetcher.close()
    assert len(victim.asked) == before


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "file:///etc/passwd", "http://0x7f.1:{port}/"]
)
async def test_a_redirect_to_this_machine_is_refused(status: int, target: str, victim: StandIn) -> None:
    before = len(victim.asked)
    location = target.replace("{port}", str(victim.port))
    with serving(
        lambda asked: (
            Answer(status=status, headers={"Location": location}) if asked.path == "/go" else Answer(status=404)
        )
    ) as web:
        fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, ports={80, 443, victim.port}, limits=Limits(seconds=5))
        with pytest.raises(Refusal):
            await fetcher.get(f"{web.url}/go")
        await fetcher.close()
    assert len(victim.asked) == before


async def test_a_redirect_of_robots_txt_to_this_machine_is_refused(victim: StandIn) -> None:
    before = len(victim.asked)
    location = f"{victim.url}/robots.txt"
    with serving(lambda asked: Answer(status=302, headers={"Location": location})) as web:
        fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, ports={80, 443, victim.port}, limits=Limits(seconds=5))
        with pytest.raises(Refusal):
            await fetcher.get(f"{web.url}/page")
        await fetcher.close()
    assert len(victim.asked) == before


async def test_a_name_that_changes_its_address_between_check_and_connection_gains_nothing(
    victim: StandIn, web: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: each answer names another address; the connection must go where the check looked."""
    answers = itertools.cycle([("127.0.0.1", web.port), ("127.0.0.2", web.port)])
    asked: list[str] = []

    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        address = next(answers)[0]
        asked.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    # Only the first address is allowed: the second stands for a private one.
    fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, limits=Limits(seconds=5))
    with pytest.raises(Refusal, match="private network"):
        await fetcher.get(f"http://rebinding.example:{web.port}/article")  # robots.txt first, then the page
    await fetcher.close()
    assert asked == ["127.0.0.1", "127.0.0.2"]
    assert web.paths == ["/robots.txt"]


async def test_the_connection_goes_to_the_checked_address_and_the_server_hears_the_name(
    web: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "pinned.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, limits=Limits(seconds=5))
    page = await fetcher.get(f"http://pinned.example:{web.port}/article")
    await fetcher.close()
    assert page.url == f"http://pinned.example:{web.port}/article"
    assert {asked.headers["host"] for asked in web.asked} == {f"pinned.example:{web.port}"}


async def test_no_proxy_of_the_environment_is_used(
    victim: StandIn, web: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(victim.asked)
    monkeypatch.setenv("HTTP_PROXY", victim.url)
    monkeypatch.setenv("ALL_PROXY", victim.url)
    fetcher = Fetcher(allowed={("127.0.0.1", web.port)})
    await fetcher.get(f"{web.url}/article")
    await fetcher.close()
    assert len(victim.asked) == before


async def test_the_certificate_must_be_of_the_name_though_the_connection_goes_to_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, chain = certificate(tmp_path, "pinned.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with serving(site, context) as web:

        async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        fetcher = Fetcher(allowed={("127.0.0.1", web.port)}, certificates=trusted)
        assert b"whale" in (await fetcher.get(f"https://pinned.example:{web.port}/article")).content
        with pytest.raises(Refusal, match="certificate"):
            await fetcher.get(f"https://other.example:{web.port}/article")
        await fetcher.close()
        strict = Fetcher(allowed={("127.0.0.1", web.port)})
        with pytest.raises(Refusal, match="certificate"):
            await strict.get(f"https://pinned.example:{web.port}/article")
        await strict.close()


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A certificate of its own for `name`: what trusts it, and the file a server shows."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    shown = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = folder / "chain.pem"
    chain.write_bytes(private + shown)
    return ssl.create_default_context(cadata=shown.decode()), chain


@pytest.mark.parametrize(
    "text", ["", " ", "example.org", "http://", "http://[::1", "http://exa mple.org/", "http://a:99999/"]
)
def test_what_is_no_address_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(Refusal, match="address"):
        checked_url(text)


# Search --------------------------------------------------------------------------------------------------------

# The formats are those the providers document, cut to the fields that matter and a few that do not.
ANSWERS: dict[str, dict[str, object]] = {
    "searxng": {
        "query": "whales",
        "number_of_results": 2,
        "results": [
            {"url": "https://a.example/1", "title": "One", "content": "first", "engine": "x", "score": 2.0},
            {"url": "https://a.example/2", "title": "Two", "content": None, "engine": "y", "score": 1.0},
        ],
        "answers": [],
        "suggestions": [],
    },
    "brave": {
        "type": "search",
        "query": {"original": "whales"},
        "web": {
            "type": "search",
            "results": [
                {"title": "One", "url": "https://a.example/1", "description": "first", "age": "1 day ago"},
                {"title": "Two", "url": "https://a.example/2", "description": ""},
            ],
        },
    },
    "tavily": {
        "query": "whales",
        "answer": None,
        "images": [],
        "results": [
            {"title": "One", "url": "https://a.example/1", "content": "first", "score": 0.9, "raw_content": None},
            {"title": "Two", "url": "https://a.example/2", "content": "", "score": 0.8, "raw_content": None},
        ],
        "response_time": 1.1,
    },
    "serpapi": {
        "search_metadata": {"status": "Success"},
        "organic_results": [
            {"position": 1, "title": "One", "link": "https://a.example/1", "snippet": "first"},
            {"position": 2, "title": "Two", "link": "https://a.example/2"},
        ],
    },
}


def search_api(asked: Asked) -> Answer:
    """A stand-in for all four providers, told apart by how they are asked."""
    if asked.path == "/search" and asked.method == "GET":
        return Answer(ANSWERS["searxng"]) if asked.query.get("format") == "json" else Answer("<html>")
    if asked.path == "/res/v1/web/search":
        return Answer(ANSWERS["brave"]) if asked.headers.get("x-subscription-token") == "k" else Answer(status=401)
    if asked.path == "/search":
        return Answer(ANSWERS["tavily"]) if asked.headers.get("authorization") == "Bearer k" else Answer(status=401)
    if asked.path == "/search.json":
        return Answer(ANSWERS["serpapi"]) if asked.query.get("api_key") == "k" else Answer(status=401)
    return Answer(status=404)


async def searched(provider: Provider | None, query: str = "whales", **arguments: Any) -> Any:
    async with Client(make(Search(provider), Fetcher())) as client:
        return await client.call_tool("web_search", {"query": query, **arguments})


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_provider_is_asked_and_read_as_it_documents(name: str) -> None:
    with serving(search_api) as api:
        answer = (await searched(Provider(name, api.url, "k"))).structured_content
    assert answer["provider"] == name
    assert [tuple(result.values()) for result in answer["results"]] == [
        ("One", "https://a.example/1", "first"),
        ("Two", "https://a.example/2", ""),
    ]


@pytest.mark.parametrize("name", ["brave", "tavily", "serpapi"])
async def test_a_wrong_key_is_told_without_the_key(name: str) -> None:
    with serving(search_api) as api:
        answer = await searched(Provider(name, api.url, "wrong-key"))
    assert f"{name} refuses the key" in said(answer)
    assert "wrong-key" not in said(answer)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=429), "too many requests"),
        (Answer(status=500), "status 500"),
        (Answer("<html>"), "does not answer what it documents"),
        (Answer({"results": "none"}), "does not answer what it documents"),
        (Answer([]), "does not answer what it documents"),
    ],
)
async def test_a_provider_that_fails_is_told(answer: Answer, reason: str) -> None:
    with serving(lambda asked: answer) as api:
        assert reason in said(await searched(Provider("searxng", api.url)))


async def test_a_provider_that_is_not_there_is_told() -> None:
    with serving(search_api) as api:
        gone = Provider("searxng", api.url)
    assert "cannot be reached" in said(await searched(gone))


async def test_without_a_provider_the_answer_says_how_to_get_one() -> None:
    assert "no search provider is configured" in said(await searched(None))


async def test_results_that_are_no_web_addresses_are_left_out() -> None:
    results = [{"url": "javascript:alert(1)", "title": "x"}, {"url": "https://a.example/", "title": "y"}]
    with serving(lambda asked: Answer({"results": results})) as api:
        answer = (await searched(Provider("searxng", api.url))).structured_content
    assert [result["url"] for result in answer["results"]] == ["https://a.example/"]


def test_the_provider_is_the_one_whose_key_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAVILY_API_KEY", "BRAVE_API_KEY", "SERPAPI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert provider_for("auto", None, None) is None
    assert provider_for("auto", "http://127.0.0.1:1", None) == Provider("searxng", "http://127.0.0.1:1")
    monkeypatch.setenv("BRAVE_API_KEY", "b")
    assert provider_for("auto", None, None) == Provider("brave", "https://api.search.brave.com", "b")
    with pytest.raises(UsageError, match="TAVILY_API_KEY, which is not set"):
        provider_for("tavily", None, None)
    with pytest.raises(UsageError, match="must be a reference"):
        provider_for("tavily", None, "a-literal-key")
