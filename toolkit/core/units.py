"""How people write amounts, and what they mean: money, tokens, bytes, context lengths, durations.

Money is an integer of nano-dollars everywhere, so that sums are exact.
"""

import re
from decimal import Decimal, InvalidOperation

from toolkit.core.errors import UsageError

NANO = 1_000_000_000
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_money(text: str) -> int:
    """`5usd`, `$5`, `0.10` -> nano-dollars. Finer than a nano-dollar is refused, never rounded."""
    cleaned = text.strip().lower().removeprefix("$").removesuffix("usd").strip()
    try:
        dollars = Decimal(cleaned)
    except InvalidOperation:
        raise UsageError(f"{text!r} is not an amount of money", hint="write it as 5usd or 0.25usd") from None
    if not dollars.is_finite() or dollars < 0:
        raise UsageError(f"{text!r} is not an amount of money", hint="write it as 5usd or 0.25usd")
    nano = dollars * NANO
    if nano != nano.to_integral_value() or nano >= 2**63:
        raise UsageError(f"{text!r} is finer or larger than can be kept", hint="use 0.000000001usd to 9000000000usd")
    return int(nano)


def format_money(nano: int) -> str:
    """Nano-dollars -> `$5.00`; small amounts keep the digits that matter (`$0.000123`)."""
    dollars = Decimal(nano) / NANO
    if nano == 0 or abs(dollars) >= Decimal("0.01"):
        return f"{'-' if nano < 0 else ''}${abs(dollars):,.2f}"
    return f"{'-' if nano < 0 else ''}${abs(dollars).normalize():f}"


def parse_count(text: str) -> int:
    """`100k`, `2M`, `1500` -> an integer (k is 1,000)."""
    return _scaled(text, _DECIMAL, "a count", "100k or 2M")


def parse_context(text: str) -> int:
    """A context length in tokens: `64k` -> 65,536 (k is 1,024, as model cards mean it)."""
    return _scaled(text, _BINARY, "a context length", "32k or 65536")


def parse_bytes(text: str) -> int:
    """`512M`, `1.5GiB`, `700` -> bytes (1,024 a step; `B` and `iB` may follow)."""
    return _scaled(re.sub(r"i?b$", "", text.strip(), flags=re.IGNORECASE), _BINARY, "a size", "512M or 2G")


def _scaled(text: str, steps: dict[str, int], what: str, example: str) -> int:
    match = re.fullmatch(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([a-zA-Z]?)\s*", text)
    step = steps.get(match[2].lower()) if match else None
    if match is None or step is None:
        raise UsageError(f"{text!r} is not {what}", hint=f"write it as {example}")
    value = Decimal(match[1].replace("_", "").replace(",", "")) * step
    if value != value.to_integral_value():
        raise UsageError(f"{text!r} is not a whole number", hint=f"write it as {example}")
    return int(value)


def format_count(value: int) -> str:
    """1500 -> `1.5k`, 2,000,000 -> `2M`."""
    for step, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= step:
            return f"{value / step:.3g}{suffix}"
    return str(value)


def format_bytes(value: float) -> str:
    """Bytes -> `4.6 GiB`."""
    for step, suffix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= step:
            return f"{value / step:.1f} {suffix}"
    return f"{value:.0f} B"


def parse_duration(text: str) -> float:
    """`90s`, `15m`, `1.5h`, `30d` -> seconds. A bare number is refused: it would be a guess."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhdw])\s*", text.lower())
    if match is None:
        raise UsageError(f"{text!r} is not a duration", hint="write it as 90s, 15m, 1h or 30d")
    return float(Decimal(match[1]) * _MILLISECONDS[match[2]] / 1000)


def format_duration(seconds: float) -> str:
    """Seconds -> `1h 05m`, `3m 20s`, `4.2s`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
