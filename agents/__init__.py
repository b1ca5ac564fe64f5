"""What asks a model: the agent loop and the experiments. Reaches models over HTTP and tools over MCP only."""
