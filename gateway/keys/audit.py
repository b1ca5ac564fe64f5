"""Prove that a store's counters are the sums of its rows, on a live store, at one moment. Changes nothing.

A clean audit means: every admitted request is open, settled, released or lost, and each is counted exactly once.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, select

from gateway.keys.schema import keys, requests
from gateway.keys.store import KeyStore


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be."""

    key: str
    what: str


@dataclass(frozen=True)
class Audit:
    """What was looked at and what was found. `underestimated`: requests that cost more than was reserved for them."""

    keys: int
    requests: int
    open: int
    lost: int
    underestimated: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return not self.findings


def audit(store: KeyStore) -> Audit:
    """Compare every key's counters with its requests; look for requests that nobody will end."""
    now = store.clock()
    is_open = requests.c.state == "open"
    current = and_(requests.c.state != "open", requests.c.generation == keys.c.generation)
    dearer = and_(requests.c.state == "settled", requests.c.cost_nano > requests.c.reserved_nano)
    tokens = requests.c.prompt_tokens + requests.c.completion_tokens

    with store.reading(snapshot=True) as connection:
        rows = connection.execute(
            select(
                keys.c.id,
                keys.c.name,
                keys.c.spent_nano,
                keys.c.spent_tokens,
                keys.c.reserved_nano,
                keys.c.reserved_tokens,
                keys.c.total_nano,
                keys.c.total_tokens,
                _sum_where(current, requests.c.cost_nano).label("rows_spent_nano"),
                _sum_where(current, tokens).label("rows_spent_tokens"),
                _sum_where(is_open, requests.c.reserved_nano).label("rows_reserved_nano"),
                _sum_where(is_open, requests.c.reserved_tokens).label("rows_reserved_tokens"),
                _sum_where(~is_open, requests.c.cost_nano).label("rows_total_nano"),
                _sum_where(~is_open, tokens).label("rows_total_tokens"),
            )
            .select_from(keys.outerjoin(requests, requests.c.key_id == keys.c.id))
            .group_by(keys.c.id)
            .order_by(keys.c.name)
        ).all()
        count, open_now, lost, under = connection.execute(
            select(
                func.count(),
                _sum_where(is_open, 1),
                _sum_where(requests.c.state == "lost", 1),
                _sum_where(and_(dearer, keys.c.budget_nano.is_not(None)), 1),
            ).select_from(requests.join(keys, keys.c.id == requests.c.key_id))
        ).one()
        living = {owner.id for owner in store.owners(connection)[0]}
        waiting = connection.execute(
            select(keys.c.name, requests.c.owner_id, requests.c.deadline)
            .join(keys, keys.c.id == requests.c.key_id)
            .where(is_open)
        ).all()
    findings = []
    for row in rows:
        for counter in (
            "spent_nano",
            "spent_tokens",
            "reserved_nano",
            "reserved_tokens",
            "total_nano",
            "total_tokens",
        ):
            says, sums = int(getattr(row, counter)), int(getattr(row, f"rows_{counter}"))
            if says != sums:
                findings.append(Finding(row.name, f"{counter} is {says}, its requests add up to {sums}"))
    stuck: dict[str, int] = {}
    for name, owner, deadline in waiting:
        if owner not in living or deadline < now:
            stuck[name] = stuck.get(name, 0) + 1
    findings += [Finding(name, f"{number} requests are open that nobody will end") for name, number in stuck.items()]
    return Audit(len(rows), count, int(open_now), int(lost), int(under), tuple(findings))


def _sum_where(condition: ColumnElement[bool], amount: ColumnElement[int] | int) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, amount), else_=0)), 0)
