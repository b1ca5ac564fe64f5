"""The key store on both engines: nothing over the budget, nothing lost, nothing counted twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from gateway.keys import owners as processes
from gateway.keys.admission import Ask, Price, Reason
from gateway.keys.schema import keys, owners, requests, secrets, versions
from gateway.keys.store import Admitted, Call, KeyStore, Refused, Usage, open_store
from gateway.keys.virtual_key import digest
from toolkit.core.errors import ToolkitError, UsageError

DAY = 86_400_000
ONE = Price(input=0, output=1_000_000)  # one nano-dollar a token of answer


def ask(tokens: int, **more: Any) -> Ask:
    return Ask(prompt=0, answer=tokens, price=ONE, **more)


def admit(store: KeyStore, key_id: int, call: str, wanted: Ask, *, model: str = "m") -> Admitted | Refused:
    return store.admit(key_id, Call(call, model), wanted, "owner")


def test_a_secret_opens_its_key_and_only_its_hash_is_stored(store: KeyStore) -> None:
    made = store.create("laptop", budget_nano=5)
    found = store.authenticate(made.secret)
    assert not isinstance(found, Refused)
    assert found.name == "laptop"
    assert store.authenticate(made.secret + "x") == Refused(Reason.UNKNOWN_KEY)
    with store.reading() as connection:
        kept = [str(row) for table in (keys, secrets) for row in connection.execute(select(table))]
    assert not any(made.secret[12:30] in row for row in kept)
    assert any(digest(made.secret) in row for row in kept)


def test_a_name_is_given_once_and_is_free_again_after_deletion(store: KeyStore) -> None:
    first = store.create("laptop")
    with pytest.raises(UsageError, match="already a key named laptop"):
        store.create("laptop")
    store.delete("laptop")
    assert store.authenticate(first.secret) == Refused(Reason.UNKNOWN_KEY)
    second = store.create("laptop")
    assert second.key.id != first.key.id


def test_an_unknown_name_is_answered_with_the_nearest_one(store: KeyStore) -> None:
    store.create("opencode")
    with pytest.raises(ToolkitError) as caught:
        store.get("opencoed")
    assert "opencode" in (caught.value.hint or "")


def test_blocked_and_expired_keys_are_refused_and_come_back(store: KeyStore, clock: Any) -> None:
    made = store.create("laptop", expires=clock.now + 1000)
    store.block("laptop")
    blocked = store.authenticate(made.secret)
    assert isinstance(blocked, Refused)
    assert blocked.reason is Reason.BLOCKED
    refused = admit(store, made.key.id, "1", ask(1))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BLOCKED
    store.block("laptop", blocked=False)
    assert not isinstance(store.authenticate(made.secret), Refused)
    clock.now += 1000
    expired = store.authenticate(made.secret)
    assert isinstance(expired, Refused)
    assert expired.reason is Reason.EXPIRED


def test_two_requests_that_fit_alone_but_not_together_admit_one(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100, when_tight="refuse").key
    assert admit(store, key.id, "1", ask(60)) == Admitted(60, 60, 60)
    refused = admit(store, key.id, "2", ask(60))
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.needed) == (Reason.BUDGET, 60)
    assert store.settle("1", Usage(cost_nano=10, completion_tokens=10))
    assert admit(store, key.id, "2", ask(60)) == Admitted(60, 60, 60)


def test_many_requests_at_once_never_promise_more_than_the_budget(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=1000, when_tight="refuse").key

    def one(number: int) -> bool:
        return isinstance(admit(store, key.id, str(number), ask(30)), Admitted)

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(one, range(60)))
    assert admitted == 33
    assert store.get("laptop").reserved_nano == 990


def test_a_request_is_settled_once_and_admitted_once(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1", ask(10))
    repeated = admit(store, key.id, "1", ask(10))
    assert isinstance(repeated, Refused)
    assert repeated.reason is Reason.NOT_ACCEPTED
    assert store.settle("1", Usage(cost_nano=7, completion_tokens=7))
    assert not store.settle("1", Usage(cost_nano=7, completion_tokens=7))
    assert not store.release("1", outcome="late")
    after = store.get("laptop")
    assert (after.spent_nano, after.reserved_nano, after.total_nano) == (7, 0, 7)


def test_a_released_request_costs_nothing_unless_it_answers_after_all(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1", ask(10))
    assert store.release("1", outcome="InternalServerError")
    assert store.get("laptop").spent_nano == 0
    assert store.settle("1", Usage(cost_nano=7))
    assert store.get("laptop").spent_nano == 7


def test_a_lost_request_costs_all_it_can_have_cost_until_its_real_cost_is_known(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1", ask(10))
    assert store.lose("1", outcome="owner ended")
    lost = store.get("laptop")
    assert (lost.spent_nano, lost.spent_tokens, lost.reserved_nano) == (10, 10, 0)
    assert store.settle("1", Usage(cost_nano=3, completion_tokens=3))
    found = store.get("laptop")
    assert (found.spent_nano, found.spent_tokens, found.total_nano) == (3, 3, 3)


def test_a_guess_is_never_charged_above_what_was_promised(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1", ask(10))
    assert store.lose("1", outcome="upstream broke off", usage=Usage(cost_nano=50, completion_tokens=50))
    assert store.get("laptop").spent_nano == 10


def test_a_spent_budget_admits_again_in_the_next_period(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=10, period="1d").key
    admit(store, key.id, "1", ask(10))
    store.settle("1", Usage(cost_nano=10))
    clock.now += DAY - 1
    assert isinstance(admit(store, key.id, "2", ask(10)), Refused)
    clock.now += 1
    assert isinstance(admit(store, key.id, "2", ask(10)), Admitted)


def test_a_request_over_the_end_of_a_period_is_paid_by_the_one_it_ends_in(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100, period="1d").key
    admit(store, key.id, "1", ask(10))
    store.settle("1", Usage(cost_nano=10))
    admit(store, key.id, "2", ask(50))
    clock.now += DAY
    assert store.get("laptop").spent_nano == 0
    assert store.get("laptop").purse.nano == 50
    store.settle("2", Usage(cost_nano=40))
    after = store.get("laptop")
    assert (after.spent_nano, after.total_nano, after.generation) == (40, 50, 1)


def test_a_late_correction_goes_to_the_period_that_paid_first(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100, period="1d").key
    admit(store, key.id, "1", ask(10))
    store.lose("1", outcome="owner ended")
    clock.now += DAY
    store.settle("1", Usage(cost_nano=4, completion_tokens=4))
    after = store.get("laptop")
    assert (after.spent_nano, after.total_nano, after.spent_tokens) == (0, 4, 0)


def test_models_outside_the_keys_patterns_are_refused(store: KeyStore) -> None:
    key = store.create("laptop", models=["gemma-4-*", "mistral-small"]).key
    assert isinstance(admit(store, key.id, "1", ask(1), model="gemma-4-e4b"), Admitted)
    refused = admit(store, key.id, "2", ask(1), model="gpt-5")
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.MODEL


def test_rates_are_counted_over_the_last_minute_in_the_store(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", rpm=2, tpm=100).key
    first = Ask(0, 10, ONE, expected=40)
    assert isinstance(admit(store, key.id, "1", first), Admitted)
    store.settle("1", Usage(completion_tokens=70))
    too_many_tokens = admit(store, key.id, "2", first)
    assert isinstance(too_many_tokens, Refused)
    assert (too_many_tokens.reason, too_many_tokens.used) == (Reason.TOKEN_RATE, 70)
    assert isinstance(admit(store, key.id, "3", Ask(0, 10, ONE, expected=10)), Admitted)
    too_many = admit(store, key.id, "4", Ask(0, 10, ONE, expected=1))
    assert isinstance(too_many, Refused)
    assert (too_many.reason, too_many.used) == (Reason.REQUEST_RATE, 2)
    clock.now += 60_000
    assert isinstance(admit(store, key.id, "5", first), Admitted)


def test_what_a_dead_process_left_open_is_closed_and_what_a_living_one_holds_is_not(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    living = store.register()
    dead = {"id": "dead", "host": processes.host_name(), "pid": 1, "started": "before time", "seen_at": 0}
    with store.writing() as connection:
        connection.execute(insert(owners).values(dead))
    store.admit(key.id, Call("held", "m"), ask(10), living)
    store.admit(key.id, Call("left", "m"), ask(20), "dead")
    assert store.sweep() == 1
    after = store.get("laptop")
    assert (after.reserved_nano, after.spent_nano) == (10, 20)
    with store.reading() as connection:
        assert list(connection.execute(select(owners.c.id)).scalars()) == [living]


def test_a_process_on_another_host_is_dead_when_its_heartbeat_stops(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100).key
    with store.writing() as connection:
        far = {"id": "far", "host": "elsewhere", "pid": 1, "started": "x", "seen_at": clock.now}
        connection.execute(insert(owners).values(far))
    store.admit(key.id, Call("1", "m"), ask(10), "far")
    clock.now += 50_000
    assert store.sweep() == 0
    store.beat("far")
    clock.now += 50_000
    assert store.sweep() == 0
    clock.now += 20_000
    assert store.sweep() == 1


def test_a_process_taken_for_dead_by_mistake_enters_itself_again(store: KeyStore) -> None:
    owner = store.register()
    with store.writing() as connection:
        connection.execute(owners.delete())
    store.beat(owner)
    with store.reading() as connection:
        assert list(connection.execute(select(owners.c.id)).scalars()) == [owner]


def test_a_request_past_its_deadline_is_closed_though_its_process_lives(store: KeyStore, clock: Any) -> None:
    key = store.create("laptop", budget_nano=100).key
    store.admit(key.id, Call("1", "m", deadline=5000), ask(10), store.register())
    clock.now += 5000
    assert store.sweep() == 0
    clock.now += 1
    assert store.sweep() == 1


def test_the_counters_equal_the_sums_of_the_rows(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=10_000).key
    for number in range(30):
        admit(store, key.id, str(number), ask(100))
        if number % 3 == 0:
            store.settle(str(number), Usage(cost_nano=number, completion_tokens=number))
        elif number % 3 == 1:
            store.release(str(number), outcome="failed")
    with store.reading() as connection:
        spent, held = connection.execute(
            text(
                "select sum(cost_nano), sum(case when state = 'open' then reserved_nano else 0 end)"
                " from requests where key_id = :key"
            ),
            {"key": key.id},
        ).one()
    after = store.get("laptop")
    assert (after.spent_nano, after.reserved_nano) == (spent, held)


def test_a_store_file_can_be_read_by_its_user_only(tmp_path: Path, opened: Callable[..., KeyStore]) -> None:
    path = tmp_path / "deep" / "keys.db"
    opened(f"sqlite:///{path}").create("laptop")
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(part.stat().st_mode & 0o077 == 0 for part in path.parent.iterdir())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    opened(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_store_of_a_newer_toolkit_is_refused(store: KeyStore) -> None:
    with store.writing() as connection:
        connection.execute(insert(versions).values(version=99, applied_at=0))
    url = store.engine.url.render_as_string(hide_password=False)
    with pytest.raises(ToolkitError, match="schema version 99"):
        open_store(url)


def test_what_is_no_store_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but some text that is long enough\n" * 40)
    with pytest.raises(ToolkitError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(UsageError, match="SQLite or Postgres"):
        open_store("mysql://localhost/x")
    with pytest.raises(ToolkitError, match="does not work"):
        open_store("postgresql://toolkit@127.0.0.1:1/none")


def test_deleting_a_key_keeps_what_it_spent_and_its_running_request_still_settles(store: KeyStore) -> None:
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1", ask(10))
    store.delete("laptop")
    assert store.settle("1", Usage(cost_nano=5))
    with store.reading() as connection:
        assert connection.scalar(select(requests.c.cost_nano)) == 5
        assert connection.scalar(select(keys.c.total_nano)) == 5
