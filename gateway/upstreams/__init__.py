"""One file per kind of server that answers requests: discover it, start it if it is ours, describe it to LiteLLM."""
