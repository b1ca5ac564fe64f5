"""The tests' local hub in a process of its own (`FILE BYTES_A_SECOND`): prints its address, serves until killed."""

import sys
from pathlib import Path

from tests.gateway.models.hub_standin import local_hub

if __name__ == "__main__":
    with local_hub({"model-Q4_K_M.gguf": Path(sys.argv[1]).read_bytes()}) as hub:
        hub.faults.rate = float(sys.argv[2])
        print(hub.url, flush=True)
        sys.stdin.read()
