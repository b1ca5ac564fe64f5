"""One file for each kind of server a model can be served by; `discover_all` gathers what there is."""

from gateway.upstreams.discovery import Discovered, discover_all

__all__ = ["Discovered", "discover_all"]
