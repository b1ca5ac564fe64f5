"""What an experiment is made of: models, suite, design, mode, settings. The same document is the file a person
writes, the manifest beside the results, and what `--from` repeats. Knows nothing of how trials are run.
"""

from typing import Literal

from pydantic import Field

from toolkit.core.config import Strict

Mode = Literal["call", "react", "logprob"]


class Design(Strict):
    """Which orders of the tools each task sees. See docs/design/experiments.md for what each kind is good for."""

    kind: Literal["rotation", "williams", "permutations", "random", "production"] = "rotation"
    n: int | None = Field(None, ge=1, description="Random orders per task (kind: random).")
    bases: int | None = Field(None, ge=2, description="Draw the base orders from a pool of this size.")
    positions: int | None = Field(None, ge=2, description="Groups of positions for long lists of tools.")
    repeats: float = Field(0.2, ge=0, le=1, description="Share of the cells asked twice in the same order.")


class Experiment(Strict):
    """Everything that decides which trials are run. Two runs with equal experiments are the same experiment."""

    models: list[str] = Field(min_length=1)
    suite: str = "five-tools"
    design: Design = Design()
    mode: Mode = "call"
    arms: list[str] = Field(default_factory=list, description="Ways of dressing one tool, besides the plain list.")
    tasks: int | None = Field(None, ge=2, description="Use this many tasks of the suite, drawn evenly over its labels.")
    seed: int = 1
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(256, ge=1)
    tool_choice: Literal["auto", "required"] = "auto"
    system: str | None = None
