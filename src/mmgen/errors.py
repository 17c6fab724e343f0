"""What can go wrong in a way the user can mend. Knows nothing else of the project."""


class MmgenError(Exception):
    """A failure the user can mend: one line that says what is wrong, one that says what to do.

    Args:
        message: what is wrong, with the value.
        hint: the remedy.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MmgenError):
    """The command itself is off: a flag's value, an empty prompt, an output that would be overwritten."""

    exit_code = 2
