"""Models: the catalogue, what fits this machine, how to get and keep them, the built-in one."""
