"""The one tree of errors that a person can cause or mend.

    ToolkitError            exit code 1
    +-- UsageError          exit code 2: the command or a settings file is wrong as written

Only `toolkit.cli.main.main` catches them; anything else keeps its traceback.
"""

import errno


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


_MACHINE = {
    errno.ENOSPC: ("there is no space left on the disk", "df -h {}"),
    errno.EDQUOT: ("your quota on the disk is used up", "df -h {}"),
    errno.EROFS: ("the disk is read-only", "df -h {}"),
    errno.EACCES: ("you may not read or write there", "ls -ld {}"),
    errno.EPERM: ("you may not read or write there", "ls -ld {}"),
    errno.EMFILE: ("too many files are open", "ulimit -n 4096"),
}


def from_os_error(error: OSError) -> ToolkitError | None:
    """What the machine refused, as an error that a person can mend; None for an OSError that is a fault of ours."""
    if error.errno not in _MACHINE:
        return None
    problem, hint = _MACHINE[error.errno]
    where = f"{error.filename}: " if error.filename else ""
    return ToolkitError(f"{where}{problem}", hint=hint.format(error.filename or "."))
