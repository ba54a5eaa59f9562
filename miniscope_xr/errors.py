"""Every error this package raises on purpose.

One root, :class:`MiniscopeError`; each child is also the built-in kind a caller would expect, so code
that knows nothing of this package still catches it. A message says what was found, where, and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable


class MiniscopeError(Exception):
    """Root of every error of this package."""


class LayoutError(MiniscopeError, ValueError):
    """A layout file, dict or name is wrong; the message names the field."""


class CardNotFoundError(MiniscopeError, FileNotFoundError):
    """There is nothing at this path."""


class CardPermissionError(MiniscopeError, PermissionError):
    """The operating system does not let us open this card."""


class CardReadError(MiniscopeError, OSError):
    """A sector could not be read (bad sector, unplugged reader, short image)."""


class CardChangedError(MiniscopeError, OSError):
    """The card under an open dataset is not the card that was opened."""


class NotACardError(MiniscopeError, ValueError):
    """A file or device that holds nothing a wire-free Miniscope wrote."""


class BlankCardError(NotACardError):
    """A card of ours, prepared or booted, on which nothing was recorded."""


class AmbiguousLayoutError(MiniscopeError, ValueError):
    """More than one layout fits; the caller has to name one."""


class UnsupportedCardError(MiniscopeError, ValueError):
    """A recording of a firmware we recognise and know we cannot read faithfully."""


class PathTypeError(MiniscopeError, TypeError):
    """What was given as a card is no path: bytes, an open file, None."""


class RecordingError(MiniscopeError, ValueError):
    """Which recording, group or frame range is meant is unclear or does not exist."""


class OptionError(MiniscopeError, ValueError):
    """An option has a value it cannot have."""


class NotOpenError(MiniscopeError, RuntimeError):
    """A cursor call outside the ``with`` block."""


class EndOfRecordingError(MiniscopeError, StopIteration):
    """The cursor is behind the last frame."""


class OutputExistsError(MiniscopeError, FileExistsError):
    """The output is there already and ``force`` was not given."""


class OutputError(MiniscopeError, OSError):
    """An output could not be written."""


class MissingDependencyError(MiniscopeError, ImportError):
    """An optional library is needed for this call; the message says how to install it."""


def did_you_mean(word: str, known: Iterable[object]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def refuse_unknown(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for a keyword that ``call`` does not know, as Python does."""
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{call} has no option {name!r}{did_you_mean(name, known)}")


def plain(text: object) -> str:
    r"""Return text that a terminal shows and does not obey: control characters as ``\x1b``, line ends and tabs too.

    Names come from cards, readers and files; one with escape sequences could redraw what a person is asked.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def parser_said(error: Exception) -> str:
    """What a parser of text files says is wrong, without what it says to programmers."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).partition("; use sys.")[0].split())  # Python, of numbers with thousands of digits


def message_of(error: BaseException) -> str:
    """One line for a person: no error number, the path first."""
    path, text = getattr(error, "filename", None), getattr(error, "strerror", None)
    if path == "":
        path = "an empty name"
    return f"{path}: {text}" if path and text else str(text or error)


# What a call in Python would be given as NAME=VALUE, in the messages of the library.
_ARGUMENT = re.compile(
    r"\b([a-z_]+)=('[^']*'|\"[^\"]*\"|True|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|-?inf|(?=[\s;:,.)]|$))(?: \(--[\w-]+\))?"
)
_ROWS = re.compile(r"\bframes=slice\((-?\w+), (-?\w+), (-?\w+)\)")
_OPTIONS = {
    "layout", "recording", "gaps", "errors", "until", "partial", "frames", "time", "crop", "bin", "fps", "codec",
    "force", "start",
}  # fmt: skip
_WITH_UNTIL = "`video` and `export`"


def _rows(match: re.Match[str]) -> str:
    first, stop, step = ("" if part == "None" else part for part in match.groups())
    return f"--frames {first}:{stop}" + (f":{step}" if step else "")


def at_the_shell(text: str, known: Callable[[str], bool] = lambda name: True) -> str:
    """Say a message of the library as a person at the shell would type it.

    Parameters
    ----------
    text
        Message with arguments as Python writes them.
    known
        Whether the command that says it has an option of this name; else the commands that have it are named.

    Examples
    --------
    >>> at_the_shell("open it with errors='fill'; until=40 returns it whole")
    'open it with --errors fill; --until 40 returns it whole'
    """

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'\"")
        if name == "index":
            return "`check --deep`"
        if name not in _OPTIONS:
            return match[0]
        said = f"--{name}" + (f" {value}" if value and value != "True" else "")
        return said if known(name) else f"{said} (an option of {_WITH_UNTIL})"

    return _ARGUMENT.sub(option, _ROWS.sub(_rows, text))
