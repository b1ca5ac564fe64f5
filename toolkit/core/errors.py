"""The one tree of errors that a person can cause or mend.

    ToolkitError            exit code 1
    +-- UsageError          exit code 2: the command or a settings file is wrong as written

Only `toolkit.cli.main.main` catches them; anything else keeps its traceback.
"""


class ToolkitError(Exception):
    """Something went wrong that the user can act on.

    `message` is one sentence that says what is wrong. `hint` is what to type next, with the user's own
    arguments filled in, or None when there is nothing useful to type.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ToolkitError):
    """What was typed, or written in a settings file, cannot be meant."""

    exit_code = 2
