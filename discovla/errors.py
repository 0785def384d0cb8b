"""Errors a user can cause, each with the exit code the command line returns for it."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend.

    The text says what is wrong, where (file, row or key), what is allowed, and what to do next.
    """

    exit_code = 1


class CheckFailed(UserError):
    """A check ran to its end and found that something does not hold."""

    exit_code = 3
