"""A vLLM server on loopback, built from vLLM's documented API (`/v1/models`, `/tokenize` of a chat, `/v1/completions`
with token ids, `logprobs`, `allowed_token_ids` and `return_tokens_as_token_ids`).

A stand-in: vLLM cannot run here. What it tells is real: tokens and log probabilities are those of the llama.cpp server
that it asks. `mode` is its --logprobs-mode, raw_logprobs or processed_logprobs.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.loopback import JsonHandler, on_loopback

MOST = 20  # --max-logprobs
MASKED = -9999.0
EVERY = 100_000  # tokens, more than any vocabulary here


@contextmanager
def vllm(llama: str, *, mode: str = "raw_logprobs") -> Iterator[str]:
    """The server in front of the llama.cpp at `llama`; gives its address."""

    def ask(path: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"{llama}{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def tokenize(body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            body = {"messages": body["messages"], "tools": body.get("tools") or []}
            text, special = ask("/apply-template", body)["prompt"], True
        else:
            text, special = body["prompt"], body.get("add_special_tokens", True)
        tokens = ask("/tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]
        return {"count": len(tokens), "max_model_len": 1024, "tokens": tokens}

    def complete(body: dict[str, Any]) -> dict[str, Any]:
        assert body["max_tokens"] == 1
        assert body["temperature"] == 0
        assert body["return_tokens_as_token_ids"] is True
        count, allowed = body["logprobs"], body["allowed_token_ids"]
        if count > MOST:
            raise ValueError(f"Requested sample logprobs of {count}, which is greater than max allowed: {MOST}")
        asked = {"prompt": body["prompt"], "n_predict": 1, "n_probs": EVERY, "temperature": 1.0}
        asked["logit_bias"] = [[allowed[0], 1000.0]]  # what is told is before the bias
        listed = ask("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        raw = {entry["id"]: entry["logprob"] for entry in listed if entry["logprob"] is not None}
        drawn = max(allowed, key=raw.__getitem__)
        told = raw
        if mode == "processed_logprobs":
            total = math.log(sum(math.exp(raw[token]) for token in allowed))
            told = {token: raw[token] - total if token in allowed else MASKED for token in raw}
        likeliest = sorted(told, key=told.__getitem__, reverse=True)[:count]
        top = {f"token_id:{token}": max(told[token], MASKED) for token in [drawn, *likeliest]}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return {"choices": [{"index": 0, "logprobs": {"top_logprobs": [top]}}], "usage": usage}

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.send({"data": [{"id": "org/model", "owned_by": "vllm", "max_model_len": 1024}]})
            else:
                self.send({"detail": "Not Found"}, 404)

        def do_POST(self) -> None:
            body = self.body()
            try:
                if body["model"] != "org/model":
                    raise ValueError(f"The model `{body['model']}` does not exist.")
                self.send({"/tokenize": tokenize, "/v1/completions": complete}[self.path](body))
            except ValueError as error:
                self.send({"error": {"message": str(error), "type": "BadRequestError", "code": 400}}, 400)

    with on_loopback(Handler) as url:
        yield url
