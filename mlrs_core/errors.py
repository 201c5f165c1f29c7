"""What can go wrong in the core.

CoreError
├── InvalidFieldError   a value is out of range; names the field
└── ModelFileError      a file cannot be read as a model
"""

from __future__ import annotations

MAX_MESSAGE = 1000
"""The longest message about a model file, in characters."""


class CoreError(Exception):
    """Root of the core's exceptions."""


class InvalidFieldError(CoreError, ValueError):
    """A value is out of range.

    Attributes:
        field: its name, as the user wrote it.
        problem: what is wrong with it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.problem = message

    def within(self, parent: str) -> InvalidFieldError:
        """Return this error as one of a field of `parent`."""
        return InvalidFieldError(f"{parent}.{self.field}", self.problem)


class ModelFileError(CoreError, ValueError):
    """A file cannot be read as a model.

    The message may quote the file, so it is cut to `MAX_MESSAGE` characters: it has to fit into a
    status, whatever the file holds.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…")
