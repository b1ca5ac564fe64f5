"""Run language models on your own machine, and point coding agents at them."""

__version__ = "0.1.0"
