"""The `prices` server: cryptocurrency prices, history and conversion from public price APIs.

CoinGecko answers all three; Coinbase stands in for a spot price when CoinGecko does not answer. Answers are kept
for a short while and requests are spaced, as both services ask. Offline, an old price is given with its age, or a
clear refusal.
"""

import argparse
import asyncio
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import httpx
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers.fetch import certificates
from mcp_servers.guard import Refusal
from mcp_servers.server import AtMost, ToolServer
from toolkit.core.errors import UsageError

COINGECKO = "https://api.coingecko.com/api/v3"
COINBASE = "https://api.coinbase.com/v2"
FRESH = 60.0  # seconds a price is given without asking again
PER_MINUTE = 10  # CoinGecko's public API allows between 5 and 15 requests a minute
TIMEOUT = 10.0

# Symbols are not unique (hundreds of coins call themselves BTC); these are what people mean by them.
_BY_SYMBOL = {
    "btc": "bitcoin", "eth": "ethereum", "usdt": "tether", "usdc": "usd-coin", "bnb": "binancecoin", "sol": "solana",
    "xrp": "ripple", "doge": "dogecoin", "ada": "cardano", "trx": "tron", "avax": "avalanche-2", "link": "chainlink",
    "dot": "polkadot", "ltc": "litecoin", "bch": "bitcoin-cash", "xlm": "stellar", "xmr": "monero", "etc":
    "ethereum-classic", "atom": "cosmos", "near": "near", "uni": "uniswap", "dai": "dai", "shib": "shiba-inu",
    "ton": "the-open-network", "algo": "algorand", "xtz": "tezos", "fil": "filecoin", "aave": "aave", "zec": "zcash",
}  # fmt: skip
_SYMBOL_OF = {coin: symbol for symbol, coin in _BY_SYMBOL.items()}

# What people convert into. CoinGecko's own list of currencies holds coins too, which are found as coins here.
_CURRENCIES = {
    "usd", "eur", "gbp", "jpy", "chf", "cny", "inr", "cad", "aud", "nzd", "sek", "nok", "dkk", "pln", "czk",
    "huf", "brl", "mxn", "zar", "krw", "sgd", "hkd", "twd", "thb", "idr", "myr", "php", "vnd", "try", "ils",
    "aed", "sar", "uah", "ngn", "pkr", "bdt", "clp", "ars",
}  # fmt: skip

Coin = Annotated[str, Field(description="Name or symbol, such as bitcoin or BTC."), AtMost(60)]
Currency = Annotated[str, Field(description="Currency code, such as usd or eur.", pattern=r"^[A-Za-z]{2,5}$")]


class Price(BaseModel):
    """A spot price."""

    coin: str
    currency: str
    price: float
    change_24h_percent: float | None = Field(description="Change over the last 24 hours; null where unknown.")
    at: datetime = Field(description="When the price was fetched.")
    source: str
    stale: bool = Field(description="True if no service answers now and this is the last price known.")


class Point(BaseModel):
    """The price at one moment."""

    at: datetime
    price: float


class History(BaseModel):
    """Prices over time, oldest first."""

    coin: str
    currency: str
    points: list[Point]
    lowest: float
    highest: float
    change_percent: float
    source: str


class Conversion(BaseModel):
    """An amount in another coin or currency."""

    amount: float
    source: str
    result: float
    target: str
    rate: float
    at: datetime
    stale: bool


class _Kept(NamedTuple):
    until: float
    at: datetime
    value: Any


class Market:
    """The price services behind one cache and one rate limit. Bases are arguments so that tests can stand in."""

    def __init__(
        self,
        *,
        coingecko: str = COINGECKO,
        coinbase: str = COINBASE,
        per_minute: int = PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.coingecko = coingecko
        self.coinbase = coinbase
        self.per_minute = per_minute
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._asked: deque[float] = deque()
        self._locks: dict[str, asyncio.Lock] = {}
        self._client: httpx.AsyncClient | None = None

    async def price(self, coin: str, currency: str) -> Price:
        """The spot price now, or the last one known. Raises Refusal."""
        coin, currency = await self.coin(coin), currency.lower()
        key = f"price {coin} {currency}"
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is not None and self._clock() < kept.until:
                return Price(**kept.value, at=kept.at, stale=False)
            try:
                value = await self._fetch_price(coin, currency)
            except _Unreachable as reason:
                if kept is None:
                    raise Refusal(
                        f"no price service answers ({reason}), and no earlier price of {coin} is known",
                        hint="say that the price cannot be looked up now, or try again in a minute",
                    ) from None
                return Price(**kept.value, at=kept.at, stale=True)
            kept = self._keep(key, value)
            return Price(**value, at=kept.at, stale=False)

    async def history(self, coin: str, currency: str, days: int) -> History:
        """At most 100 prices over the last `days`. Raises Refusal."""
        coin, currency = await self.coin(coin), currency.lower()
        key = f"history {coin} {currency} {days}"
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is None or self._clock() >= kept.until:
                try:
                    document = await self._get(
                        f"{self.coingecko}/coins/{coin}/market_chart", {"vs_currency": currency, "days": str(days)}
                    )
                    pairs = [(float(at), float(price)) for at, price in document["prices"]]
                except _Unreachable as reason:
                    raise Refusal(
                        f"the history of {coin} cannot be looked up now ({reason})", hint="try again in a minute"
                    ) from None
                except (KeyError, TypeError, ValueError):
                    raise Refusal(f"CoinGecko has no history of {coin} in {currency}", hint="use usd") from None
                if not pairs:
                    raise Refusal(f"CoinGecko has no history of {coin} in {currency}", hint="use usd")
                kept = self._keep(key, pairs)
        pairs = kept.value
        prices = [price for _, price in pairs]
        step = max(1, -(-len(pairs) // 99))
        shown = [*pairs[:-1:step], pairs[-1]]
        return History(
            coin=coin,
            currency=currency,
            points=[Point(at=datetime.fromtimestamp(at / 1000, UTC), price=price) for at, price in shown],
            lowest=min(prices),
            highest=max(prices),
            change_percent=(prices[-1] / prices[0] - 1) * 100 if prices[0] else 0.0,
            source="CoinGecko",
        )

    async def convert(self, amount: float, source: str, target: str) -> Conversion:
        """`amount` of a coin or currency in another, through their prices. Raises Refusal."""
        from_currency, to_currency = source.lower() in _CURRENCIES, target.lower() in _CURRENCIES
        if from_currency and to_currency:
            # A currency in another: what one bitcoin costs in each.
            over, under = await self.price("bitcoin", target), await self.price("bitcoin", source)
            rate, prices = over.price / under.price, [over, under]
        elif to_currency:
            over = await self.price(source, target)
            rate, prices = over.price, [over]
        elif from_currency:
            under = await self.price(target, source)
            rate, prices = 1 / under.price, [under]
        else:
            over, under = await self.price(source, "usd"), await self.price(target, "usd")
            rate, prices = over.price / under.price, [over, under]
        return Conversion(
            amount=amount,
            source=source,
            result=amount * rate,
            target=target,
            rate=rate,
            at=min(price.at for price in prices),
            stale=any(price.stale for price in prices),
        )

    async def coin(self, text: str) -> str:
        """CoinGecko's name of a coin, from a name or a symbol. Raises Refusal for none."""
        wanted = re.sub(r"\s+", "-", text.strip().lower())
        if wanted in _BY_SYMBOL:
            return _BY_SYMBOL[wanted]
        if wanted in _SYMBOL_OF:
            return wanted
        key = f"coin {wanted}"
        kept = self._kept.get(key)
        if kept is not None:
            return str(kept.value)
        try:
            document = await self._get(f"{self.coingecko}/search", {"query": text.strip()})
        except _Unreachable as reason:
            raise Refusal(
                f"no price service answers ({reason}), so {text[:40]!r} cannot be looked up",
                hint="try again in a minute",
            ) from None
        listed = document.get("coins")
        coins = [coin for coin in listed if isinstance(coin, dict)] if isinstance(listed, list) else []
        exact = [coin for coin in coins if wanted in (coin.get("id"), str(coin.get("symbol", "")).lower())]
        named = [coin for coin in coins if str(coin.get("name", "")).lower() == text.strip().lower()]
        found = next(
            (str(coin["id"]) for coin in [*exact, *named] if re.fullmatch(r"[a-z0-9._-]+", str(coin.get("id")))), ""
        )
        if not found:
            near = ", ".join(str(coin.get("id")) for coin in coins[:5])
            raise Refusal(
                f"there is no coin named {text[:40]!r}" + (f"; near: {near}" if near else ""), hint="use its full name"
            )
        self._keep(key, found)
        return found

    async def _fetch_price(self, coin: str, currency: str) -> dict[str, Any]:
        try:
            document = await self._get(
                f"{self.coingecko}/simple/price",
                {"ids": coin, "vs_currencies": currency, "include_24hr_change": "true"},
            )
        except _Unreachable:
            return await self._fetch_from_coinbase(coin, currency)
        entry = document.get(coin, {})
        if not isinstance(entry, dict) or not _is_price(entry.get(currency, 0.0)):
            raise _Unreachable("CoinGecko's answer is not a price")
        if not entry.get(currency):
            raise Refusal(f"CoinGecko has no price of {coin} in {currency}", hint="use usd, eur or gbp")
        change = entry.get(f"{currency}_24h_change")
        return {
            "coin": coin,
            "currency": currency,
            "price": float(entry[currency]),
            "change_24h_percent": change if _is_price(change) else None,
            "source": "CoinGecko",
        }

    async def _fetch_from_coinbase(self, coin: str, currency: str) -> dict[str, Any]:
        symbol = _SYMBOL_OF.get(coin)
        if symbol is None:
            raise _Unreachable("CoinGecko does not answer")
        document = await self._get(f"{self.coinbase}/prices/{symbol.upper()}-{currency.upper()}/spot", {})
        try:
            price = float(document["data"]["amount"])
        except (KeyError, TypeError, ValueError):
            raise _Unreachable("Coinbase's answer is not a price") from None
        return {
            "coin": coin,
            "currency": currency,
            "price": price,
            "change_24h_percent": None,
            "source": "Coinbase",
        }

    def _keep(self, key: str, value: Any) -> _Kept:
        if len(self._kept) > 1000:
            self._kept.clear()
            self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
        kept = _Kept(self._clock() + FRESH, datetime.now(UTC), value)
        self._kept[key] = kept
        return kept

    async def _get(self, url: str, query: dict[str, str]) -> Any:
        now = self._clock()
        while self._asked and now - self._asked[0] >= 60:
            self._asked.popleft()
        if len(self._asked) >= self.per_minute:
            raise _Unreachable(f"more than {self.per_minute} requests in a minute")
        self._asked.append(now)
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=TIMEOUT, verify=certificates(), headers={"Accept": "application/json"}
            )
        try:
            response = await self._client.get(url, params=query)
            if response.status_code == 404:
                return {}
            if response.status_code == 429:
                raise _Unreachable("the service says: too many requests")
            if response.status_code != 200:
                raise _Unreachable(f"the service answers with status {response.status_code}")
            document = response.json()
        except httpx.TimeoutException:
            raise _Unreachable("it takes too long") from None
        except httpx.TransportError:
            raise _Unreachable("this machine may be offline") from None
        except ValueError:
            raise _Unreachable("the answer is not JSON") from None
        if not isinstance(document, dict):
            raise _Unreachable("the answer is not what it documents")
        return document

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class _Unreachable(Exception):
    """A price service gave no answer; the text says why."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `toolkit mcp run prices`."""
    parser.add_argument("--coingecko", default=COINGECKO, metavar="URL", help="base URL of CoinGecko's API")
    parser.add_argument("--coinbase", default=COINBASE, metavar="URL", help="base URL of Coinbase's API")
    parser.add_argument(
        "--per-minute", type=int, default=PER_MINUTE, help=f"requests a minute at most (default: {PER_MINUTE})"
    )


def build(options: argparse.Namespace) -> ToolServer:
    """The server for parsed flags. Raises UsageError."""
    for name, url, usual in (("coingecko", options.coingecko, COINGECKO), ("coinbase", options.coinbase, COINBASE)):
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url} is not a URL", hint=f"--{name} {usual}")
    if options.per_minute < 1:
        raise UsageError(
            f"--per-minute must be at least 1, not {options.per_minute}", hint=f"--per-minute {PER_MINUTE}"
        )
    return make(Market(coingecko=options.coingecko, coinbase=options.coinbase, per_minute=options.per_minute))


def make(market: Market) -> ToolServer:
    """The server over a market."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await market.close()

    server = ToolServer("prices", "Prices of cryptocurrencies, from CoinGecko and Coinbase.", lifespan=lifespan)
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True)

    @server.tool(
        title="Price of a cryptocurrency",
        description=(
            "Get the current market price of a cryptocurrency such as bitcoin or ETH in a given currency, with its "
            "change over the last 24 hours. Use it whenever a live coin price is asked for."
        ),
        annotations=reads,
    )
    async def crypto_price(coin: Coin, currency: Currency = "usd") -> Price:
        return await market.price(coin, currency)

    @server.tool(
        title="Price history of a cryptocurrency",
        description=(
            "Get how the price of a cryptocurrency moved over the last days: up to 100 points, lowest, highest and "
            "change. Use it for trends; for the price now use crypto_price."
        ),
        annotations=reads,
    )
    async def crypto_history(
        coin: Coin,
        currency: Currency = "usd",
        days: Annotated[int, Field(description="How many days back, 1 to 365.", ge=1, le=365)] = 7,
    ) -> History:
        return await market.history(coin, currency, days)

    @server.tool(
        title="Convert between coins and currencies",
        description=(
            "Convert an amount of a cryptocurrency or currency into another at the current market rate, for example "
            "0.5 BTC into EUR or 1000 USD into ETH."
        ),
        annotations=reads,
    )
    async def crypto_convert(
        amount: Annotated[float, Field(description="How much to convert.", ge=0, le=1e15)],
        source: Annotated[str, Field(description="Coin or currency of the amount."), AtMost(60)],
        target: Annotated[str, Field(description="Coin or currency to convert into."), AtMost(60)],
    ) -> Conversion:
        return await market.convert(amount, source, target)

    return server
