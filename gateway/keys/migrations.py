"""Bring a store to this version's schema, one numbered step at a time; refuse a store from a newer version.

Every step runs in one transaction with its entry in `schema_version`, so a step is there whole or not at all.
"""

from collections.abc import Callable

from sqlalchemy import Connection, func, insert, inspect, select, text

from gateway.keys.schema import metadata, versions
from toolkit.core.errors import ToolkitError


def _first_schema(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=True)


# Step n brings version n to n + 1. A step that has been released is never edited.
STEPS: tuple[Callable[[Connection], None], ...] = (_first_schema,)


def version(connection: Connection) -> int:
    """The store's schema version; 0 for an empty database."""
    if not inspect(connection).has_table(versions.name):
        return 0
    return int(connection.scalar(select(func.coalesce(func.max(versions.c.version), 0))) or 0)


def migrate(connection: Connection, *, now: int, steps: tuple[Callable[[Connection], None], ...] = STEPS) -> None:
    """Apply the steps the store lacks. The caller holds the write lock and commits."""
    if connection.dialect.name == "postgresql":
        # Two gateways that start at once must not both create the tables.
        connection.execute(text("select pg_advisory_xact_lock(7205759403792793)"))
    found = version(connection)
    if found > len(steps):
        raise ToolkitError(
            f"the key store has schema version {found}, this toolkit knows {len(steps)}: a newer one wrote it",
            hint="upgrade the toolkit, or name another store in keys.database",
        )
    for number, step in enumerate(steps[found:], start=found + 1):
        step(connection)
        connection.execute(insert(versions).values(version=number, applied_at=now))
