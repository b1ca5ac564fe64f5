from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp.client.client import Client

from mcp_servers.prices import FRESH, Market, make
from tests.mcp_servers.stand_ins import Answer, Asked, StandIn, serving

PRICES = {
    "bitcoin": {"usd": 60_000.0, "eur": 50_000.0},
    "ethereum": {"usd": 3_000.0, "eur": 2_500.0},
    "pepe": {"usd": 1e-5},
}


def coingecko(asked: Asked) -> Answer:
    """A stand-in for CoinGecko's public API v3 (https://docs.coingecko.com/v3.0.1/reference)."""
    if asked.path == "/simple/price":
        coin, currency = asked.query["ids"], asked.query["vs_currencies"]
        if coin not in PRICES:
            return Answer({})
        found = PRICES[coin].get(currency)
        return Answer({coin: {currency: found, f"{currency}_24h_change": 1.5} if found else {}})
    if asked.path == "/coins/bitcoin/market_chart":
        day = 86_400_000
        prices = [[1_700_000_000_000 + hour * day / 24, 100.0 + hour] for hour in range(int(asked.query["days"]) * 24)]
        return Answer({"prices": prices, "market_caps": [], "total_volumes": []})
    if asked.path == "/search":
        coins = [
            {"id": "pepe", "name": "Pepe", "api_symbol": "pepe", "symbol": "PEPE", "market_cap_rank": 30},
            {
                "id": "pepe-2-0",
                "name": "Pepe 2.0",
                "api_symbol": "pepe-2-0",
                "symbol": "PEPE2.0",
                "market_cap_rank": 900,
            },
        ]
        wanted = asked.query["query"].lower()
        return Answer({"coins": [coin for coin in coins if wanted in str(coin["name"]).lower()], "exchanges": []})
    return Answer({"error": "coin not found"}, status=404)


def coinbase(asked: Asked) -> Answer:
    """A stand-in for Coinbase's public prices (https://docs.cdp.coinbase.com/coinbase-app/docs/api-prices)."""
    if asked.path == "/prices/BTC-USD/spot":
        return Answer({"data": {"amount": "59000.5", "base": "BTC", "currency": "USD"}})
    return Answer({"errors": [{"id": "not_found", "message": "Invalid base currency"}]}, status=404)


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Two stand-ins, a market on them and a clock."""

    def __init__(self, gecko: StandIn, base: StandIn, per_minute: int = 1000) -> None:
        self.gecko, self.base, self.clock = gecko, base, Clock()
        self.market = Market(coingecko=gecko.url, coinbase=base.url, per_minute=per_minute, clock=self.clock)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(make(self.market)) as client:
            yield client


@pytest.fixture
def rig() -> Iterator[Rig]:
    with serving(coingecko) as gecko, serving(coinbase) as base:
        yield Rig(gecko, base)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return dict(answer.structured_content or {})


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["bitcoin", "BTC", "btc", " Bitcoin ", "Btc"])
async def test_a_coin_is_known_by_name_and_by_symbol(name: str, rig: Rig) -> None:
    async with rig.client() as client:
        price = await call(client, "crypto_price", coin=name)
    assert (price["coin"], price["price"], price["currency"], price["source"]) == (
        "bitcoin",
        60_000,
        "usd",
        "CoinGecko",
    )
    assert (price["change_24h_percent"], price["stale"]) == (1.5, False)


async def test_a_coin_that_is_not_in_the_list_is_looked_up(rig: Rig) -> None:
    async with rig.client() as client:
        assert (await call(client, "crypto_price", coin="PEPE"))["coin"] == "pepe"
        text = await refusal(client, "crypto_price", coin="pep")
    assert "there is no coin named 'pep'; near: pepe, pepe-2-0" in text


async def test_a_price_is_kept_for_a_while_and_then_asked_for_again(rig: Rig) -> None:
    async with rig.client() as client:
        for _ in range(5):
            await call(client, "crypto_price", coin="btc")
        assert rig.gecko.paths.count("/simple/price") == 1
        rig.clock.now += FRESH + 1
        await call(client, "crypto_price", coin="btc")
    assert rig.gecko.paths.count("/simple/price") == 2


async def test_coinbase_stands_in_when_coingecko_does_not_answer(rig: Rig) -> None:
    rig.gecko.answer = lambda asked: Answer(status=429)
    async with rig.client() as client:
        price = await call(client, "crypto_price", coin="btc")
    assert (price["price"], price["source"], price["change_24h_percent"]) == (59_000.5, "Coinbase", None)


async def test_when_nobody_answers_the_last_price_is_given_as_such(rig: Rig) -> None:
    async with rig.client() as client:
        fresh = await call(client, "crypto_price", coin="btc")
        rig.gecko.answer = rig.base.answer = lambda asked: Answer(status=500)
        rig.clock.now += FRESH + 1
        old = await call(client, "crypto_price", coin="btc")
    assert old == fresh | {"stale": True}


async def test_offline_and_without_an_earlier_price_the_answer_is_clear() -> None:
    with serving(coingecko) as gecko:
        url = gecko.url
    async with Client(make(Market(coingecko=url, coinbase=url))) as client:
        for tool, arguments in {
            "crypto_price": {"coin": "btc"},
            "crypto_history": {"coin": "btc"},
            "crypto_convert": {"amount": 1, "source": "btc", "target": "usd"},
        }.items():
            text = await refusal(client, tool, **arguments)
            assert "this machine may be offline" in text
            assert "try again in a minute" in text


@pytest.mark.parametrize("body", ["not json", "[]", '{"bitcoin": 5}', '{"bitcoin": {"usd": "many"}}'])
async def test_an_answer_that_is_none_does_not_crash_the_server(body: str, rig: Rig) -> None:
    rig.gecko.answer = rig.base.answer = lambda asked: Answer(body)
    async with rig.client() as client:
        assert "Error executing" not in await refusal(client, "crypto_price", coin="btc")


async def test_the_services_are_not_asked_more_often_than_allowed() -> None:
    with serving(coingecko) as gecko, serving(coinbase) as base:
        rig = Rig(gecko, base, per_minute=3)
        async with rig.client() as client:
            for coin in ("btc", "eth"):
                await call(client, "crypto_price", coin=coin)
            await call(client, "crypto_history", coin="btc")
            text = await refusal(client, "crypto_price", coin="btc", currency="eur")
            assert "more than 3 requests in a minute" in text
            rig.clock.now += 61
            await call(client, "crypto_price", coin="btc", currency="eur")
    assert len(gecko.asked) + len(base.asked) == 4


async def test_history_is_at_most_a_hundred_points_and_ends_with_the_newest(rig: Rig) -> None:
    async with rig.client() as client:
        history = await call(client, "crypto_history", coin="btc", days=30)
        assert "no history" in await refusal(client, "crypto_history", coin="eth")
    assert len(history["points"]) <= 100
    assert (history["lowest"], history["highest"]) == (100, 100 + 719)
    assert history["points"][-1]["price"] == 819
    assert history["change_percent"] == pytest.approx(719)


@pytest.mark.parametrize(
    ("amount", "source", "target", "result"),
    [
        (0.5, "BTC", "EUR", 25_000),
        (3_000, "usd", "ETH", 1),
        (1, "BTC", "ETH", 20),
        (60, "usd", "eur", 50),
        (0, "BTC", "usd", 0),
    ],
)
async def test_an_amount_is_converted_through_prices(
    amount: float, source: str, target: str, result: float, rig: Rig
) -> None:
    async with rig.client() as client:
        done = await call(client, "crypto_convert", amount=amount, source=source, target=target)
    assert done["result"] == pytest.approx(result)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("crypto_price", {"coin": "btc", "currency": "u$d"}),
        ("crypto_price", {"coin": ""}),
        ("crypto_history", {"coin": "btc", "days": 0}),
        ("crypto_convert", {"amount": -1, "source": "btc", "target": "usd"}),
        ("crypto_price", {"coin": "../../admin"}),
    ],
)
async def test_what_cannot_be_meant_is_refused(tool: str, arguments: dict[str, Any], rig: Rig) -> None:
    async with rig.client() as client:
        text = await refusal(client, tool, **arguments)
    assert "Error executing" not in text
    assert all("admin" not in path for path in rig.gecko.paths)
