"""Audit, reports and the move to another database, on both engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.keys.admission import Ask, Price
from gateway.keys.audit import audit
from gateway.keys.schema import keys, owners, requests, secrets
from gateway.keys.spend import By, report, total
from gateway.keys.store import Call, KeyStore, Refused, Usage
from gateway.keys.transfer import move
from toolkit.core.errors import ToolkitError

DAY = 86_400_000
ONE = Price(input=0, output=1_000_000)


def spend(store: KeyStore, key_id: int, call: str, nano: int, *, model: str = "m", client: str = "c") -> None:
    store.admit(key_id, Call(call, model, client=client), Ask(0, max(nano, 1), ONE), "nobody")
    store.settle(call, Usage(cost_nano=nano, prompt_tokens=nano, completion_tokens=1, cache_read_tokens=1))


def test_an_untouched_store_is_clean(store: KeyStore) -> None:
    store.create("laptop")
    found = audit(store)
    assert found.clean
    assert (found.keys, found.requests) == (1, 0)


@pytest.mark.parametrize(
    "counter", ["spent_nano", "spent_tokens", "reserved_nano", "reserved_tokens", "total_nano", "total_tokens"]
)
def test_a_counter_that_is_off_by_one_is_found(store: KeyStore, counter: str) -> None:
    key = store.create("laptop", budget_nano=100).key
    spend(store, key.id, "1", 7)
    assert audit(store).clean
    with store.writing() as connection:
        connection.execute(update(keys).values({counter: getattr(keys.c, counter) + 1}))
    [finding] = audit(store).findings
    assert finding.key == "laptop"
    assert finding.what.startswith(f"{counter} is ")


def test_a_request_that_vanished_and_one_that_nobody_will_end_are_found(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    spend(store, key.id, "1", 7)
    store.admit(key.id, Call("2", "m"), Ask(0, 5, ONE), "no such owner")
    assert [finding.what for finding in audit(store).findings] == ["1 requests are open that nobody will end"]
    store.sweep()
    assert audit(store).clean
    assert audit(store).lost == 1
    with store.writing() as connection:
        connection.execute(requests.delete().where(requests.c.id == "1"))
    assert not audit(store).clean


def test_a_reset_leaves_the_books_balanced(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100, period="1d").key
    for day in range(4):
        spend(store, key.id, f"a{day}", 30)
        store.admit(key.id, Call(f"b{day}", "m"), Ask(0, 10, ONE), store.register())
        clock.now += DAY
        store.settle(f"b{day}", Usage(cost_nano=9))
        assert audit(store).clean
    assert store.get("laptop").total_nano == 4 * 39


def test_a_changed_period_keeps_what_was_spent_in_it(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100, period="1d").key
    spend(store, key.id, "1", 30)
    changed = store.update("laptop", period="7d", budget_nano=200)
    assert (changed.spent_nano, changed.budget_nano, changed.period) == (30, 200, "7d")
    assert changed.period_end == key.period_start + 7 * DAY
    clock.now += 2 * DAY
    assert store.get("laptop").spent_nano == 30
    back = store.update("laptop", period="1d")
    assert back.spent_nano == 30
    clock.now += DAY
    assert store.get("laptop").spent_nano == 0
    spend(store, key.id, "2", 5)
    assert audit(store).clean


def test_a_change_after_the_end_of_a_period_starts_the_new_one_first(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100, period="1d").key
    spend(store, key.id, "1", 30)
    clock.now += DAY
    assert store.update("laptop", rpm=5).spent_nano == 0
    spend(store, key.id, "2", 5)
    assert store.get("laptop").spent_nano == 5
    assert audit(store).clean


def test_a_new_secret_has_the_same_history_and_the_old_one_its_grace(store: KeyStore, clock: Any) -> None:
    made = store.create("laptop", budget_nano=100)
    spend(store, made.key.id, "1", 7)
    second = store.rotate("laptop", grace=1000)
    assert (second.key.id, second.key.spent_nano) == (made.key.id, 7)
    assert [secret.expires_at for secret in second.key.secrets] == [None, clock.now + 1000]
    assert not isinstance(store.authenticate(made.secret), Refused)
    clock.now += 1000
    assert isinstance(store.authenticate(made.secret), Refused)
    assert not isinstance(store.authenticate(second.secret), Refused)
    third = store.rotate("laptop")
    assert isinstance(store.authenticate(second.secret), Refused)
    assert not isinstance(store.authenticate(third.secret), Refused)
    assert [secret.expires_at for secret in store.get("laptop").secrets] == [None]


def test_a_second_rotation_never_lengthens_the_grace_of_the_first(store: KeyStore, clock: Any) -> None:
    first = store.create("laptop").secret
    store.rotate("laptop", grace=1000)
    store.rotate("laptop", grace=5000)
    clock.now += 1500
    assert isinstance(store.authenticate(first), Refused)


def test_reports_group_by_key_model_client_and_day_and_all_add_up(store: KeyStore, clock: Any) -> None:
    one, two = store.create("one").key, store.create("two").key
    spend(store, one.id, "1", 10, model="a", client="opencode")
    spend(store, two.id, "2", 30, model="b", client="claude-code")
    clock.now += DAY
    spend(store, one.id, "3", 5, model="b", client="opencode")
    store.admit(one.id, Call("4", "b", client="opencode"), Ask(0, 1, ONE), "nobody")
    store.release("4", outcome="failed")
    by_key = report(store, by=By.KEY)
    assert [(line.name, line.cost_nano, line.requests, line.failed) for line in by_key] == [
        ("two", 30, 1, 0),
        ("one", 15, 3, 1),
    ]
    assert [(line.name, line.cost_nano) for line in report(store, by=By.MODEL)] == [("b", 35), ("a", 10)]
    assert [(line.name, line.cost_nano) for line in report(store, by=By.CLIENT)] == [
        ("claude-code", 30),
        ("opencode", 15),
    ]
    days = report(store, by=By.DAY)
    assert [line.cost_nano for line in days] == [40, 5]
    assert {total(report(store, by=group)).cost_nano for group in By} == {45}
    assert [line.cost_nano for line in report(store, by=By.KEY, since=clock.now)] == [5]


def test_days_are_those_of_the_time_zone(store: KeyStore, clock: Any) -> None:
    clock.now = 1_772_000_000_000 // DAY * DAY + DAY - 3_600_000  # 23:00 in London, 00:00 in Berlin, 04:45 in Kathmandu
    key = store.create("laptop").key
    spend(store, key.id, "1", 5)
    [utc], [berlin] = (report(store, by=By.DAY, time_zone=place) for place in ("UTC", "Europe/Berlin"))
    assert utc.name < berlin.name
    clock.now -= 4 * 3_600_000 + 46 * 60_000  # 18:14 UTC: still 23:59 in Kathmandu
    spend(store, key.id, "2", 5)
    assert [line.cost_nano for line in report(store, by=By.DAY, time_zone="Asia/Kathmandu")] == [5, 5]


def test_a_store_moves_to_another_database_with_nothing_lost(
    store: KeyStore, tmp_path: Path, opened: Callable[..., KeyStore], clock: Any
) -> None:
    made = store.create("laptop", budget_nano=10_000, period="1mo", time_zone="Europe/Berlin", models=["a*"], rpm=99)
    old = store.rotate("laptop", grace=DAY)
    store.create("gone")
    store.delete("gone")
    for number in range(24):
        spend(store, made.key.id, str(number), 7, model=f"a{number}")
    copy = opened(f"sqlite:///{tmp_path / 'copy.db'}", clock)
    moved = move(store, copy)
    assert (moved.keys, moved.secrets, moved.requests) == (2, 2, 24)
    assert copy.all() == store.all()
    assert audit(copy).clean
    for table in (keys, secrets, owners, requests):
        by = list(table.primary_key.columns)
        with store.reading() as left, copy.reading() as right:
            assert left.execute(select(table).order_by(*by)).all() == right.execute(select(table).order_by(*by)).all()
    assert not isinstance(copy.authenticate(made.secret), Refused)
    assert not isinstance(copy.authenticate(old.secret), Refused)
    assert copy.create("another").key.id == 3
    with pytest.raises(ToolkitError, match="already holds keys"):
        move(store, copy)


def test_a_store_moves_to_postgres_and_the_next_key_gets_a_new_number(
    postgres: Any, tmp_path: Path, opened: Callable[..., KeyStore], clock: Any
) -> None:
    source = opened(f"sqlite:///{tmp_path / 'keys.db'}", clock)
    for name in ("one", "two", "three"):
        spend(source, source.create(name, budget_nano=100).key.id, name, 5)
    target = opened(postgres.database(f"moved_{tmp_path.name.replace('-', '_')[-20:]}"), clock)
    move(source, target)
    assert target.all() == source.all()
    assert target.create("four").key.id == 4
    spend(target, 4, "four", 5)
    assert audit(target).clean


def test_a_store_that_a_gateway_uses_is_not_moved(
    store: KeyStore, tmp_path: Path, opened: Callable[..., KeyStore]
) -> None:
    store.create("laptop")
    store.register()
    copy = opened(f"sqlite:///{tmp_path / 'copy.db'}")
    with pytest.raises(ToolkitError, match="a gateway is using this store") as caught:
        move(store, copy)
    assert caught.value.hint == "toolkit gateway down"
    assert copy.all() == []


def test_a_store_that_does_not_add_up_is_not_moved(
    store: KeyStore, tmp_path: Path, opened: Callable[..., KeyStore]
) -> None:
    store.create("laptop")
    with store.writing() as connection:
        connection.execute(update(keys).values(spent_nano=5))
    with pytest.raises(ToolkitError, match="does not add up"):
        move(store, opened(f"sqlite:///{tmp_path / 'copy.db'}"))
