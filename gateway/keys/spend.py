"""Reports of what was spent: by key, model, day or client. Reads only; knows nothing of terminals."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import case, func, select

from gateway.keys.periods import zone
from gateway.keys.schema import keys, requests
from gateway.keys.store import KeyStore

# No time zone's offset is finer than a quarter of an hour, so quarters add up to days anywhere.
QUARTER = 900_000


class By(StrEnum):
    """What a report is grouped by."""

    KEY = "key"
    MODEL = "model"
    DAY = "day"
    CLIENT = "client"


@dataclass(frozen=True)
class Line:
    """One group of a report. Money in nano-dollars. `lost`: requests charged by a guess, for want of a count."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cost_nano: int
    failed: int
    lost: int

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


def report(store: KeyStore, *, by: By, since: int = 0, time_zone: str = "UTC") -> list[Line]:
    """The requests that ended, admitted since the moment `since`, in groups; the dearest first, days in order."""
    group = {
        By.KEY: keys.c.name,
        By.MODEL: requests.c.asked_model,
        By.CLIENT: requests.c.client,
        By.DAY: requests.c.admitted_at - requests.c.admitted_at % QUARTER,
    }[by].label("name")
    found = (
        select(
            group,
            func.count().label("requests"),
            func.sum(requests.c.prompt_tokens).label("prompt_tokens"),
            func.sum(requests.c.completion_tokens).label("completion_tokens"),
            func.sum(requests.c.cache_read_tokens).label("cache_read_tokens"),
            func.sum(requests.c.cost_nano).label("cost_nano"),
            func.sum(case((requests.c.state == "released", 1), else_=0)).label("failed"),
            func.sum(case((requests.c.state == "lost", 1), else_=0)).label("lost"),
        )
        .select_from(requests.join(keys, keys.c.id == requests.c.key_id))
        .where(requests.c.state != "open", requests.c.admitted_at >= since)
        .group_by(group)
    )
    place = zone(time_zone)
    lines: dict[str, Line] = {}
    with store.reading() as connection:
        for row in connection.execute(found):
            name, *numbers = row
            if by is By.DAY:
                name = f"{datetime.fromtimestamp(int(name) / 1000, place):%Y-%m-%d}"
            line = Line(str(name), *(int(number) for number in numbers))
            lines[line.name] = _sum(lines[line.name], line) if line.name in lines else line
    if by is By.DAY:
        return sorted(lines.values(), key=lambda line: line.name)
    return sorted(lines.values(), key=lambda line: (-line.cost_nano, -line.tokens, line.name))


def total(lines: list[Line]) -> Line:
    """All lines as one."""
    whole = Line("total", 0, 0, 0, 0, 0, 0, 0)
    for line in lines:
        whole = _sum(whole, line)
    return whole


def _sum(one: Line, other: Line) -> Line:
    return Line(
        one.name,
        one.requests + other.requests,
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cache_read_tokens + other.cache_read_tokens,
        one.cost_nano + other.cost_nano,
        one.failed + other.failed,
        one.lost + other.lost,
    )
