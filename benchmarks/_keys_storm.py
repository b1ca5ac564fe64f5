"""Many requests of every kind at once, from one process: whole, streamed, hung up, failing, broken off."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


@dataclass
class Storm:
    """What came back: HTTP statuses, and what the client did itself."""

    seen: Counter[str] = field(default_factory=Counter)
    largest: int = 0  # most that was spent and held together at any look, nano-dollars


def plan(total: int, seed: int) -> list[tuple[str, dict[str, Any], bool]]:
    """`total` requests as (path, body, hang up): a third streamed, some of those hung up or broken off; some fail."""
    dice = random.Random(seed)
    made = []
    for number in range(total):
        path = dice.choice([CHAT, CHAT, MESSAGES, RESPONSES])
        streamed = number % 3 == 0
        model = "echo"
        hang_up = False
        if streamed and dice.random() < 0.25:
            model, hang_up = "drips", True
        elif streamed and dice.random() < 0.1:
            model = "breaks"
        elif dice.random() < 0.1:
            model = "fails"
        body: dict[str, Any] = {"model": model, "stream": streamed}
        text = "word " * dice.randint(1, 40)
        if path == RESPONSES:
            body |= {"input": text, "max_output_tokens": dice.randint(5, 40)}
        else:
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": dice.randint(5, 40)}
        made.append((path, body, hang_up))
    return made


async def storm(
    urls: Sequence[str], secret: str, requests: Sequence[tuple[str, dict[str, Any], bool]], *, at_once: int
) -> Storm:
    """Send all `requests`, `at_once` at a time, to the gateways in turn. A gateway that is not there is counted."""
    result = Storm()
    waiting = iter(enumerate(requests))
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {secret}"}, timeout=timeout, connector=connector
    ) as session:

        async def worker() -> None:
            for number, (path, body, hang_up) in waiting:
                try:
                    result.seen[await _one(session, urls[number % len(urls)] + path, body, hang_up)] += 1
                except (aiohttp.ClientError, ConnectionError) as error:
                    result.seen[type(error).__name__] += 1
                except TimeoutError:
                    result.seen["timeout"] += 1

        await asyncio.gather(*(worker() for _ in range(at_once)))
    return result


async def _one(session: aiohttp.ClientSession, url: str, body: dict[str, Any], hang_up: bool) -> str:
    async with session.post(url, data=json.dumps(body), headers={"Content-Type": "application/json"}) as answer:
        if hang_up and answer.status == 200:
            async for _ in answer.content:
                answer.close()
                return "hung up"
        await answer.read()
        return str(answer.status)
