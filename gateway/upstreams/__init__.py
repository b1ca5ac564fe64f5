"""One file for each kind of server a model can be served by; `discover_all` gathers what there is."""

from gateway.upstreams.discovery import Discovered, command_of, discover_all, served_by

__all__ = ["Discovered", "command_of", "discover_all", "served_by"]
