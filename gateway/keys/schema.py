"""The tables of the key store, one definition for SQLite and Postgres. Knows nothing of what the numbers are for.

Times are integer milliseconds since 1970 in UTC, money integer nano-dollars. A request is one row from its admission
to its end, so that nothing can be counted twice or fall between two tables.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite gives row numbers only to a column declared exactly INTEGER.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

versions = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("blocked", Boolean, nullable=False),
    Column("models", Text, nullable=False),  # JSON list of patterns; empty: every model
    Column("budget_nano", BigInteger),
    Column("budget_tokens", BigInteger),
    Column("when_tight", String(8), nullable=False),  # clip | refuse
    Column("period", String(16)),  # None: the budget never resets
    Column("time_zone", String(64), nullable=False),
    # The budget period that the counters below belong to. `generation` counts resets, so that rows of an
    # earlier period can never be mistaken for this one's, whatever the clock did.
    Column("generation", Integer, nullable=False),
    Column("period_start", BigInteger, nullable=False),
    Column("period_end", BigInteger),
    Column("spent_nano", BigInteger, nullable=False),
    Column("spent_tokens", BigInteger, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("total_nano", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("rpm", Integer),
    Column("tpm", Integer),
    CheckConstraint("reserved_nano >= 0 and reserved_tokens >= 0", name="keys_reserved_not_negative"),
    CheckConstraint("when_tight in ('clip', 'refuse')", name="keys_when_tight"),
)
Index(
    "keys_name",
    keys.c.name,
    unique=True,
    sqlite_where=text("deleted_at is null"),
    postgresql_where=text("deleted_at is null"),
)

# A key has one secret, or two while an old one is still honoured after a rotation.
secrets = Table(
    "secrets",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the secret, hexadecimal
    Column("key_id", ForeignKey("keys.id"), nullable=False, index=True),
    Column("hint", String(24), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
)

# The processes that admit requests; who finds one dead settles what it left open.
owners = Table(
    "owners",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", String(64), nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("owner_id", String(36), nullable=False),
    Column("state", String(8), nullable=False),  # open, then settled | released | lost
    Column("outcome", String(64)),  # done, client left, the error's name, ...
    Column("generation", Integer),  # the period that paid for it
    Column("admitted_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("deadline", BigInteger, nullable=False),
    Column("asked_model", String(255), nullable=False),
    Column("answered_by", String(255)),
    Column("route", String(64), nullable=False),
    Column("client", String(64), nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("expected_tokens", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    CheckConstraint("state in ('open', 'settled', 'released', 'lost')", name="requests_state"),
)
Index("requests_key_time", requests.c.key_id, requests.c.admitted_at)
Index(
    "requests_open",
    requests.c.owner_id,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)
