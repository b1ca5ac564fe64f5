import gc
import subprocess
import sys

from gateway.proxy import environment

FREEZES = """
import gc, sys
from gateway.proxy import environment
for hook in sys.argv[1].split(","):
    module, _, name = hook.partition(":")
    if name == "keep_loaded":
        getattr(__import__(module, fromlist=[name]), name)()
print(gc.get_freeze_count())
"""


def test_a_worker_keeps_what_is_loaded_out_of_the_collectors_way() -> None:
    hooks = environment(keys_url="", master_key="", unknown_price="refuse", state="")["LITELLM_WORKER_STARTUP_HOOKS"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", FREEZES, hooks], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) > 1000
    assert gc.get_freeze_count() == 0  # not in this process
