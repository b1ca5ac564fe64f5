"""The `toolkit` command: one file per noun."""
