"""Move a key store to another database, SQLite to Postgres or back, with nothing lost. Knows no settings.

The whole copy is one transaction of the target: it is there completely, proven equal, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, text

from gateway.keys.audit import audit
from gateway.keys.schema import keys, owners, requests, secrets
from gateway.keys.store import KeyStore
from toolkit.core.errors import ToolkitError, UsageError

ROWS_AT_ONCE = 1_000
_TABLES = (keys, secrets, owners, requests)


@dataclass(frozen=True)
class Moved:
    """What was copied."""

    keys: int
    secrets: int
    requests: int


def move(source: KeyStore, target: KeyStore, *, progress: Callable[[int], None] = lambda rows: None) -> Moved:
    """Copy everything of `source` into the empty store `target`; `source` is left as it is.

    Raises ToolkitError if a gateway is using `source`, `target` is the same or holds keys, or the copy does not add up.
    """
    if source.engine.url == target.engine.url:
        raise UsageError(
            "the store is there already", hint="toolkit keys migrate-store postgresql://user@host/name, or another file"
        )
    source.sweep()
    found = audit(source)
    if not found.clean:
        first = found.findings[0]
        raise ToolkitError(
            f"the store does not add up and is not moved: {first.key}: {first.what}", hint="toolkit keys audit"
        )
    # A write lock on the source: nothing can change while it is read.
    with source.writing() as reading:
        _refuse_in_use(source, reading)
        if source.engine.dialect.name == "postgresql":
            reading.execute(text("lock table keys, requests, secrets, owners in share mode"))
        with target.writing() as writing:
            if writing.scalar(select(func.count()).select_from(keys)):
                raise ToolkitError(
                    "the store to move to already holds keys",
                    hint="name an empty database, or a file that is not there",
                )
            counts = {}
            for table in _TABLES:
                number = 0
                rows = reading.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table)).mappings()
                for part in rows.partitions(ROWS_AT_ONCE):
                    writing.execute(insert(table), [dict(row) for row in part])
                    number += len(part)
                    progress(len(part))
                counts[table.name] = number
            if writing.dialect.name == "postgresql":
                # Rows came with their numbers; the next key must not get one of them again.
                writing.execute(
                    text("select setval(pg_get_serial_sequence('keys', 'id'), coalesce((select max(id) from keys), 1))")
                )
            for table in _TABLES:
                if writing.scalar(select(func.count()).select_from(table)) != counts[table.name]:
                    raise ToolkitError(f"the table {table.name} was not copied whole", hint="run the command again")
    return Moved(counts["keys"], counts["secrets"], counts["requests"])


def _refuse_in_use(store: KeyStore, connection: Connection) -> None:
    living, _ = store.owners(connection)
    for owner in living:
        raise ToolkitError(
            f"a gateway is using this store (process {owner.pid} on {owner.host.partition('/')[0]})",
            hint="toolkit gateway down",
        )
