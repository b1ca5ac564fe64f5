"""Small, safe MCP servers, one per file."""
