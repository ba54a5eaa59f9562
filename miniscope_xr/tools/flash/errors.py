"""Errors of the writing commands; each knows the exit code it ends with."""

from __future__ import annotations

from miniscope_xr.errors import (
    CardNotFoundError,
    CardPermissionError,
    MiniscopeError,
    MissingDependencyError,
    OptionError,
    OutputExistsError,
)

DONE, USAGE, REFUSED, BUSY, FAILED, FAILED_CHANGED, PROBLEMS = 0, 2, 3, 4, 5, 6, 7


class FlashError(MiniscopeError):
    """Root of the errors of the writing commands."""

    exit_code = FAILED


class SettingsError(FlashError, ValueError):
    """A setting has a name or value the firmware would not understand."""

    exit_code = USAGE


class RefusedError(FlashError, ValueError):
    """Writing here could hurt something; the message says what, and the one override if there is one."""

    exit_code = REFUSED

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts


class BusyError(FlashError, OSError):
    """Another program uses the card."""

    exit_code = BUSY


class JournalError(FlashError, OSError):
    """The backup or journal on this computer could not be written or read."""


class CardWriteError(FlashError, OSError):
    """A write, flush or read-back of the card failed."""


class InterruptedWriteError(FlashError, OSError):
    """The operation ended before it was done; ``card_changed`` says how the card is now."""

    def __init__(self, message: str, *, card_changed: bool, journal: str, phase: str) -> None:
        super().__init__(message)
        self.card_changed = card_changed
        self.journal = journal
        self.phase = phase
        self.exit_code = FAILED_CHANGED if card_changed else FAILED


class CheckFailedError(FlashError, RuntimeError):
    """The check ran, and the card did not pass it."""

    exit_code = PROBLEMS


def exit_code(error: BaseException) -> int:
    """Return the exit code a command ends with after ``error``."""
    if isinstance(error, FlashError):
        return error.exit_code
    if isinstance(error, PermissionError | CardPermissionError):
        return BUSY
    if isinstance(error, OptionError | CardNotFoundError | OutputExistsError | MissingDependencyError):
        return USAGE
    return REFUSED if isinstance(error, ValueError) and isinstance(error, MiniscopeError) else FAILED
