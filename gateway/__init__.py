"""Everything between a client and a model: models, upstreams, keys, clients, the LiteLLM proxy."""
