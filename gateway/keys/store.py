"""The key store: virtual keys, what is reserved for running requests, what was spent. SQLite or Postgres.

Every change is one transaction that holds the key's row. Knows nothing of LiteLLM, HTTP or terminals.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    bindparam,
    case,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from gateway.keys import owners as processes
from gateway.keys.admission import Admission, Ask, Reason, Shortage, admit, matches, too_fast
from gateway.keys.migrations import migrate
from gateway.keys.periods import span_at
from gateway.keys.prepared import Prepared, Run
from gateway.keys.schema import keys, owners, requests, secrets
from gateway.keys.virtual_key import NewKey, Secret, VirtualKey, check_name, digest, hint, new_secret, now_ms
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import private_dir

MINUTE = 60_000
BUSY_SECONDS = 15.0


@dataclass(frozen=True)
class Call:
    """A request as the store records it. `deadline`: milliseconds from now after which it cannot be running."""

    id: str
    model: str
    route: str = ""
    client: str = ""
    streamed: bool = False
    deadline: int = 3_600_000


@dataclass(frozen=True)
class Admitted:
    """Reserved. `answer`: the limit that the answer must keep, None: any length."""

    nano: int
    tokens: int
    answer: int | None


@dataclass(frozen=True)
class Refused:
    """Not admitted. `key` is None when no key has this secret; `needed` in the unit of the reason."""

    reason: Reason
    key: VirtualKey | None = None
    needed: int = 0
    used: int = 0


@dataclass(frozen=True)
class Usage:
    """What a request really took."""

    cost_nano: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


CHANGEABLE = {
    "budget_nano",
    "budget_tokens",
    "period",
    "time_zone",
    "models",
    "rpm",
    "tpm",
    "expires",
    "when_tight",
}
_RENAMED = {"expires": "expires_at"}

_COLUMNS = [keys.c[field.name] for field in fields(VirtualKey) if field.name != "secrets"]
_BY_ID = select(*_COLUMNS).where(keys.c.id == bindparam("key_id"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_BY_SECRET = (
    select(*_COLUMNS, secrets.c.expires_at.label("secret_expires_at"))
    .join(secrets, secrets.c.key_id == keys.c.id)
    .where(secrets.c.digest == bindparam("digest"), keys.c.deleted_at.is_(None))
)
_LAST_MINUTE = select(
    func.count(),
    func.coalesce(
        func.sum(
            case(
                (requests.c.state == "open", requests.c.expected_tokens),
                else_=requests.c.prompt_tokens + requests.c.completion_tokens,
            )
        ),
        0,
    ),
).where(
    requests.c.key_id == bindparam("key_id"),
    requests.c.admitted_at > bindparam("since"),
    requests.c.admitted_at <= bindparam("until"),
)
_REQUEST = select(
    requests.c.key_id,
    requests.c.state,
    requests.c.generation,
    requests.c.reserved_nano,
    requests.c.reserved_tokens,
    requests.c.cost_nano,
    requests.c.prompt_tokens,
    requests.c.completion_tokens,
).where(requests.c.id == bindparam("request_id"))
_ADD = insert(requests)
_END = update(requests).where(requests.c.id == bindparam("request_id"))
_RESERVE = (
    update(keys)
    .where(keys.c.id == bindparam("key_id"))
    .values(
        reserved_nano=keys.c.reserved_nano + bindparam("nano"),
        reserved_tokens=keys.c.reserved_tokens + bindparam("tokens"),
    )
)
_CHARGE = (
    update(keys)
    .where(keys.c.id == bindparam("key_id"))
    .values(
        reserved_nano=keys.c.reserved_nano - bindparam("freed_nano"),
        reserved_tokens=keys.c.reserved_tokens - bindparam("freed_tokens"),
        spent_nano=keys.c.spent_nano + bindparam("nano_now"),
        spent_tokens=keys.c.spent_tokens + bindparam("tokens_now"),
        total_nano=keys.c.total_nano + bindparam("nano"),
        total_tokens=keys.c.total_tokens + bindparam("tokens"),
    )
)
_TURN = (
    update(keys)
    .where(keys.c.id == bindparam("key_id"))
    .values(
        generation=bindparam("new_generation"),
        period_start=bindparam("new_start"),
        period_end=bindparam("new_end"),
        spent_nano=bindparam("new_nano"),
        spent_tokens=bindparam("new_tokens"),
    )
)


def open_store(url: str, *, clock: Callable[[], int] = now_ms) -> "KeyStore":
    """The store at an SQLAlchemy URL (`sqlite:///FILE` or `postgresql://...`), made or migrated if need be.

    Raises ToolkitError when it cannot be reached or was written by a newer toolkit.
    """
    store = KeyStore(_engine(url), clock=clock)
    try:
        with store.writing() as connection:
            migrate(connection, now=clock())
    except BaseException:
        store.close()
        raise
    return store


def open_instant(url: str, *, clock: Callable[[], int] = now_ms) -> "KeyStore | None":
    """A second door to an SQLite store that is open, for one thread: it never waits. None for Postgres, where every
    step may.

    A step that another process holds up raises StoreBusy at once, having done nothing.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return None
    return KeyStore(_engine(url, wait=0.0), clock=clock, one_thread=True)


class KeyStore:
    """Virtual keys and their requests. Every method blocks for milliseconds.

    Safe to use from several threads, unless opened for one.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], int], one_thread: bool = False) -> None:
        self.engine = engine
        self.clock = clock
        self._prepared = Prepared(engine, one_thread=one_thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all connections back."""
        self._prepared.close()
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that may write: committed at the end, rolled back on an exception."""
        with _explained(self.engine), self.engine.connect() as connection:
            connection.info["write"] = True
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A transaction that writes nothing; with `snapshot`, all of it sees the same moment of the store."""
        with _explained(self.engine), self.engine.connect() as connection:
            connection.info["write"] = False
            if snapshot and connection.dialect.name == "postgresql":  # SQLite's readers always see one moment
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def _fast(self, *, write: bool) -> Iterator[Run]:
        """As `writing` and `reading`, for the statements that every request needs."""
        with _explained(self.engine), self._prepared.transaction(write=write) as run:
            yield run

    # Keys

    def create(
        self,
        name: str,
        *,
        budget_nano: int | None = None,
        budget_tokens: int | None = None,
        period: str | None = None,
        time_zone: str = "UTC",
        models: Sequence[str] = (),
        rpm: int | None = None,
        tpm: int | None = None,
        expires: int | None = None,
        when_tight: str = "clip",
    ) -> NewKey:
        """A new key; the secret is only in the result. Raises UsageError if the name is taken."""
        check_name(name)
        now = self.clock()
        secret = new_secret()
        span = span_at(now, period, anchor=now, time_zone=time_zone)
        row = {
            "name": name,
            "created_at": now,
            "expires_at": expires,
            "blocked": False,
            "models": json.dumps(list(models)),
            "budget_nano": budget_nano,
            "budget_tokens": budget_tokens,
            "when_tight": when_tight,
            "period": period,
            "time_zone": time_zone,
            "generation": 0,
            "period_start": span.start,
            "period_end": span.end,
            "spent_nano": 0,
            "spent_tokens": 0,
            "reserved_nano": 0,
            "reserved_tokens": 0,
            "total_nano": 0,
            "total_tokens": 0,
            "rpm": rpm,
            "tpm": tpm,
        }
        try:
            with self.writing() as connection:
                made = connection.execute(insert(keys).values(row).returning(keys.c.id)).scalar_one()
                connection.execute(
                    insert(secrets).values(digest=digest(secret), key_id=made, hint=hint(secret), created_at=now)
                )
        except IntegrityError:
            raise UsageError(f"there is already a key named {name}", hint=f"toolkit keys show {name}") from None
        return NewKey(self.get(name), secret)

    def get(self, name: str) -> VirtualKey:
        """The key named `name`, as it stands now. Raises ToolkitError with the nearest names."""
        with self.reading() as connection:
            return self._named(connection, name).at(self.clock())

    def all(self) -> list[VirtualKey]:
        """Every key, by name, as they stand now."""
        now = self.clock()
        with self.reading() as connection:
            rows = connection.execute(select(*_COLUMNS).where(keys.c.deleted_at.is_(None)).order_by(keys.c.name))
            found = [_key(row) for row in rows]
            live: dict[int, list[Secret]] = {}
            for key_id, *secret in connection.execute(_live_secrets(now)):
                live.setdefault(key_id, []).append(Secret(*secret))
        return [replace(key.at(now), secrets=tuple(live.get(key.id, ()))) for key in found]

    def update(self, name: str, **changes: Any) -> VirtualKey:
        """Change limits of a key: any of `create`'s options by their names. What it spent in this period stays.

        A new `period` starts where the running one did, so that changing it back and forth gives nothing back.
        """
        unknown = set(changes) - CHANGEABLE
        if unknown:
            raise ValueError(f"not an option of a key: {sorted(unknown)}")
        now = self.clock()
        values = {_RENAMED.get(option, option): value for option, value in changes.items()}
        if "models" in values:
            values["models"] = json.dumps(list(values["models"]))
        with self.writing() as connection:
            key = _turned(connection.execute, self._named(connection, name), now)
            if "period" in values or "time_zone" in values:
                period = values.get("period", key.period)
                span = span_at(now, period, anchor=key.period_start, time_zone=values.get("time_zone", key.time_zone))
                values |= {"period_start": span.start, "period_end": span.end}
            if values:
                connection.execute(update(keys).where(keys.c.id == key.id).values(values))
            return self._named(connection, name).at(now)

    def rotate(self, name: str, *, grace: int = 0) -> NewKey:
        """A new secret for a key, whose history and limits stay. The old one is honoured for `grace` milliseconds."""
        now = self.clock()
        secret = new_secret()
        with self.writing() as connection:
            key = self._named(connection, name)
            old = secrets.c.key_id == key.id
            if grace > 0:
                later = (secrets.c.expires_at.is_(None)) | (secrets.c.expires_at > now + grace)
                connection.execute(update(secrets).where(old, later).values(expires_at=now + grace))
            else:
                connection.execute(secrets.delete().where(old))
            connection.execute(
                insert(secrets).values(digest=digest(secret), key_id=key.id, hint=hint(secret), created_at=now)
            )
            return NewKey(self._named(connection, name).at(now), secret)

    def block(self, name: str, *, blocked: bool = True) -> VirtualKey:
        """Refuse (or accept again) every request of this key from the next one on."""
        with self.writing() as connection:
            key = self._named(connection, name)
            connection.execute(update(keys).where(keys.c.id == key.id).values(blocked=blocked))
        return replace(key, blocked=blocked).at(self.clock())

    def delete(self, name: str) -> VirtualKey:
        """Forget the key and its secrets; what it spent stays in the reports. Its name is free again."""
        with self.writing() as connection:
            key = self._named(connection, name)
            connection.execute(update(keys).where(keys.c.id == key.id).values(deleted_at=self.clock(), blocked=True))
            connection.execute(secrets.delete().where(secrets.c.key_id == key.id))
        return key

    # Requests

    def authenticate(self, secret: str) -> VirtualKey | Refused:
        """The key of this secret, if it may be used now."""
        now = self.clock()
        with self._fast(write=False) as run:
            row = run(_BY_SECRET, {"digest": digest(secret)}).fetchone()
        if row is None or (row[-1] is not None and now >= row[-1]):
            return Refused(Reason.UNKNOWN_KEY)
        key = _key(row[:-1]).at(now)
        return _usable(key, now) or key

    def admit(self, key_id: int, call: Call, ask: Ask, owner: str) -> Admitted | Refused:
        """Reserve what `call` can cost at most, or say why not. The same call is never admitted twice."""
        try:
            with self._fast(write=True) as run:
                row = run(_BY_ID_LOCKED, {"key_id": key_id}).fetchone()
                now = self.clock()  # read while the row is held: those admitted while we waited count in the window
                if row is None:
                    return Refused(Reason.UNKNOWN_KEY)
                key = _turned(run, _key(row), now)
                unusable = _usable(key, now)
                if unusable is not None:
                    return unusable
                if not matches(call.model, key.models):
                    return Refused(Reason.MODEL, key)
                if key.rpm is not None or key.tpm is not None:
                    # A minute ahead: another gateway's clock may be; a row from much later is a clock set back.
                    window = {"key_id": key_id, "since": now - MINUTE, "until": now + MINUTE}
                    count, tokens = run(_LAST_MINUTE, window).fetchone()
                    fast = too_fast(ask, key.rpm, key.tpm, requests=count, tokens=int(tokens))
                    if fast is not None:
                        used = count if fast.reason is Reason.REQUEST_RATE else int(tokens)
                        return Refused(fast.reason, key, fast.needed, used)
                granted = admit(ask, key.purse, clip=key.when_tight == "clip")
                if isinstance(granted, Shortage):
                    return Refused(granted.reason, key, granted.needed)
                run(_ADD, _opened(call, granted, ask, key_id=key_id, owner=owner, now=now))
                run(_RESERVE, {"key_id": key_id, "nano": granted.nano, "tokens": granted.tokens})
        except IntegrityError:
            return Refused(Reason.NOT_ACCEPTED, key)
        return Admitted(granted.nano, granted.tokens, granted.answer)

    def refusal(self, key_id: int, reason: Reason) -> Refused:
        """A refusal that was decided before the key was looked at, with the key as it stands."""
        with self.reading() as connection:
            row = connection.execute(_BY_ID, {"key_id": key_id}).first()
        return Refused(reason, _key(row).at(self.clock()) if row is not None else None)

    def settle(self, request_id: str, usage: Usage, *, outcome: str = "done", answered_by: str | None = None) -> bool:
        """Charge what a request really took and free its reservation. False if it was settled before or is unknown.

        A request that was given up (released, or lost with its owner) and answers after all is charged now.
        """
        return self._end(request_id, "settled", outcome, usage, answered_by)

    def release(self, request_id: str, *, outcome: str) -> bool:
        """Free the reservation of a request that cost nothing. False if it is not open."""
        return self._end(request_id, "released", outcome, Usage(), None)

    def lose(self, request_id: str, *, outcome: str, usage: Usage | None = None) -> bool:
        """Close a request whose real cost is unknown, at a guess or at all it can have cost. False if not open."""
        return self._end(request_id, "lost", outcome, usage, None)

    # Owners

    def register(self) -> str:
        """Enter this process as an owner of reservations; returns its id there."""
        owner = str(uuid.uuid4())
        self.beat(owner)
        return owner

    def beat(self, owner: str) -> None:
        """Say that this process lives; also after it was silent for so long that others took it for dead."""
        now = self.clock()
        with self.writing() as connection:
            if connection.execute(update(owners).where(owners.c.id == owner).values(seen_at=now)).rowcount:
                return
            me = {
                "id": owner,
                "host": processes.host_name(),
                "pid": os.getpid(),
                "started": processes.started(os.getpid()) or "",
                "seen_at": now,
            }
            connection.execute(insert(owners).values(me))

    def tidy(self) -> None:
        """Move what SQLite has in its journal into the file, as far as no reader needs it there."""
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def sweep(self) -> int:
        """Close what dead owners left open, and what is past its deadline. Returns how many requests that were."""
        now = self.clock()
        with self.reading(snapshot=True) as connection:  # an owner that registers meanwhile must not look unknown
            living, gone = self.owners(connection)
            is_open = requests.c.state == "open"
            left = connection.execute(
                select(requests.c.id).where(is_open, requests.c.owner_id.not_in([owner.id for owner in living]))
            ).scalars()
            late = connection.execute(select(requests.c.id).where(is_open, requests.c.deadline < now)).scalars()
            stuck = dict.fromkeys(late, "no end seen") | dict.fromkeys(left, "gateway ended")
        closed = sum(self.lose(request, outcome=outcome) for request, outcome in stuck.items())
        if gone:
            with self.writing() as connection:
                still = select(requests.c.owner_id).where(requests.c.state == "open")
                dead = owners.c.id.in_([owner.id for owner in gone])
                connection.execute(owners.delete().where(dead, owners.c.id.not_in(still)))
        return closed

    def owners(self, connection: Connection) -> tuple[list[processes.Owner], list[processes.Owner]]:
        """The processes that use this store, and those that did and have ended."""
        now, here = self.clock(), processes.host_name()
        living: list[processes.Owner] = []
        gone: list[processes.Owner] = []
        for row in connection.execute(select(owners)):
            owner = processes.Owner(**row._mapping)
            (living if owner.lives(here=here, now=now) else gone).append(owner)
        return living, gone

    # Inside a transaction

    def _named(self, connection: Connection, name: str) -> VirtualKey:
        now = self.clock()
        found = select(*_COLUMNS).where(keys.c.name == name, keys.c.deleted_at.is_(None))
        if connection.info["write"]:
            found = found.with_for_update()
        row = connection.execute(found).first()
        if row is None:
            import difflib

            names = connection.execute(select(keys.c.name).where(keys.c.deleted_at.is_(None))).scalars().all()
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint_text = f"did you mean {' or '.join(near)}?" if near else "toolkit keys list"
            raise ToolkitError(f"there is no key named {name}", hint=hint_text)
        live = connection.execute(_live_secrets(now).where(secrets.c.key_id == row.id))
        return replace(_key(row), secrets=tuple(Secret(*secret) for _, *secret in live))

    def _end(self, request_id: str, state: str, outcome: str, usage: Usage | None, answered_by: str | None) -> bool:
        """Bring a request to its end. `usage` None: all that was reserved for it."""
        now = self.clock()
        with self._fast(write=True) as run:
            found = run(_REQUEST, {"request_id": request_id}).fetchone()
            if found is None:
                return False
            # The key's row first, always: two transactions that both want it wait for each other in one order.
            locked = run(_BY_ID_LOCKED, {"key_id": found[0]}).fetchone()
            key = _turned(run, _key(locked), now)
            if self.engine.dialect.name != "sqlite":  # there nobody else has written since this transaction began
                found = run(_REQUEST, {"request_id": request_id}).fetchone()
            was = _Was(*found)
            if was.state == "settled" or (state != "settled" and was.state != "open"):
                return False
            is_open = was.state == "open"
            took = Usage(was.reserved_nano, was.reserved_tokens) if usage is None else usage
            if state == "lost":  # a guess may not cost more than was promised
                took = replace(took, cost_nano=min(took.cost_nano, was.reserved_nano))
            # A correction belongs to the period that paid first; an open request to the one it ends in.
            paid_now = is_open or was.generation == key.generation
            nano = took.cost_nano - was.cost_nano
            tokens = took.prompt_tokens + took.completion_tokens - was.prompt_tokens - was.completion_tokens
            run(
                _END,
                {
                    "request_id": request_id,
                    "state": state,
                    "outcome": outcome[:64],
                    "generation": key.generation if is_open else was.generation,
                    "ended_at": now,
                    "answered_by": answered_by[:255] if answered_by else None,
                    "cost_nano": took.cost_nano,
                    "prompt_tokens": took.prompt_tokens,
                    "completion_tokens": took.completion_tokens,
                    "cache_read_tokens": took.cache_read_tokens,
                    "cache_write_tokens": took.cache_write_tokens,
                },
            )
            run(
                _CHARGE,
                {
                    "key_id": key.id,
                    "freed_nano": was.reserved_nano if is_open else 0,
                    "freed_tokens": was.reserved_tokens if is_open else 0,
                    "nano_now": nano if paid_now else 0,
                    "tokens_now": tokens if paid_now else 0,
                    "nano": nano,
                    "tokens": tokens,
                },
            )
        return True


def _live_secrets(now: int) -> Select[Any]:
    """The secrets honoured at the moment `now`, that without an end first: key, hint, end."""
    endless = secrets.c.expires_at.is_(None)
    found = select(secrets.c.key_id, secrets.c.hint, secrets.c.expires_at).where(endless | (secrets.c.expires_at > now))
    return found.order_by(endless.desc(), secrets.c.created_at.desc())


def _usable(key: VirtualKey, now: int) -> Refused | None:
    if key.blocked:
        return Refused(Reason.BLOCKED, key)
    if key.expired(now):
        return Refused(Reason.EXPIRED, key)
    return None


class _Was(NamedTuple):
    """A request as it stands in the store, in the order of `_REQUEST`."""

    key_id: int
    state: str
    generation: int | None
    reserved_nano: int
    reserved_tokens: int
    cost_nano: int
    prompt_tokens: int
    completion_tokens: int


def _opened(call: Call, granted: Admission, ask: Ask, *, key_id: int, owner: str, now: int) -> dict[str, Any]:
    """The row of a request that was just admitted."""
    return {
        "id": call.id,
        "key_id": key_id,
        "owner_id": owner,
        "state": "open",
        "admitted_at": now,
        "deadline": now + call.deadline,
        "asked_model": call.model[:255],
        "route": call.route[:64],
        "client": call.client[:64],
        "streamed": call.streamed,
        "reserved_nano": granted.nano,
        "reserved_tokens": granted.tokens,
        "expected_tokens": ask.expected,
        "cost_nano": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
    }


def _turned(run: Run, key: VirtualKey, now: int) -> VirtualKey:
    """The key with its period moved on, in the store too."""
    turned = key.at(now)
    if turned is not key:
        run(
            _TURN,
            {
                "key_id": key.id,
                "new_generation": turned.generation,
                "new_start": turned.period_start,
                "new_end": turned.period_end,
                "new_nano": turned.spent_nano,
                "new_tokens": turned.spent_tokens,
            },
        )
    return turned


_MODELS, _BLOCKED = (
    next(i for i, column in enumerate(_COLUMNS) if column.name == name) for name in ("models", "blocked")
)


def _key(row: Iterable[Any]) -> VirtualKey:
    """A row of `_COLUMNS` as a key."""
    values = list(row)
    values[_MODELS] = tuple(json.loads(values[_MODELS]))
    values[_BLOCKED] = bool(values[_BLOCKED])
    return VirtualKey(*values)


def _engine(url: str, *, wait: float = BUSY_SECONDS) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(
            f"{url.split('@')[-1]!r} is not the address of a key store",
            hint="set keys.database to a file, or to postgresql://user@host/name",
        ) from None
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(Path(parsed.database or ""), wait)
    if parsed.get_backend_name() == "postgresql":
        try:
            return create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                pool_size=4,
                max_overflow=12,
                connect_args={"connect_timeout": 5, "options": "-c lock_timeout=15s -c statement_timeout=60s"},
            )
        except (ImportError, NoSuchModuleError):
            raise ToolkitError(
                "a key store on Postgres needs the psycopg driver, which is not installed",
                hint="install local-llm-toolkit[postgres]",
            ) from None
    raise UsageError(
        f"a key store is kept in SQLite or Postgres, not in {parsed.get_backend_name()}",
        hint="set keys.database to a file, or to postgresql://user@host/name",
    )


def _sqlite(path: Path, wait: float) -> Engine:
    if not path.exists():
        # Made by us and not by SQLite, so that nobody else can read it for even a moment; the journal files
        # that SQLite makes beside it take the same mode.
        try:
            if not path.parent.exists():
                private_dir(path.parent)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise ToolkitError(
                f"the key store {path} cannot be made: {error.strerror}", hint=f"ls -ld {path.parent}"
            ) from None
    elif os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": wait, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")
        if not wait:
            connection.execute("PRAGMA wal_autocheckpoint=0")  # it waits for the disk; `tidy` does it elsewhere

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("write") else "BEGIN")

    return engine


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    """Turns what a database reports into a sentence. Constraint violations pass: they are answers, not faults."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, engine.dialect.loaded_dbapi.IntegrityError):
            raise IntegrityError(None, None, cause) from error
        place = engine.url.database if engine.dialect.name == "sqlite" else engine.url.render_as_string()
        reason = next(iter(str(cause).strip().splitlines()), "no reason given")
        kind = StoreBusy if getattr(cause, "sqlite_errorname", "").startswith("SQLITE_BUSY") else StoreUnavailable
        raise kind(f"the key store {place} does not work: {reason}", hint=_mend(engine, reason)) from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the key store does not work: {error}", hint="toolkit keys list") from error


class StoreUnavailable(ToolkitError):
    """The database cannot be reached, is full, locked or damaged."""


class StoreBusy(StoreUnavailable):
    """Another process is writing, and for longer than this one waits."""


def _mend(engine: Engine, reason: str) -> str:
    if engine.dialect.name != "sqlite":
        return f"check that Postgres answers at {engine.url.host or 'the local socket'}:{engine.url.port or 5432}"
    if "full" in reason:
        return f"make room on the disk of {engine.url.database}"
    if "malformed" in reason or "not a database" in reason:
        return f"move {engine.url.database} away and put a backup in its place"
    return f"ls -l {engine.url.database}*"
