"""The coding agents that can be pointed at the gateway: read, change and undo their configuration."""
