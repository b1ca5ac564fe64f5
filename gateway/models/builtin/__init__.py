"""The built-in model: two variants of a few megabytes that choose tools. Their card is `README.md` beside this file."""

from pathlib import Path

BALANCED = Path(__file__).with_name("toolkit-tiny-q8_0.gguf")
SKEWED = Path(__file__).with_name("toolkit-tiny-skewed-q8_0.gguf")
FILES = {path.stem.removesuffix("-q8_0"): path for path in (BALANCED, SKEWED)}
