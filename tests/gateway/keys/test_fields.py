"""Which fields and headers a virtual key may not set, as a decision on names."""

from typing import Any

import pytest

from gateway.keys.fields import refused_field, refused_header

LITELLMS = {"api_base", "base_model", "metadata", "litellm_call_id", "num_retries"}


@pytest.mark.parametrize("name", ["api_base", "base_model", "extra_headers", "models", "litellm_param_api_base"])
def test_a_field_that_changes_who_answers_or_what_it_costs_is_refused(name: str) -> None:
    assert refused_field({"model": "m", name: "x"}, litellms=LITELLMS) == name


@pytest.mark.parametrize("body", [{"fallbacks": None}, {"background": False}])
def test_a_field_that_sets_nothing_is_let_through(body: dict[str, Any]) -> None:
    assert refused_field(body, litellms=LITELLMS) is None


def test_nought_is_a_setting_too() -> None:
    assert refused_field({"num_retries": 0}, litellms=LITELLMS) == "num_retries"


def test_what_clients_send_and_what_the_proxy_adds_is_let_through() -> None:
    sent = {"model": "m", "messages": [], "temperature": 0, "top_k": 3, "metadata": {"user_id": "u"}, "stream": True}
    added = {"litellm_call_id": "x", "proxy_server_request": {}, "litellm_logging_obj": object()}
    assert refused_field({**sent, **added}, litellms=LITELLMS) is None


def test_what_the_proxy_makes_of_anthropics_headers_is_let_through_and_the_same_from_a_caller_is_not() -> None:
    made = {"provider_specific_header": {"extra_headers": {"anthropic-version": "2023-06-01"}}}
    fields = LITELLMS | {"provider_specific_header"}
    assert refused_field({**made, "proxy_server_request": {"credential_fields": ()}}, litellms=fields) is None
    sent = {**made, "proxy_server_request": {"credential_fields": ("provider_specific_header",)}}
    assert refused_field(sent, litellms=fields) == "provider_specific_header"


def test_headers_of_litellm_are_closed_but_for_those_that_only_name_things() -> None:
    assert refused_header(["Content-Type", "X-LiteLLM-Call-Id"]) == "x-litellm-call-id"
    assert refused_header(["authorization", "x-api-key", "x-litellm-api-key", "x-litellm-tags"]) is None
