"""Which of the proxy's routes a virtual key may use, and what is known of a caller from its request. Pure.

The list names what is open: everything else of the proxy (pass-through to providers, files, batches, the admin
surface) escapes the accounting or tells more than a key need know, and is closed.
"""

ANTHROPIC = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
ANTHROPIC_ROUTES = {ANTHROPIC, COUNT_TOKENS}
MCP = "/mcp"  # the tools of gateway.mcp; over streamable HTTP a client posts, listens and ends its session there
OPEN_TO_KEYS = {
    "POST": {
        *ANTHROPIC_ROUTES,
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/completions",
        "/completions",
        "/v1/responses",
        "/responses",
        "/v1/embeddings",
        "/embeddings",
        MCP,
    },
    "GET": {"/v1/models", "/models", MCP},
    "DELETE": {MCP},
}

# LiteLLM's names of the calls that go through the hook before a call and are settled after it.
ACCOUNTED = {"acompletion", "atext_completion", "aembedding", "aresponses", "anthropic_messages"}
_CLIENTS = {"claude-cli": "claude-code", "claude-code": "claude-code", "opencode": "opencode", "ai-sdk": "ai-sdk"}


def is_open(method: str, path: str) -> bool:
    """Whether a virtual key may use this route."""
    return path in OPEN_TO_KEYS.get("GET" if method == "HEAD" else method, set())


def tool_model(server: str) -> str:
    """The name under which a key's patterns and its accounts know an MCP server."""
    return f"mcp/{server}"


def client_name(user_agent: str) -> str:
    """The program that calls, as its User-Agent names it: `claude-cli/2.1.3 (external)` -> `claude-code`."""
    first = user_agent.strip().partition(" ")[0].partition("/")[0].lower()
    kept = "".join(letter for letter in first if letter.isalnum() or letter in "-_.")[:64]
    return _CLIENTS.get(kept, kept) or "unknown"
