"""Whether a key's model patterns match something that is served, and what was meant if not. Pure."""

import difflib
from collections.abc import Sequence

from gateway.keys.admission import matches
from toolkit.core.errors import UsageError


def check_patterns(patterns: Sequence[str], served: Sequence[str]) -> None:
    """Raises UsageError for the first pattern that matches none of the names in `served`, with the nearest ones."""
    for pattern in patterns:
        if any(matches(name, [pattern]) for name in served):
            continue
        bare = pattern.strip("*").lower()
        near = [name for name in served if bare and bare in name.lower()]
        lowered = {name.lower(): name for name in served}
        near += [lowered[name] for name in difflib.get_close_matches(bare, list(lowered), n=3, cutoff=0.4)]
        shown = list(dict.fromkeys(near))[:3] or sorted(served)[:5]
        raise UsageError(
            f"no model is served that {pattern!r} matches",
            hint=f"--models {shown[0]!r}; nearest: {', '.join(shown)}" if shown else "toolkit gateway status",
        )
