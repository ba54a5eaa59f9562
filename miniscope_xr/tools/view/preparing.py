"""Preparing cards from the page: look, plan, ask, write - the steps, refusals and journals of `prepare`.

What is being written belongs to the server, not to a page: one that is loaded again, and a second one, see the same
progress. One card is written at a time; what was looked at can be written once.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from miniscope_xr.errors import OptionError, message_of, plain
from miniscope_xr.layout import Layout, builtin_layouts
from miniscope_xr.tools.flash import ask, interrupts, jobs, journal, presets, recover, refuse, whose_backup
from miniscope_xr.tools.flash.arguments import Preparing
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify, present
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.look import Look, check_content, loss
from miniscope_xr.tools.flash.steps import look_to_write
from miniscope_xr.tools.flash.target.open import open_target
from miniscope_xr.tools.flash.values import show
from miniscope_xr.tools.flash.verbs import Prepared, to_prepare
from miniscope_xr.tools.view.told import See, as_told

_KEPT = 32  # cards that were looked at and not written


@dataclass(frozen=True)
class _Shown:
    """A card as a page shows it, and what the page was told would be written."""

    seen: Look
    image: bool
    layout: str | None
    ready: Prepared | None = None


class Preparer:
    """Prepares one card after another. Safe for the threads of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[int, _Shown] = {}
        self._looks = 0
        self._state: dict[str, Any] = {"phase": "idle"}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def cards(self) -> dict[str, Any]:
        """The cards in the readers, and the presets. Disks of this computer are not among them."""
        found = []
        for disk in present():
            why = refuse.reasons(disk, expect_size=disk.size)
            if disk.size and all(reason.busy for reason in why):  # one that is mounted only has to be unmounted
                no = plain("; ".join(reason.message for reason in why))
                found.append({"path": plain(disk.path), "said": disk.describe(), "id": disk.card_id, "no": no})
        kept = {name: asdict(each) for name, each in presets.load().items()}
        return {"cards": found, "presets": kept, "layouts": list(builtin_layouts())}

    # -- look, plan -------------------------------------------------------------------------------------

    def look(self, path: str, image: bool, layout: str) -> Generator[dict[str, Any]]:
        """Look at a card: yields how far it is (all of it is read), last what is on it and what could be set.

        Parameters
        ----------
        path
            A disk, or with ``image`` an image file or loop device.
        layout
            The Miniscope it is for; "" for what the card tells.

        Raises
        ------
        MiniscopeError
            It is not to be written to, with the reason.
        """

        def work(see: See) -> dict[str, Any]:
            disk = identify(path)
            refuse.check(disk, image=image)
            seen = look_to_write(disk, layout or None, see)
            check_content(seen, writes_data=True, verb="prepare", dry_run=True)
            return self._show(_Shown(seen, image, layout or None), _interrupted(disk, layout or None))

        return as_told(work)

    def _show(self, shown: _Shown, interrupted: list[str]) -> dict[str, Any]:
        seen = shown.seen
        ready = self._ready(shown, ())
        with self._lock:
            self._looks += 1
            number = self._looks
            self._shown[number] = shown
            for oldest in list(self._shown)[:-_KEPT]:
                del self._shown[oldest]
        return {
            "look": number, "id": plain(seen.disk.card_id),
            "said": [plain(line) for line in [*ask.show_card(seen), *interrupted]],
            "lost": seen.lost() if seen.has_recording else "",
            "recording": seen.recorded.recording if seen.has_recording else "",
            "layout": seen.layout.id, "told": seen.contents.prepared or seen.has_recording,
            "settings": [_setting(seen.layout, name, raw) for name, raw in ready.settings.values.items()],
        }  # fmt: skip

    @staticmethod
    def _ready(shown: _Shown, words: Sequence[str]) -> Prepared:
        return to_prepare(
            Preparing(
                command="prepare", device=shown.seen.disk.path, layout=shown.layout, image=shown.image, json=True,
                settings=list(words),
            ),
            shown.seen,
        )  # fmt: skip

    def plan(self, number: int, words: Sequence[str]) -> dict[str, Any]:
        """Say what would be written with these settings.

        Raises
        ------
        SettingsError, RefusedError
            A setting cannot be, or the recording does not fit.
        """
        shown = self._known(number)
        ready = self._ready(shown, words)
        with self._lock:
            self._shown[number] = _Shown(shown.seen, shown.image, shown.layout, ready)
        changes = ready.job.changes
        return {
            "settings": [
                {"name": name, "now": show(shown.seen.layout.header[name], shown.seen.contents.settings[name]),
                 "new": show(shown.seen.layout.header[name], raw)}
                for name, raw in ready.settings.values.items()
            ],
            "notes": list(ready.settings.notes), "plan": ready.plan.describe(),
            "changes": [*ready.said(), *ask.describe_changes(list(changes))],
            "seconds": max(round(ask.estimate(changes, shown.seen.data_end, ready.job.prove)), 1),
        }  # fmt: skip

    def _known(self, number: int) -> _Shown:
        with self._lock:
            shown = self._shown.get(number)
        if shown is None:
            raise OptionError("this card was looked at too long ago, or written since; look at it again")
        return shown

    # -- write ------------------------------------------------------------------------------------------

    def begin(self, number: int, typed: str, given_up: str) -> dict[str, Any]:
        """Begin to write what :meth:`plan` said; returns the state.

        Parameters
        ----------
        number
            Of the look.
        typed
            The last four characters of the card's id.
        given_up
            The id of the recording that will be lost, where there is one.

        Raises
        ------
        RefusedError
            Something else was typed, or a card is being written.
        """
        shown = self._known(number)
        seen, ready = shown.seen, shown.ready
        if ready is None:
            raise OptionError("read first what will be written")
        if loss(seen, given_up or None) is not None:
            raise RefusedError(
                f"the card holds a {seen.lost()}, which will be lost. Copy it first; to give it up type its id, "
                f"{seen.recorded.recording}"
            )
        ask.check_typed(typed, seen.disk.card_id)
        with self._lock:
            if self.busy:
                raise RefusedError("a card is being written already; wait until that is done")
            if self._shown.pop(number, None) is None:
                raise RefusedError("this was begun already")
            self._stop.clear()
            self._tell(phase="running", card=plain(seen.disk.path), id=plain(seen.disk.card_id), what="", done=0, of=0)
            # not a daemon: a program that ends waits until the card is in a state that is known
            self._thread = threading.Thread(target=self._write, args=(ready, shown.image))
            self._thread.start()
        return self.state()

    @property
    def busy(self) -> bool:
        """Whether a card is being written."""
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """How the writing goes: ``phase`` is idle, running, done or failed."""
        return dict(self._state)

    def _tell(self, **now: Any) -> None:
        self._state = {**self._state, **now}

    def _write(self, ready: Prepared, image: bool) -> None:
        def see(what: str, done: int, of: int) -> None:
            self._tell(what=plain(what), done=done, of=of)
            if self._stop.is_set():
                self._stop.clear()
                if not interrupts.ask():
                    raise KeyboardInterrupt

        try:
            saved = jobs.execute(ready.job, journal.default_dir(), image=image, progress=see)
        except KeyboardInterrupt:  # before the first write
            self._tell(phase="failed", said="ended; the card was not changed")
        except Exception as error:  # the page has to be told, whatever it was
            self._tell(phase="failed", said=plain(message_of(error)))
        else:
            said = f"done and verified: take the card out now. Backup in {saved.folder}"
            self._tell(phase="done", said=plain(said))

    def stop(self) -> dict[str, Any]:
        """End the writing between two steps; the state then says how the card is."""
        if self.busy and not interrupts.ask():
            self._stop.set()  # nothing is written yet: the next word about the progress ends it
        return self.state()

    def close(self) -> str:
        """End the writing, and wait until its last words are true; returns them, "" where nothing was being written."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return ""
        with interrupts.caught():
            self.stop()
            thread.join()
        return str(self._state["said"])


def _interrupted(disk: Disk, layout: str | None) -> list[str]:
    """A sentence where an operation on this card was begun on this computer and never ended: its power went, say."""
    with open_target(disk, write=False) as target:
        begun = recover.to_resume(whose_backup.own(target, disk, journal.find(journal.default_dir()), layout))
    if begun is None:
        return []
    return [
        f"{begun.verb} was interrupted on this card (backup in {begun.folder}): `miniscope-xr resume {disk.path}` "
        "finishes it, `restore` undoes it; or prepare the card anew here"
    ]


def _setting(layout: Layout, name: str, raw: int) -> dict[str, Any]:
    """One setting as a form shows it."""
    item = layout.header[name]
    choices = None if item.choices is None else [[code, meaning] for code, meaning in item.choices.items()]
    low, high = item.limits
    return {
        "name": name, "raw": raw, "shown": show(item, raw), "text": item.description or "", "units": item.units or "",
        "choices": choices, "low": low, "high": high, "used": item.used,
    }  # fmt: skip
