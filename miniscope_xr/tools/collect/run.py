"""All cards of a day, each in a thread of its own, since each reader is its own bottleneck."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from miniscope_xr.errors import BlankCardError, OptionError
from miniscope_xr.source.open import open_device
from miniscope_xr.tools.collect.again import Agreed, is_writing, prepare_again
from miniscope_xr.tools.collect.job import CollectJob, Wish, collect_one
from miniscope_xr.tools.collect.lines import Lines, Stopped
from miniscope_xr.tools.collect.summary import Outcome, Summary
from miniscope_xr.tools.copy.ends import recording_end
from miniscope_xr.tools.copy.lock import alone
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.stream.outputs import parents_made

_MOST_AT_ONCE = 16
_LOOK = 0.1  # seconds from one look at what arrived to the next
_PATIENCE = 0.5  # seconds that a step may take to end once it is to


def collect_all(
    cards: Sequence[CollectJob],
    into: Path,
    wish: Wish,
    *,
    at_once: int | None = None,
    show: bool = True,
    agreed: Mapping[str, Agreed] | None = None,
) -> Summary:
    """Do what is asked of all cards, side by side; what fails is told in the summary and keeps no other card waiting.

    Parameters
    ----------
    cards
        As :func:`.plan.plan_cards` made them.
    into
        The folder.
    wish
        What is asked of each.
    at_once
        Cards that are read side by side; None for all (up to 16).
    show
        Show one progress line a card (on a terminal).
    agreed
        By the path of a card, how it is prepared again once all that was asked of it is done.

    Returns
    -------
    Summary
        Also after Ctrl+C, which ends every card at its next step.
    """
    lines = Lines([os.path.basename(card.disk.path) for card in cards], show)  # noqa: PTH119 (Windows' names)
    run = _Run(wish, agreed or {}, lines, [Outcome(card) for card in cards])
    with warnings.catch_warnings(record=True) as said, contextlib.closing(lines), interrupts.held():
        warnings.simplefilter("always")
        ended = run.all(min(at_once or _MOST_AT_ONCE, max(len(cards), 1)))
    interrupts.again()  # there may be other work than the last words
    summary = Summary(into, ended, lines.stopped)
    summary.add_warnings(str(each.message) for each in said)
    return summary


class _Run:
    """One run: what its threads share."""

    def __init__(self, wish: Wish, agreed: Mapping[str, Agreed], lines: Lines, ended: Sequence[Outcome]) -> None:
        self.wish, self.agreed, self.lines, self.ended = wish, agreed, lines, ended
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    def all(self, at_once: int) -> list[Outcome]:
        """Do what is asked of all cards; if told to end, wait a moment, and until no card is being written.

        A signal is only noted meanwhile (:func:`interrupts.held`) and every card looks for it at its next step. A
        reader that does not answer has no next step: it is left, as a kill would leave it, and goes on another time.
        """
        pool = ThreadPoolExecutor(at_once)
        places = {pool.submit(self.one, place): place for place in range(len(self.ended))}
        todo, until = set(places), math.inf
        while todo and (time.monotonic() < until or is_writing()):
            todo = wait(todo, timeout=_LOOK).not_done
            if self.lines.stopped:
                until = min(until, time.monotonic() + _PATIENCE)
        pool.shutdown(wait=not todo, cancel_futures=True)
        ended = list(self.ended)
        for place in (places[future] for future in todo):
            ended[place] = replace(ended[place], stopped=True, left_at=self.lines.doing(place) or "opening it")
        return ended

    def one(self, place: int) -> None:
        """Do what is asked of one card, and note how it ended."""
        end = self.ended[place]
        try:
            if self.lines.stopped:
                raise Stopped
            self._card(place, end)
        except Stopped:
            end.stopped = True
        except BlankCardError as error:
            end.blank = str(error)
        except Exception as error:  # the others go on
            end.error = error
            if isinstance(error.__cause__, KeyboardInterrupt):  # a signal, while this card was written
                self.lines.stop()
        self.lines.ended(place, end.word)

    def _card(self, place: int, end: Outcome) -> None:
        job, see = end.job, self.lines.see(place)
        if job.refused is not None:
            raise job.refused
        if job.base is None:
            return _nothing(job, self.wish, end)
        with parents_made(job.image), alone(job.image):
            record = collect_one(job, self.wish, end.found, see, self.lines.see(place, "frame"), self._cores)
            if job.disk.path in self.agreed:
                prepare_again(self.agreed[job.disk.path], record, end.found, see, self.lines)
        return None


def _nothing(job: CollectJob, wish: Wish, end: Outcome) -> None:
    """A card with nothing to copy: say so where it was collected and prepared before, else raise why."""
    if not job.marks:
        open_device(job.disk.path).close()  # raises why it cannot be read
    if job.earlier is not None:
        end.found.files.append(job.earlier.image)
        end.found.said.append(f"was collected and prepared ({job.earlier.prepared}); nothing was recorded since")
        return
    with contextlib.closing(open_device(job.disk.path)) as source:
        recording_end(source, job.disk.path, wish.layout, None, None)  # raises where nothing looks like a recording
    raise OptionError(
        "no recording opens on it, and yet there is something like one: `miniscope-xr rescue "
        f"{job.disk.path} OUT.img` makes an image of it that opens"
    )
