"""llama.cpp's own server, from the xllamacpp wheel, as a child process: takes llama-server's options, listens, waits.

Prints only llama.cpp's own log. Ends when it is told to or when its parent is gone.
"""

import argparse
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from gateway.lifeline import watch
from gateway.upstreams.server_options import cores, parse


def parameters(options: argparse.Namespace) -> Any:
    """llama.cpp's `CommonParams` for these options."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_ctx = options.ctx_size
    params.n_parallel = options.parallel
    params.cpuparams.n_threads = options.threads or cores()
    params.n_gpu_layers = options.n_gpu_layers
    params.fit_params = options.n_gpu_layers < 0 and _has_gpu()
    params.warmup = False  # the first question does that too, and whoever starts a server waits for its answer
    params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, _KV[options.cache_type_k])
    params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, _FLASH[options.flash_attn])
    params.cache_ram_mib = options.cache_ram
    params.use_jinja = True
    params.ui = False
    params.endpoint_metrics = True
    params.verbosity = options.verbosity
    if options.mmproj:
        params.mmproj.path = options.mmproj
    return params


def _has_gpu() -> bool:
    """Whether there is a device to fit the model to. llama.cpp reads the file twice for that, needed or not."""
    import xllamacpp

    return any(device["type"].name.endswith("GPU") for device in xllamacpp.get_device_info())


_KV = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0"}
_FLASH = {
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
}


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT, or until the parent is gone."""
    options = parse("gateway.upstreams.xllamacpp_server", arguments)
    watch()
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(options))
    except RuntimeError as error:
        print(f"llama.cpp did not start on {options.model}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    stopping.wait()
    # Taking the server down in order can hang, and there is nothing to save.
    os._exit(0 if server.listening_address else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
