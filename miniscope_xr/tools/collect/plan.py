"""Which cards are collected, and where the files of each go: all known before anything is read or written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import BlankCardError, CardNotFoundError, MiniscopeError, NotACardError, OptionError
from miniscope_xr.source.copy_map import FRONT, card_marks
from miniscope_xr.source.open import open_device
from miniscope_xr.source.remote import is_url
from miniscope_xr.tools.collect.about import About, asked
from miniscope_xr.tools.collect.again import interrupted
from miniscope_xr.tools.collect.job import CollectJob
from miniscope_xr.tools.collect.names import DEFAULT, fields_of, name_of, refuse_same
from miniscope_xr.tools.collect.record import Sidecar, read_sidecar, read_sidecars, shared_data
from miniscope_xr.tools.collect.table import CardTable
from miniscope_xr.tools.flash import refuse
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify, present
from miniscope_xr.tools.flash.errors import RefusedError


@dataclass(frozen=True)
class Telling:
    """What is told of the cards, and what their files are called."""

    template: str = DEFAULT
    """Of their names."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Told of all of them."""
    table: CardTable | None = None
    """Told of each."""
    ask: Callable[[str], str] | None = None
    """Asks a person for what is missing; None where nobody is there."""

    def of(self, disk: Disk, before: About) -> About:
        """What is told of one card; what was told ``before`` counts least."""
        return {**before, **(self.table.of(disk.card_id, disk.path) if self.table else {}), **self.given}


def in_readers(image: bool = False) -> list[Disk]:
    """Return every Miniscope card in the readers: what holds a recording, or was prepared for one.

    A lock switch keeps no card from being copied. A card that cannot be read, or by this user, may be one of ours: it
    is among them, so that the run tells of it.
    """
    found = []
    for disk in present():
        why = refuse.reasons(replace(disk, read_only=False), image=image, expect_size=disk.size)
        if disk.size and all(reason.busy for reason in why) and _is_ours(disk.path):
            found.append(disk)
    return found


def _is_ours(path: str) -> bool:
    try:
        OpenCard(path, errors="fill").close()
    except BlankCardError:
        return True
    except (NotACardError, CardNotFoundError):
        return False
    except (MiniscopeError, OSError):  # cannot be read, is ambiguous, or of a build that is not read
        return True
    return True


def identified(paths: Iterable[str]) -> list[Disk]:
    """Describe the cards that were named, each once.

    Raises
    ------
    OptionError
        One is no card of this computer, or named twice.
    """
    found: dict[str, Disk] = {}
    for path in paths:
        if is_url(path):
            raise OptionError(f"{path}: collect takes cards and images of this computer; `image` copies an address")
        disk = identify(path)
        if disk.path in found:
            raise OptionError(f"{path} is named twice")
        found[disk.path] = disk
    return list(found.values())


def plan_cards(
    disks: Sequence[Disk], into: Path, telling: Telling, layout: str | None = None, backup_dir: str | None = None
) -> list[CollectJob]:
    """Say where the files of each card go, before anything is read or written.

    A card that was collected before, whole or in part, stays where it is.

    Raises
    ------
    OptionError
        A field of the template is not known, a name would leave the folder, or two cards would have one name.
    """
    fields = [name for name in fields_of(telling.template) if name != "card"]
    known = list(read_sidecars(into)) if into.is_dir() else []
    jobs, named, twins = [], [], dict[str, str]()
    if telling.table:
        telling.table.check(disks)
    for disk in disks:
        job = CollectJob(disk, _marks(disk.path))
        jobs.append(job)
        ours = (record for record in known if job.marks and record.is_of(job.marks, disk.card_id))
        before = next(ours, None)
        if before is not None:
            job.base = before.image.with_suffix("")
        elif _holds_nothing(job, known, layout, backup_dir):
            job.earlier = _earlier(disk, known)
            continue
        if _is_twin(job, twins):
            continue
        job.about = telling.of(disk, before.about if before else {})
        named.append(job)
    _name(named, into, fields, telling)
    return jobs


def _name(jobs: Sequence[CollectJob], into: Path, fields: Sequence[str], telling: Telling) -> None:
    """Say what the files of each card begin with, once what the template needs is told of all of them."""
    told = asked([job.disk.describe() for job in jobs], [job.about for job in jobs], fields, telling.ask)
    for job, about in zip(jobs, told, strict=True):
        job.about = about
        if job.base is None:
            job.base = into / name_of(telling.template, {**about, "card": job.disk.card_id})
            _refuse_taken(job)
    refuse_same({job.disk.path: job.base for job in jobs if job.base})


def _marks(path: str) -> str:
    """What is on a card, as a hash of a few sectors; empty where it cannot be read, of which the run will tell."""
    with contextlib.suppress(MiniscopeError), contextlib.closing(open_device(path)) as source:
        return card_marks(source, FRONT)
    return ""


def _holds_nothing(job: CollectJob, known: Sequence[Sidecar], layout: str | None, backup_dir: str | None) -> bool:
    """Whether nothing is to be copied of a card: it cannot be read, is being prepared, or nothing was recorded."""
    if not job.marks:
        return True
    try:
        if interrupted(job.disk.path, known, backup_dir):
            return True
        OpenCard(job.disk.path, layout, errors="fill").close()
    except BlankCardError:
        return True
    except RefusedError as error:
        job.refused = error
        return True
    except MiniscopeError:  # whatever it is, the copy will tell
        return False
    return False


def _is_twin(job: CollectJob, twins: dict[str, str]) -> bool:
    """Whether another card of this run holds the same recording, as its clone does; ``twins`` has who holds what."""
    if not shared_data(job.marks, job.marks):  # it cannot be told
        return False
    other = twins.setdefault(job.marks, job.disk.path)
    if other == job.disk.path:
        return False
    job.base = None
    job.refused = OptionError(
        f"{job.disk.path} holds the same recording as {other}: one is a copy of the other, and one is enough"
    )
    return True


def _earlier(disk: Disk, known: Sequence[Sidecar]) -> Sidecar | None:
    """The record of a card's last recording, where the card was prepared after that."""
    before = [record for record in known if record.prepared and record.card.get("id") == disk.card_id]
    return max(before, key=_copied, default=None)


def _copied(record: Sidecar) -> float:
    """When a copy was written; names tell nothing of the order."""
    try:
        return record.image.stat().st_mtime
    except OSError:
        return 0.0


def _refuse_taken(job: CollectJob) -> None:
    taken = read_sidecar(job.image)
    if taken is not None:
        raise OptionError(
            f"{job.disk.path} would be named {job.image}, which is the copy of another recording (card "
            f"{taken.card.get('id', 'unknown')}): give it another session"
        )
