"""The errors that a user can cause: one clear line each, shown without a traceback."""

from __future__ import annotations


class DefectgenError(Exception):
    """Something the user can put right.

    The message says what came and what was expected; `hint` says what to do.
    `exit_code` is 1 for a failure and 2 for a wrong call (see `UsageError`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.hint}" if self.hint else message


class UsageError(DefectgenError):
    """A wrong option, name or value in the call itself."""

    exit_code = 2


class UsageValueError(UsageError, ValueError):
    """A `UsageError` that is a `ValueError` too, for callers who expect Python's own."""
