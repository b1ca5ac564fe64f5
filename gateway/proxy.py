"""The LiteLLM proxy as a child process: `python -P -m gateway.proxy --config FILE --host H --port P --workers N`.

The only module, with the hooks, that imports LiteLLM; nothing of ours is patched into it.
"""

import gc
import os
import sys
from collections.abc import Sequence

from gateway.error_shapes import STARTUP
from gateway.lifeline import watch
from gateway.mcp import Server
from gateway.mcp import environment as mcp_environment


def environment(
    *, keys_url: str, master_key: str, unknown_price: str, state: str, mcp: Sequence[Server] = ()
) -> dict[str, str]:
    """What the proxy and its hooks read from the environment."""
    from gateway.litellm_config import MASTER_KEY

    loopback = "127.0.0.1,localhost,::1"
    return {
        MASTER_KEY: master_key,
        "TOOLKIT_KEYS_URL": keys_url,
        "TOOLKIT_UNKNOWN_PRICE": unknown_price,
        "TOOLKIT_GATEWAY_STATE": state,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the price list in the package; fetching it hangs offline
        "LITELLM_WORKER_STARTUP_HOOKS": f"{STARTUP},gateway.proxy:keep_loaded",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DONT_SHOW_FEEDBACK_BOX": "True",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
        "NO_REDOC": "True",
        "PYTHONSAFEPATH": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), loopback])),
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy", ""), loopback])),
        **mcp_environment(mcp),
    }


def keep_loaded() -> None:
    """Called by LiteLLM in each worker before it serves. What is loaded by then stays, so Python's collector need not
    look through it over and over: that took a third of a second each time, in which no request was answered."""
    gc.freeze()


def main(arguments: list[str]) -> None:
    """Run the proxy until it is stopped or its parent is gone."""
    watch()
    from litellm import run_server

    run_server.main(args=[*arguments, "--telemetry", "False"], standalone_mode=True)


if __name__ == "__main__":
    main(sys.argv[1:])
