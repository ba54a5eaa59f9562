"""What came of a day: one summary for a person, one object for a program, one exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniscope_xr.errors import at_the_shell, message_of
from miniscope_xr.tools.collect.job import AGAIN, CollectJob, Found, was_pulled
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import (
    BUSY,
    DONE,
    FAILED,
    FAILED_CHANGED,
    PROBLEMS,
    REFUSED,
    USAGE,
    InterruptedWriteError,
    exit_code,
)

_WORST = (FAILED_CHANGED, FAILED, BUSY, REFUSED, USAGE, PROBLEMS, DONE)
_PROBLEMS_SHOWN = 5


@dataclass
class Outcome:
    """How a card ended."""

    job: CollectJob
    """Which card."""
    found: Found = field(default_factory=Found)
    """What came of it."""
    error: Exception | None = None
    """What went wrong."""
    blank: str = ""
    """Why it is called blank."""
    stopped: bool = False
    """Whether a person ended it."""
    left_at: str = ""
    """What it was left in the middle of, where that did not end in time."""

    @property
    def state(self) -> str:
        """One word for programs."""
        if self.error is not None:
            return "failed"
        if self.stopped:
            return "stopped"
        if self.blank:
            return "blank"
        return "problems" if self.found.problems else "done"

    @property
    def word(self) -> str:
        """The same for a person's line."""
        words = {"problems": "done, with problems", "blank": "nothing was recorded on it"}
        return words.get(self.state, self.state)

    @property
    def code(self) -> int:
        """Exit code that it would have alone."""
        if self.error is not None:
            return exit_code(self.error)
        if self.stopped:
            return FAILED
        return PROBLEMS if self.blank or self.found.problems else DONE

    def why(self) -> list[str]:
        """What went wrong, and what to do."""
        if self.error is not None:
            said = at_the_shell(message_of(self.error)) or type(self.error).__name__
            if was_pulled(self.error):
                return [said, f"put the card (or its reader) back in, or into another reader, and {AGAIN}"]
            after = isinstance(self.error, InterruptedWriteError)  # its message says what goes on from there
            return [said] if after or self.code in (USAGE, REFUSED) else [said, f"once that is put right, {AGAIN}"]
        if self.stopped:
            late = f" in the middle of {self.left_at}, which did not end in time" if self.left_at else ""
            return [f"stopped{_by()}{late}; {AGAIN}"]
        if self.blank:
            return [self.blank]
        shown = self.found.problems[:_PROBLEMS_SHOWN]
        more = len(self.found.problems) - len(shown)
        return [*shown, *([f"and {more} more: `miniscope-xr check {self.job.image}`"] if more else [])]

    def to_json(self, into: Path) -> dict[str, Any]:
        """Return it for ``--json``."""
        disk, base = self.job.disk, self.job.base
        return {
            "card": disk.path, "card_id": disk.card_id, "state": self.state, "exit": self.code,
            "name": None if base is None else _within(base, into), "about": dict(self.job.about),
            "did": self.found.steps, "files": [str(path) for path in self.found.files if path.exists()],
            "found": self.found.said, "why": self.why(),
        }  # fmt: skip


def _by() -> str:
    """Who ended it, as far as a signal tells."""
    words = {"": "", "SIGINT": " by Ctrl+C", "SIGBREAK": " by Ctrl+Break", "SIGHUP": ", since the terminal was closed"}
    return words.get(interrupts.arrived(), f" by another program or the system ({interrupts.arrived()})")


def _within(path: Path, into: Path) -> str:
    return path.relative_to(into).as_posix() if path.is_relative_to(into) else str(path)


@dataclass
class Summary:
    """What came of all cards."""

    into: Path
    ended: Sequence[Outcome]
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    failed: Exception | None = None
    """Why what was to be made of all of them together was not."""

    @property
    def images(self) -> list[Path]:
        """The copies that are whole."""
        return [path for end in self.ended for path in end.found.files if path.suffix == ".img" and path.is_file()]

    def add_warnings(self, said: Iterable[str]) -> None:
        """Note what libraries said meanwhile, but for what the check says too."""
        told = " ".join(line.lower() for end in self.ended for line in end.found.problems)
        self.notes += [text for text in dict.fromkeys(said) if text.lower() not in told]

    @property
    def exit(self) -> int:
        """Exit code: that of the worst."""
        codes = {end.code for end in self.ended} | {FAILED if self.interrupted else DONE}
        codes |= {exit_code(self.failed)} if self.failed is not None else set()
        return next(code for code in _WORST if code in codes)

    @property
    def card_changed(self) -> bool:
        """Whether any card was written to."""
        return any(
            "prepared" in end.found.steps or getattr(end.error, "card_changed", False) is True for end in self.ended
        )

    def lines(self) -> Iterator[str]:
        """Say it to a person: first how many, then each card, what failed last, where the eye rests."""
        if not self.ended:
            yield "no Miniscope card found; insert one (`miniscope-xr list --all` shows why each disk is not one)"
            return
        whole = [end for end in self.ended if end.state in ("done", "problems")]
        cards = "card" if len(self.ended) == 1 else "cards"
        yield f"{len(whole)} of {len(self.ended)} {cards} collected into {self.into}"
        order = ("done", "problems", "blank", "stopped", "failed")
        for end in sorted(self.ended, key=lambda end: order.index(end.state)):
            name = "" if end.job.base is None else f", {_within(end.job.base, self.into)}"
            yield f"{end.job.disk.path}{name}: {end.word}"
            for line in end.found.said:
                yield f"    {line}"
            for line in end.why():
                yield f"    {'PROBLEM: ' if end.state == 'problems' else ''}{line}"
        for note in self.notes:
            yield f"note: {note}"

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        found = {"into": str(self.into), "cards": [end.to_json(self.into) for end in self.ended], "notes": self.notes}
        return found if self.failed is None else {**found, "error": f"{message_of(self.failed)}; {AGAIN}"}
