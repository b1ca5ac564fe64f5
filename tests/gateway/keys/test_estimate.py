"""The estimate is an upper bound: of tokens for real tokenizers, of money for every hosted model with a price."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.admission import Price
from gateway.keys.estimate import LIMITS, Offer, ask, bound, limit_answer, price_of

TEXTS = st.text(max_size=300) | st.sampled_from(
    ["xqzjk " * 50, "日本語のテキスト" * 20, "\n\t  \n" * 40, "🦜🔗" * 30, "1234567890" * 20]
)
FREE = Price(0, 0)


@pytest.fixture(scope="module")
def encoding() -> Any:
    """OpenAI's cl100k tokenizer, from the copy that LiteLLM carries."""
    package = find_spec("litellm")  # not imported: it would look for a newer list of prices on the net
    assert package is not None
    assert package.origin is not None
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(package.origin).parent / "litellm_core_utils/tokenizers")
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


@given(texts=st.lists(TEXTS, min_size=1, max_size=6), system=TEXTS)
def test_no_prompt_has_more_tokens_than_its_bound(encoding: Any, texts: list[str], system: str) -> None:
    messages = [
        {"role": "user" if number % 2 == 0 else "assistant", "content": text} for number, text in enumerate(texts)
    ]
    rendered = "".join(f"<|im_start|>{part['role']}\n{part['content']}<|im_end|>\n" for part in messages)
    real = len(encoding.encode(rendered + system, disallowed_special=()))
    for body in (
        {"messages": [{"role": "system", "content": system}, *messages]},
        {
            "system": system,
            "messages": [{**part, "content": [{"type": "text", "text": part["content"]}]} for part in messages],
        },
        {"instructions": system, "input": messages},
    ):
        assert real <= (bound(body).prompt or 0)


@given(names=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8), text=TEXTS)
def test_tools_are_bounded_also_when_a_template_indents_them(encoding: Any, names: list[str], text: str) -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": text,
                "parameters": {"type": "object", "properties": {name: {"type": "string", "enum": [name, text]}}},
            },
        }
        for name in names
    ]
    empty, full = bound({"messages": []}).prompt or 0, bound({"messages": [], "tools": tools}).prompt or 0
    for indent in (None, 2, 4):
        rendered = json.dumps(tools, ensure_ascii=False, indent=indent)
        assert len(encoding.encode(rendered, disallowed_special=())) <= full - empty


@given(text=TEXTS)
def test_an_embedding_is_bounded_by_its_text(encoding: Any, text: str) -> None:
    real = len(encoding.encode(text, disallowed_special=()))
    assert real <= (bound({"input": text}, embedding=True).prompt or 0)
    assert real + 1 <= (bound({"input": [text, "x"]}, embedding=True).prompt or 0)
    ids = encoding.encode(text, disallowed_special=())
    assert len(ids) <= (bound({"input": ids}, embedding=True).prompt or 0)


def test_the_longest_of_the_limits_and_the_most_copies_count() -> None:
    body = {"messages": [], "max_tokens": 10, "max_completion_tokens": 50, "n": 3, "best_of": 5}
    found = bound(body, limits=LIMITS["acompletion"])
    assert (found.answer, found.copies) == (50, 5)
    assert bound({"messages": [], "max_tokens": 10, "n_predict": -1}).answer is None
    assert bound({"messages": [], "max_tokens": "many"}).answer is None
    assert bound({"input": "x", "max_output_tokens": 7}, limits=LIMITS["aresponses"]).answer == 7


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("aresponses", {"input": "x", "max_tokens": 7}),
        ("anthropic_messages", {"messages": [], "max_completion_tokens": 7, "n_predict": 7}),
        ("acompletion", {"messages": [], "max_output_tokens": 7}),
    ],
)
def test_a_limit_that_the_api_does_not_know_bounds_nothing_and_a_real_one_is_set_beside_it(
    call: str, body: dict[str, Any]
) -> None:
    limits = LIMITS.get(call, ("max_tokens",))
    assert bound(body, limits=limits).answer is None
    limit_answer(body, 100, limits=limits)
    assert body[limits[0]] == 100
    assert 7 not in body.values()


def test_each_of_several_prompts_is_answered() -> None:
    assert bound({"prompt": ["one", "two", "three"], "n": 2, "max_tokens": 10}).copies == 6
    assert bound({"prompt": [[1, 2], [3]]}).copies == 2
    assert bound({"prompt": "one"}).copies == bound({"prompt": [1, 2, 3]}).copies == bound({"prompt": []}).copies == 1


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "x"}}]}]},
        {"input": "go on", "previous_response_id": "resp_1"},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"prompt": {"id": "pmpt_1"}},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/film.mp4"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:video/mp4;base64,A"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document_url", "document_url": "https://x/book"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "https://x/speech.mp3"}]}]},
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y"}}]}
            ]
        },
        {"messages": [{"role": "user", "images": [{"image_url": {"url": "gs://x/1.png", "format": "video/mp4"}}]}]},
    ],
    ids=lambda body: json.dumps(body)[-60:],
)
def test_what_cannot_be_measured_is_bounded_by_the_context_or_not_at_all(body: dict[str, Any]) -> None:
    found = bound(body)
    assert found.prompt is None
    assert ask(found, [Offer(FREE)]) is None
    wanted = ask(found, [Offer(FREE, context=8192)])
    assert wanted is not None
    assert wanted.prompt == 8192


def test_a_document_given_as_text_is_measured() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "x" * 5000}
    found = bound({"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]})
    assert 5000 <= (found.prompt or 0) < 8000


def test_a_picture_counts_as_the_dearest_known_picture_and_not_as_its_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    found = bound({"messages": [{"role": "user", "content": [picture]}]})
    assert 48_169 <= (found.prompt or 0) < 60_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": "https://x/picture.PNG?size=2"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "computer_screenshot", "image_url": "data:image/png;base64," + "A" * 100_000},
    ],
    ids=["address", "anthropic", "kept", "screenshot"],
)
def test_a_picture_of_every_format_is_one_picture(part: dict[str, Any]) -> None:
    assert 50_000 <= (bound({"messages": [{"role": "user", "content": [part]}]}).prompt or 0) < 60_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "role": "user", "content": "x" * 90_000},
        {"type": "document", "source": {"type": "text", "data": "x"}, "context": "x" * 90_000},
        {"type": "input_image", "image_url": "https://x/1.png", "role": "user", "content": "x" * 90_000},
    ],
    ids=["picture", "document", "picture with an address"],
)
def test_what_a_message_calls_itself_hides_none_of_its_text(part: dict[str, Any]) -> None:
    assert (bound({"messages": [part]}).prompt or 0) >= 90_000


@given(value=TEXTS, name=TEXTS)
def test_what_litellm_writes_as_json_into_a_text_is_bounded(encoding: Any, value: str, name: str) -> None:
    arguments = {name: [value]}
    real = len(encoding.encode(json.dumps(arguments), disallowed_special=()))
    empty = bound({"messages": [{"content": [{"type": "tool_use", "input": {}}]}]}).prompt or 0
    full = bound({"messages": [{"content": [{"type": "tool_use", "input": arguments}]}]}).prompt or 0
    assert real - 1 <= full - empty
    empty = bound({"input": [{"type": "function_call_output", "output": {}}]}).prompt or 0
    full = bound({"input": [{"type": "function_call_output", "output": arguments}]}).prompt or 0
    assert real - 1 <= full - empty


def test_what_a_call_of_a_tool_holds_is_text_whatever_it_looks_like() -> None:
    call = {"type": "tool_use", "name": "make", "input": {"type": "file", "image_url": "https://x/film.mp4"}}
    assert (bound({"messages": [{"role": "assistant", "content": [call]}]}).prompt or 0) < 2_000


def test_a_schema_may_name_several_types() -> None:
    schema = {"type": "object", "properties": {"image_url": {"type": ["string", "null"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert (bound({"messages": [], "response_format": wanted}).prompt or 0) < 2_000


def test_a_local_context_bounds_prompt_and_answer_and_a_hosted_one_does_not() -> None:
    found = bound({"messages": [{"role": "user", "content": "x" * 90_000}], "max_tokens": 32_000})
    local = ask(found, [Offer(FREE, context=16_384, local=True)])
    hosted = ask(found, [Offer(FREE, context=16_384)])
    assert local is not None
    assert hosted is not None
    assert (local.prompt, local.answer) == (16_384, 16_384)
    assert hosted.prompt > 90_000
    assert hosted.answer == 32_000


def test_the_worst_of_a_chain_of_fallbacks_counts() -> None:
    found = bound({"messages": []})
    wanted = ask(found, [Offer(Price(1, 9), max_output=10), Offer(Price(5, 2, fixed=7), max_output=99)])
    assert wanted is not None
    assert (wanted.price, wanted.answer) == (Price(5, 9, fixed=7), 99)
    unbounded = ask(found, [Offer(FREE, max_output=10), Offer(FREE)])
    assert unbounded is not None
    assert unbounded.answer is None


def test_a_limit_is_set_in_every_field_that_sets_one_and_thinking_stays_below_it() -> None:
    body: dict[str, Any] = {"max_tokens": 9000, "max_completion_tokens": 9000}
    limit_answer(body, 100)
    assert body == {"max_tokens": 100, "max_completion_tokens": 100}
    body = {}
    limit_answer(body, 100, limits=("max_output_tokens",))
    assert body == {"max_output_tokens": 100}
    body = {"max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": 31_999}}
    limit_answer(body, 4_000)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2_000}
    limit_answer(body, 1_000)
    assert body["thinking"] == {"type": "disabled"}


def test_prices_of_long_prompts_priority_and_media_count_where_they_can_apply() -> None:
    info = {
        "input_cost_per_token": 3e-06,
        "input_cost_per_token_above_200k_tokens": 6e-06,
        "cache_creation_input_token_cost": 3.75e-06,
        "input_cost_per_token_batches": 1.0,
        "input_cost_per_token_priority": 9e-06,
        "input_cost_per_audio_token": 4e-05,
        "output_cost_per_token": 1.5e-05,
        "output_cost_per_reasoning_token": 2e-05,
    }
    short = bound({"messages": []})
    assert price_of(info, found=short) == Price(3_750_000_000, 20_000_000_000)
    long = bound({"messages": [{"role": "user", "content": "x" * 250_000}]})
    assert price_of(info, found=long) == Price(6_000_000_000, 20_000_000_000)
    hurried = bound({"messages": [], "service_tier": "priority"})
    assert price_of(info, found=hurried) == Price(9_000_000_000, 20_000_000_000)
    heard = bound({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]})
    assert price_of(info, found=heard) == Price(40_000_000_000, 20_000_000_000)
    speaks = {**info, "output_cost_per_audio_token": 8e-05}
    assert price_of(speaks, found=short) == Price(3_750_000_000, 80_000_000_000)
    per_query = {"search_context_size_low": 0.025, "search_context_size_high": 0.05}
    searches = {**info, "key": "gpt-4o-search-preview", "search_context_cost_per_query": per_query}
    assert price_of(searches, found=short) == Price(3_750_000_000, 20_000_000_000, fixed=50_000_000)
    assert price_of({**searches, "key": "gpt-4o"}, found=short) == Price(3_750_000_000, 20_000_000_000)
    assert price_of({"input_cost_per_token": 0, "output_cost_per_token": 0}, found=short) == Price(0, 0)
    assert price_of({"max_tokens": 5}, found=short) is None


def test_a_summary_that_the_provider_writes_first_is_noticed_and_a_cleared_thought_is_not() -> None:
    assert bound({"context_management": {"edits": [{"type": "compact_20260112"}]}}).premium
    assert bound({"context_management": [{"type": "compaction", "compact_threshold": 1000}]}).premium
    assert not bound({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}).premium


def test_tools_that_the_provider_runs_are_noticed_and_the_clients_own_are_not() -> None:
    assert bound({"tools": [{"type": "web_search_20250305", "name": "w"}]}).provider_tools
    assert bound({"tools": [{"type": "code_interpreter"}]}).provider_tools
    assert bound({"messages": [], "web_search_options": {}}).provider_tools
    assert bound({"tools": [{"googleSearch": {}}]}).provider_tools
    assert bound({"tools": [{"type": "function", "name": "f", "code_execution": {}}]}).provider_tools
    own = [{"name": "Bash", "input_schema": {}}, {"type": "function", "function": {}}, {"type": "bash_20250124"}]
    assert not bound({"tools": [*own, {"type": "text_editor_20250728"}, {"type": "custom"}]}).provider_tools


# Runs in a process of its own: LiteLLM takes seconds to import, and warns while it does.
EVERY_PRICE = """
import json, sys
import litellm
from litellm.types.utils import ModelResponse, PromptTokensDetailsWrapper, CompletionTokensDetailsWrapper, Usage
from gateway.keys.estimate import bound, price_of
checked, wrong = 0, []
for name, info in litellm.model_cost.items():
    provider = info.get("litellm_provider")
    if provider not in {"openai", "anthropic", "gemini", "mistral", "openrouter"}:
        continue
    if info.get("mode") not in {"chat", "responses"}:
        continue
    full = name if name.startswith(provider + "/") else f"{provider}/{name}"
    for size in (1_000, 300_000):
        found = bound({"messages": [{"role": "user", "content": "x" * size}]})
        price = price_of(litellm.get_model_info(full), found=found)
        for read, written, thought in ((0, 0, 0), (size // 2, 0, 0), (0, size // 2, 0), (size // 3, size // 3, 400)):
            usage = Usage(
                prompt_tokens=size, completion_tokens=1_000, total_tokens=size + 1_000,
                prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=read, cache_creation_tokens=written),
                completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=thought),
                cache_read_input_tokens=read, cache_creation_input_tokens=written,
            )
            try:
                cost = litellm.completion_cost(ModelResponse(model=full, usage=usage), model=full)
            except Exception as error:
                continue
            checked += 1
            if price is None and cost or price is not None and round(cost * 1e9) > price.cost(size, 1_000):
                wrong.append((full, size, read, written, cost, price and price.cost(size, 1_000) / 1e9))
print(json.dumps({"checked": checked, "wrong": wrong}))
"""


@pytest.mark.slow
def test_the_estimate_covers_the_cost_of_every_hosted_model_that_litellm_prices() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERY_PRICE],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["checked"] > 1_000
    assert found["wrong"] == []
