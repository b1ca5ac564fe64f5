"""Run all benchmarks, or those named on the command line."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    wanted = sys.argv[1:] or known
    for name in wanted:
        if name not in known:
            sys.exit(f"error: no benchmark named {name}\nhint: one of {', '.join(known)}")
    for name in wanted:
        print(f"== {name}", flush=True)
        import_module(f"benchmarks.{name}").main()
