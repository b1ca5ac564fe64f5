"""Pulling from a local hub (a stand-in, see hub_standin.py): whole, resumed, and through every fault."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.models import catalogue, download, pull, store
from gateway.models.fit import Room
from gateway.models.gguf import NotGguf
from gateway.models.hub import HubFile
from tests.gateway.models.conftest import Listener
from tests.gateway.models.hub_standin import COMMIT, Hub, local_hub
from toolkit.core.errors import ToolkitError, UsageError

REFERENCE = "hf.co/owner/model-GGUF:Q4_K_M"
GIB = 2**30


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are counted, not waited."""
    waits: list[float] = []
    defaults = dict(download.download.__kwdefaults__ or {}) | {"wait": waits.append}
    monkeypatch.setattr(download.download, "__kwdefaults__", defaults)
    return waits


def planned(reference: str = REFERENCE) -> pull.Plan:
    return pull.plan(reference, None, catalogue.read())


def test_a_pull_brings_model_and_projector_and_leaves_a_receipt(hub: Hub, watcher: Listener) -> None:
    receipt = pull.fetch(planned(), watcher)
    assert receipt == store.find("model") == store.find("model:Q4_K_M")
    assert (receipt.repository, receipt.revision, receipt.licence) == ("owner/model-GGUF", COMMIT, "apache-2.0")
    assert receipt.path.read_bytes() == hub.files["model-Q4_K_M.gguf"]
    assert receipt.projector is not None
    assert receipt.projector.read_bytes() == hub.files["mmproj-F16.gguf"]
    assert store.verify(receipt) == []
    assert watcher.done == receipt.size
    assert not list(store.incoming_dir().glob("*.part"))


def test_the_plan_knows_size_and_fit_from_the_header_alone(hub: Hub) -> None:
    plan = planned()
    assert plan.size == len(hub.files["model-Q4_K_M.gguf"]) + len(hub.files["mmproj-F16.gguf"])
    assert plan.architecture.name == "gemma4"
    assert plan.architecture.exact
    assert hub.sent == 0


def test_a_second_pull_fetches_nothing(hub: Hub, watcher: Listener) -> None:
    pull.fetch(planned(), watcher)
    before = hub.sent
    pull.fetch(planned(), watcher)
    assert hub.sent == before


def test_a_line_that_drops_again_and_again_fetches_every_byte_once(hub: Hub, watcher: Listener) -> None:
    whole = hub.files["model-Q4_K_M.gguf"]
    hub.faults.drop_after = [16_384 * count for count in (3, 20, 1, 7)]
    receipt = pull.fetch(planned(), watcher)
    assert receipt.path.read_bytes() == whole
    assert hub.ranges[:5] == [0, 49_152, 376_832, 393_216, 507_904]


def test_a_server_that_cannot_resume_is_read_from_the_start(hub: Hub, watcher: Listener) -> None:
    hub.faults.no_ranges = True
    hub.faults.drop_after = [65_536]
    receipt = pull.fetch(planned(), watcher)
    assert store.verify(receipt) == []
    assert any("from the start" in note for note in watcher.notes)
    assert watcher.done == receipt.size


@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=55'}, 55.0)])
def test_a_rate_limit_is_waited_out_as_told(
    hub: Hub, watcher: Listener, no_waiting: list[float], headers: dict[str, str], seconds: float
) -> None:
    hub.faults.statuses = [(429, headers)]
    pull.fetch(planned(), watcher)
    assert no_waiting == [seconds]


def test_a_rate_limit_of_an_hour_is_told_not_waited(hub: Hub, watcher: Listener, no_waiting: list[float]) -> None:
    hub.faults.statuses = [(429, {"Retry-After": "3600"})]
    with pytest.raises(ToolkitError, match="asks to wait 1h 00m"):
        pull.fetch(planned(), watcher)
    assert no_waiting == []


def test_a_server_that_restarts_is_waited_for(hub: Hub, watcher: Listener, no_waiting: list[float]) -> None:
    hub.faults.statuses = [(503, {}), (502, {}), (500, {})]
    pull.fetch(planned(), watcher)
    assert no_waiting == [1.0, 2.0, 4.0]


def test_a_server_that_stays_away_ends_the_pull_with_the_part_kept(hub: Hub, watcher: Listener) -> None:
    plan = planned()
    hub.faults.statuses = [(500, {})] * download.ATTEMPTS
    with pytest.raises(ToolkitError, match="after 10 attempts"):
        pull.fetch(plan, watcher)
    assert store.receipts() == []
    hub.faults.statuses = []
    assert store.verify(pull.fetch(plan, watcher)) == []


def test_wrong_bytes_are_thrown_away_and_never_get_a_final_name(hub: Hub, watcher: Listener) -> None:
    hub.faults.wrong_bytes = True
    with pytest.raises(ToolkitError, match="is not what was promised"):
        pull.fetch(planned(), watcher)
    assert not list(store.models_dir().rglob("*.gguf"))
    assert not list(store.incoming_dir().glob("*.part"))
    hub.faults.wrong_bytes = False
    assert store.verify(pull.fetch(planned(), watcher)) == []


def test_two_pulls_of_the_same_file_at_once_fetch_it_once(hub: Hub) -> None:
    hub.faults.pace = 0.002
    plan, listeners, failures = planned(), [Listener(), Listener()], []

    def run(listener: Listener) -> None:
        try:
            pull.fetch(plan, listener)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert hub.ranges.count(0) == 2  # the model and the projector, once each
    assert any("waiting for it" in note for listener in listeners for note in listener.notes)
    assert store.verify(store.find("model")) == []


def test_a_full_disk_keeps_what_has_come(hub: Hub, watcher: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [300_000]

    def write(descriptor: int, piece: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = real(descriptor, piece[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "write", write)
        with pytest.raises(ToolkitError, match=r"is full: [\d.]+ MiB more are needed"):
            pull.fetch(planned(), watcher)
    (part,) = store.incoming_dir().glob("*.part")
    assert part.stat().st_size == 300_000


def test_no_space_is_noticed_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull.Plan, "free_space", lambda self: 1000)
    with pytest.raises(ToolkitError, match="of disk in"):
        pull.refuse_without_space(planned())


def test_a_model_too_large_is_refused_with_the_largest_that_fits(hub: Hub) -> None:
    plan = planned("hf.co/owner/model-GGUF:Q8_0")
    small = plan.need(plan.useful_context).total - 4096
    with pytest.raises(ToolkitError, match="the largest of this model that fits is Q4_K_M") as caught:
        pull.refuse_if_too_large(plan, Room(small))
    assert caught.value.hint == "toolkit models pull hf.co/owner/model-GGUF:Q4_K_M"
    with pytest.raises(ToolkitError, match="no quantisation of it there fits"):
        pull.refuse_if_too_large(plan, Room(1000))
    pull.refuse_if_too_large(plan, Room(64 * GIB))


def test_a_quantisation_that_is_not_there_is_answered_with_those_that_are(hub: Hub) -> None:
    with pytest.raises(UsageError, match=r"has no Q2_K; there are Q4_K_M \([\d.]+ MiB\), Q8_0"):
        planned("hf.co/owner/model-GGUF:Q2_K")


def test_a_catalogue_name_with_a_typing_error_is_answered_with_the_near_ones() -> None:
    with pytest.raises(UsageError, match="near: gemma-4-e4b"):
        planned("gema-4-e4b")


@pytest.mark.parametrize(("fault", "said"), [("gated", "accept its licence"), ("missing", "no repository")])
def test_a_repository_that_is_not_open_is_said(hub: Hub, fault: str, said: str) -> None:
    setattr(hub.faults, fault, True)
    with pytest.raises(ToolkitError, match=said) as caught:
        planned()
    assert caught.value.hint is not None
    assert "hf auth login" in caught.value.hint


def test_a_file_that_is_no_gguf_is_noticed_before_it_is_fetched(hub: Hub) -> None:
    hub.files["model-Q4_K_M.gguf"] = b"<html>" + bytes(100_000)
    with pytest.raises(NotGguf, match="is no GGUF file"):
        planned()
    assert hub.sent == 0


def test_a_hub_that_is_not_there_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ToolkitError, match="cannot be reached"):
        planned()


def test_hostile_names_stay_in_the_store(hub: Hub, watcher: Listener, made_model: bytes) -> None:
    hub.files = {"../../../../evil-Q4_K_M.gguf": made_model, "/etc/evil-Q4_K_M.gguf": made_model}
    with pytest.raises(ToolkitError, match="holds no GGUF files"):
        planned()
    hub.files = {"quants/.evil name;rm -Q4_K_M.gguf": made_model}
    receipt = pull.fetch(planned(), watcher)
    assert receipt.path.parent.parent == store.models_dir()
    assert receipt.path.name == "evil_name_rm_-Q4_K_M.gguf"
    for path in ("..\\..\\x.gguf", "a/../../x.gguf", "..", "/x.gguf", "C:\\x.gguf"):
        name = HubFile(path, 0, None).name
        assert Path(name).name == name
        assert not name.startswith(".")
    for name in ("..", "../../x", "/etc/passwd", "a/../../b"):
        with contextlib.suppress(ToolkitError):
            assert store.folder_of(name).parent == store.models_dir()


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    hub: Hub, watcher: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with local_hub(hub.files) as elsewhere:
        hub.files = {"model-Q4_K_M.gguf": hub.files["model-Q4_K_M.gguf"]}
        hub.faults.redirect = f"{elsewhere.url}/cdn/model-Q4_K_M.gguf"
        pull.fetch(planned(), watcher)
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert elsewhere.seen_tokens == {None}


def test_a_redirect_to_unencrypted_http_is_refused() -> None:
    import httpx

    request = httpx.Request("GET", "https://hub.example/x")
    answer = httpx.Response(302, headers={"location": "http://evil.example/x"}, request=request)
    answer.next_request = httpx.Request("GET", "http://evil.example/x")
    with pytest.raises(ToolkitError, match="without encryption"):
        download._refuse_downgrade(answer)


def test_a_split_model_comes_whole_or_not_at_all(hub: Hub, watcher: Listener, made_model: bytes) -> None:
    hub.files = {f"big-Q4_K_M-{number:05d}-of-00003.gguf": made_model + bytes(number) for number in (1, 2, 3)}
    receipt = pull.fetch(planned(), watcher)
    assert [file.role for file in receipt.files] == ["model", "part", "part"]
    assert receipt.path.name == "big-Q4_K_M-00001-of-00003.gguf"
    del hub.files["big-Q4_K_M-00002-of-00003.gguf"]
    with pytest.raises(ToolkitError, match="holds no GGUF files"):
        planned()


def test_a_file_in_huggingface_hubs_own_cache_is_not_fetched_again(hub: Hub, watcher: Listener) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / "models--owner--model-GGUF"
    for name in ("model-Q4_K_M.gguf", "mmproj-F16.gguf"):
        path = folder / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.files[name])
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    receipt = pull.fetch(planned(), watcher)
    assert hub.sent == 0
    assert store.verify(receipt) == []


def test_verify_notices_what_changed_and_remove_takes_it_away(hub: Hub, watcher: Listener) -> None:
    receipt = pull.fetch(planned(), watcher)
    content = bytearray(receipt.path.read_bytes())
    content[-1] ^= 1
    receipt.path.write_bytes(content)
    assert "other contents" in store.verify(receipt)[0]
    receipt.path.write_bytes(content[:-1])
    assert "bytes, and had" in store.verify(receipt)[0]
    receipt.path.unlink()
    assert "is gone" in store.verify(receipt)[0]
    store.remove(receipt)
    assert not receipt.folder.exists()
    assert store.receipts() == []


def test_a_receipt_that_points_elsewhere_is_not_believed(hub: Hub, watcher: Listener) -> None:
    receipt = pull.fetch(planned(), watcher)
    path = receipt.folder / store.RECEIPT
    path.write_text(path.read_text().replace(receipt.path.name, "../../../../etc/passwd"))
    assert store.receipts() == []
    assert store.damaged() == [receipt.folder]


def test_a_file_of_ones_own_is_taken_in(tmp_path: Path, made_model: bytes, watcher: Listener) -> None:
    path = tmp_path / "mine-Q8_0.gguf"
    path.write_bytes(made_model)
    receipt = pull.adopt(path, watcher)
    assert receipt == store.find("mine-q8_0")
    assert (receipt.quant, store.verify(receipt)) == ("Q8_0", [])
    path.unlink()
    path.write_bytes(made_model[:-1])
    with pytest.raises(NotGguf, match="cut short"):
        pull.adopt(path, watcher)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_20_random_points_it_resumes_to_the_same_file_fetching_under_1_percent_twice(hub: Hub) -> None:
    content = hub.files["model-Q4_K_M.gguf"] + random.Random(5).randbytes(32 * 2**20)
    hub.files = {"model-Q4_K_M.gguf": content}
    hub.faults.small_pieces = True
    reached, released, target = threading.Event(), threading.Event(), [0]

    def hold(sent: int) -> None:
        """At the point where the client is to be killed, send no more until it is."""
        if sent >= target[0]:
            reached.set()
            released.wait(60)

    hub.on_sent = hold
    code = (
        "from gateway.models import catalogue, pull\n"
        "from tests.gateway.models.conftest import Listener\n"
        f"pull.fetch(pull.plan({REFERENCE!r}, None, catalogue.read()), Listener())\n"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[3]
    for point in sorted(random.Random(7).sample(range(2**20, 32 * 2**20), 20)):
        before = hub.sent
        target[0] = max(point, before + 1)
        child = subprocess.Popen(command, cwd=root)
        assert reached.wait(60)
        (part,) = store.incoming_dir().glob("*.part")
        deadline = time.monotonic() + 1
        # What was sent reaches the file unless it is kept in memory: give it a second, no more.
        while part.stat().st_size < hub.ranges[-1] + hub.sent - before and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        target[0] = 2**60
        reached.clear()
        released.set()
        released.clear()
    assert len(hub.ranges) == 20
    subprocess.run(command, cwd=root, check=True, timeout=120)
    assert hashlib.sha256(store.find("model").path.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert 0 <= hub.sent - len(content) < 0.01 * len(content)
