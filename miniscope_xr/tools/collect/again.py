"""Cards made ready again, each only once what is erased is proven to be in its copy.

Everything is as `prepare` does it: the same refusals, the same look, the same question, the same order and journal. One
thing is other: a recording that would be lost is given up with ``--discard-recording`` there, and here by the proof.
Under the descriptor that erases (nobody else can write to the card meanwhile) the card is read once more, from its
first sector to the end of the copy, and so is the copy; both have the checksum that was noted when it was made. What
looks like a recording behind the end of the copy keeps the card from being prepared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from miniscope_xr.errors import OptionError
from miniscope_xr.source.replace import settle
from miniscope_xr.tools.collect.job import CollectJob, Found
from miniscope_xr.tools.collect.lines import Lines, Stopped
from miniscope_xr.tools.collect.record import Sidecar
from miniscope_xr.tools.copy.image import forget
from miniscope_xr.tools.flash import ask, interrupts, jobs, presets, recover, refuse, steps, verbs, whose_backup
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.arguments import Preparing
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.look import Look, check_content
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.flash.target.open import open_target

_STEP = 4 << 20
_ONE_AT_A_TIME = threading.Lock()
"""Held while a card is written: a signal stops what is being written, and there is one of it."""


@dataclass(frozen=True)
class Readying:
    """What is asked for the next recording."""

    asked: Preparing
    """What `prepare` would be asked for, of any of the cards. With ``yes`` every card has to be named by its id."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the path of a card, NAME=VALUE words of its own, which count more than the preset's."""
    named: frozenset[str] = frozenset()
    """Ids of the cards that were named."""

    def of(self, path: str) -> Preparing:
        """What `prepare` would be asked for of one card."""
        return verbs.with_preset(replace(self.asked, device=path, settings=list(self.settings.get(path, ()))))


@dataclass(frozen=True)
class Agreed:
    """A card that was looked at, shown, and agreed to be prepared."""

    args: Preparing
    seen: Look
    ready: verbs.Prepared


def agree(cards: Sequence[CollectJob], readying: Readying, show: bool = True) -> dict[str, Agreed]:
    """Look at every card that holds a recording, show what will be written, and ask; nothing is written yet.

    Returns
    -------
    dict
        By the path of each card, what was agreed.

    Raises
    ------
    RefusedError
        A card is refused, or the answer was no.
    OptionError
        There is no such preset, or ``--yes`` was given without naming the cards.
    """
    presets.settings_preset(str(readying.asked.preset))
    held = [card for card in cards if card.base is not None]
    for card in held:
        args, disk = readying.of(card.disk.path), card.disk
        steps.check_values(args, args.settings)
        refuse.check(disk, image=args.image, expect_size=steps.expected_size(args))
        if args.yes and disk.card_id.lower() not in readying.named:
            raise OptionError(
                f"--yes skips the question and so needs every card named by its id: --card {disk.card_id} for "
                f"{disk.path}, or a row of the table"
            )
    with contextlib.closing(Lines([card.disk.path for card in held], show)) as lines:
        looks = _looks(held, readying, lines)
    agreed = {}
    for card, seen in zip(held, looks, strict=True):
        args = readying.of(card.disk.path)
        check_content(seen, writes_data=True, verb="prepare", dry_run=True)
        if seen.foreign:
            raise RefusedError(
                f"{card.disk.path} holds a recording of {seen.recorded.layout.id}, and preset {args.preset!r} is "
                f"for {seen.layout.id}: take one that is for this card"
            )
        ready = verbs.to_prepare(args, seen)
        steps.shown(args, seen, {}, ready.settings)
        said = [ready.plan.describe(), *ready.said(), *ask.describe_changes(list(ready.job.changes))]
        steps.say([*said, "all of it only once the copy is proven to hold the recording"], args)
        ask.confirm(seen.disk.card_id, args.yes)
        agreed[card.disk.path] = Agreed(args, seen, ready)
    return agreed


def _looks(cards: Sequence[CollectJob], readying: Readying, lines: Lines) -> list[Look]:
    """Look at all cards side by side: each look reads where recordings can be."""

    def one(place: int) -> Look:
        path = cards[place].disk.path
        return steps.look_to_write(identify(path), readying.of(path).layout, lines.see(place))

    if not cards:
        return []
    with ThreadPoolExecutor(len(cards)) as pool:
        futures = [pool.submit(one, place) for place in range(len(cards))]
        try:
            return [future.result() for future in futures]
        except BaseException:
            lines.stop()
            raise


def prepare_again(agreed: Agreed, record: Sidecar, found: Found, see: Progress, lines: Lines) -> None:
    """Prove that the copy holds what will be erased, then prepare the card.

    Raises
    ------
    RefusedError
        It does not, or the card is not as it was when it was shown.
    InterruptedWriteError
        It failed or was interrupted; says whether the card was changed, and where the journal is.
    """
    args, seen, preset = agreed.args, agreed.seen, str(agreed.args.preset)
    if record.copy["bad_sectors"]:
        raise RefusedError(
            f"{seen.disk.path} was not prepared: {record.copy['bad_sectors']} of its sectors could not be read and are "
            "missing in the copy. Try them again in another reader; to give them up: `prepare --discard-recording`"
        )

    def watching(what: str, done: int, of: int) -> None:
        if lines.stopped:
            interrupts.ask()  # between two steps, with true last words
        with contextlib.suppress(Stopped):
            see(what, done, of)

    expect_size = steps.expected_size(args)
    with jobs.reopen(seen, image=args.image, expect_size=expect_size) as target:
        prove(target, record, seen, see)
        with _ONE_AT_A_TIME:
            see("preparing", 0, 1)
            record.preparing = preset
            record.save()
            journal = jobs.carry_out(agreed.ready.job, target, steps.backup_dir(args), watching)
    record.preparing, record.prepared = "", preset
    record.save()
    found.steps.append("prepared")
    found.said.append(f"prepared again ({preset}), verified; backup in {journal.folder}")


def is_writing() -> bool:
    """Whether a card is being written: then nobody leaves before the last words about it are known."""
    return _ONE_AT_A_TIME.locked()


def prove(target: Target, record: Sidecar, seen: Look, see: Progress) -> None:
    """Refuse unless the copy on the disk holds, byte for byte, everything on the card that looks like a recording.

    Parameters
    ----------
    target
        The card, under the descriptor that will erase it.
    record
        Of the copy, with the checksum noted when it was made.
    seen
        The card as it was shown: where what looks like a recording ends.
    """
    end, image = int(record.copy["bytes"]), record.image
    if seen.data_end > end:
        raise RefusedError(
            f"{seen.disk.path} was not prepared: something like a recording lies behind the end of the copy (up to "
            f"byte {seen.data_end}, the copy has {end}). `rescue` makes an image of all that is on the card"
        )
    anew = f"Move {image.name} away and run the same command again: the card is copied anew"
    card, copy = hashlib.sha256(), hashlib.sha256()
    if not image.is_file():
        raise RefusedError(f"{seen.disk.path} was not prepared: its copy {image} is gone")
    with open(image, "r+b" if sys.platform == "win32" else "rb") as file:  # Windows flushes what may be written alone
        os.fsync(file.fileno())
        forget(file)
        for at in range(0, end, _STEP):
            n = min(_STEP, end - at)
            card.update(target.read(at, n))
            copy.update(file.read(n))
            see("comparing", at + n, end)
        whole = not file.read(1)
    settle(image.parent)  # before what the copy replaces is erased
    if not (whole and copy.hexdigest() == record.copy["sha256"]):
        raise RefusedError(
            f"{seen.disk.path} was not prepared: {image} is not the copy any more that was made of it. {anew}"
        )
    if card.hexdigest() != copy.hexdigest():
        raise RefusedError(
            f"{seen.disk.path} was not prepared: it does not hold what {image} holds. Either it reads differently each "
            f"time (clean its contacts, try another reader), or somebody wrote to it meanwhile. {anew}"
        )


def interrupted(path: str, known: Sequence[Sidecar], backup_dir: str | None) -> Sidecar | None:
    """Return the record of a card that was being prepared when that was interrupted; None if it is none of them.

    Where `prepare` came to its end after all, only the record not, the record says so now.

    Raises
    ------
    RefusedError
        It is in the middle of it.
    """
    begun = [record for record in known if record.preparing]
    if not begun:
        return None
    folder = Path(backup_dir) if backup_dir else journals.default_dir()
    disk = identify(path)
    with open_target(disk, write=False) as target:
        mine = list(whose_backup.own(target, disk, journals.find(folder)))
    for record in begun:
        of_it = [old for old in mine if old.verb in ("prepare", "resume") and old.card["card_id"] == record.card["id"]]
        if not of_it:
            continue
        if recover.to_resume(iter(mine)) is not None:
            raise RefusedError(
                f"{path} was being prepared when that was interrupted; its recording is safe in {record.image}: "
                f"`miniscope-xr resume {path}` finishes it"
            )
        record.prepared, record.preparing = record.preparing, ""
        record.save()
        return record
    return None
