"""One card: found, named, copied, checked, reported and exported, each step once.

What is done is told by the files and their record (:mod:`miniscope_xr.tools.collect.record`), never by memory: a run
that was killed anywhere, or a card that was collected yesterday, goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from miniscope_xr.errors import CardReadError, MiniscopeError, NotACardError, OutputExistsError
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.copy_map import CopyMap
from miniscope_xr.source.replace import remove
from miniscope_xr.source.words import try_again_command
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.check.result import CheckResult
from miniscope_xr.tools.collect.about import About
from miniscope_xr.tools.collect.exports import Wanted
from miniscope_xr.tools.collect.record import Sidecar, read_sidecar
from miniscope_xr.tools.copy.image import copy_image, note_sum, sum_up
from miniscope_xr.tools.export.run import export
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.report import write_report
from miniscope_xr.tools.stream.outputs import watched

AGAIN = "run the same command again: it goes on where it stopped"


@dataclass(frozen=True)
class Wish:
    """What is asked of every card."""

    exports: Sequence[Wanted] = ()
    report: bool = False
    deep: bool = False
    layout: str | None = None


@dataclass
class CollectJob:
    """A card of this run, and where its files go."""

    disk: Disk
    """What the system says of it."""
    marks: str
    """What is on it, as a hash of a few sectors."""
    base: Path | None = None
    """What the names of its files begin with; None for a card on which nothing was recorded."""
    about: About = field(default_factory=dict)
    """What is told of it."""
    refused: MiniscopeError | None = None
    """Why it is left alone."""
    earlier: Sidecar | None = None
    """Of a card on which nothing was recorded: the record of its last recording, where it was prepared after that."""

    @property
    def image(self) -> Path:
        """Its copy."""
        assert self.base is not None
        return self.base.with_name(self.base.name + ".img")


@dataclass
class Found:
    """What came of a card: for the summary."""

    files: list[Path] = field(default_factory=list)
    """What is there now, by name."""
    said: list[str] = field(default_factory=list)
    """What was found on it, one line each."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the recording, one line each; what to do where anything can be done."""
    steps: list[str] = field(default_factory=list)
    """What this run did; nothing where all was there already."""


def collect_one(
    job: CollectJob, wish: Wish, found: Found, see: Progress, frames: Progress, cores: threading.Semaphore
) -> Sidecar:
    """Do what is asked of one card; ``found`` is filled in on the way, so that it holds when something fails.

    Parameters
    ----------
    see, frames
        Told how far the copy is, in bytes, and what is made of it, in frames.
    cores
        Held while frames are worked on: a reader is its own bottleneck, the processor is everybody's.

    Raises
    ------
    MiniscopeError, OSError
        A step failed; those before it are done, and are not done again.
    """
    record = _record(job)
    _copy(job, record, wish, found, see)
    with cores, watched(frames):
        result = _check(record, wish, found)
        if wish.report:
            _report(record, wish, found)
        for wanted in wish.exports:
            _export(record, wanted, wish, result, found)
    return record


def _record(job: CollectJob) -> Sidecar:
    """Take up the card's record, or begin one; it is on the disk before anything else.

    Raises
    ------
    OutputExistsError
        Another recording has this name.
    """
    record = read_sidecar(job.image)
    if record is None:
        record = Sidecar(job.image)
    elif not record.is_of(job.marks, job.disk.card_id):
        raise OutputExistsError(
            errno.EEXIST,
            f"is the copy of another recording (card {record.card.get('id', 'unknown')}): tell them apart by what is "
            "told of this one, for example another --session",
            str(job.image),
        )
    else:
        record.tidy()
    disk = job.disk
    record.card = record.card or {"id": disk.card_id, "model": disk.model, "bytes": disk.size, "marks": job.marks}
    record.about = dict(sorted(job.about.items()))
    return record


def _copy(job: CollectJob, record: Sidecar, wish: Wish, found: Found, see: Progress) -> None:
    image = record.image
    whole = record.copy and image.is_file() and image.stat().st_size == record.copy.get("bytes")
    if whole and not _mended(record):
        record.save()
    else:
        fresh = not record.path.exists()
        record.copy = {}
        record.save()
        try:
            record.copy = _copied(job.disk.path, image, wish.layout, found, see)
        except NotACardError:
            if fresh:
                remove(record.path)
            raise
        record.save()
    found.files += [image, record.path]
    bad = record.copy["bad_sectors"]
    if bad:
        command = try_again_command(str(image))
        again = f"`{command}` tries them again" if command else "another card reader may get more of them"
        found.problems.append(f"{bad} sectors could not be read and are zero in the copy: {again}")


def _mended(record: Sidecar) -> bool:
    """Whether sectors that were missing in the copy are there by now: ddrescue went on with it, and its map says so."""
    if not record.copy.get("bad_sectors"):
        return False
    try:
        return sum(length for _, length in _map_of(record.image).bad) // SECTOR < int(record.copy["bad_sectors"])
    except OSError:  # no map, or none that can be read
        return False


def _map_of(image: Path) -> CopyMap:
    return CopyMap.parse(image.with_name(image.name + ".map").read_text(encoding="utf-8"), image)


def _copied(card: str, image: Path, layout: str | None, found: Found, see: Progress) -> dict[str, Any]:
    if image.is_file():  # whole: only its record is missing
        copy = _map_of(image)
        bad, size, sha256 = copy.bad, image.stat().st_size, sum_up(image, see).hexdigest()
        note_sum(image, sha256)
    else:
        done = copy_image(card, image, layout=layout, progress=see)
        bad, size, sha256 = list(done.bad), done.size, done.sha256
        found.steps.append("copied")
    return {"bytes": size, "sha256": sha256, "bad_sectors": sum(length for _, length in bad) // SECTOR}


def _check(record: Sidecar, wish: Wish, found: Found) -> dict[str, Any]:
    if not record.check or (wish.deep and not record.check.get("deep")) or record.check.get("of") != _of(record):
        record.check = {"of": _of(record), **_checked(check(record.image, wish.deep, wish.layout))}
        record.save()
        found.steps.append("checked")
    for recording in record.check["recordings"]:
        found.said.append(
            f"recording {recording['number']}: {recording['status']}, {recording['frames']:,} frames in "
            f"{recording['seconds']:.1f} s"
        )
    found.problems += [problem["sentence"] for problem in record.check["problems"]]
    return record.check


def _checked(result: CheckResult) -> dict[str, Any]:
    """What is kept of a check: the numbers of each recording, and what is wrong, in sentences."""
    numbers = ("number", "status", "frames", "frames_lost", "partial_frames", "seconds", "frames_per_second")
    return {
        "ok": result.ok, "deep": result.deep, "layout": result.layout,
        "recordings": [{name: getattr(each, name) for name in numbers} for each in result.recordings],
        "problems": [{"kind": each.kind, "sentence": each.sentence} for each in result.all_problems],
    }  # fmt: skip


def _of(record: Sidecar, **ways: object) -> str:
    """Return what an output is made of and with, in one hash."""
    text = json.dumps([record.copy["sha256"], ways], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _making(record: Sidecar, path: Path, of: str, found: Found) -> Iterator[bool | None]:
    """Yield whether to overwrite an output of ours that is out of date; None where it is done already."""
    found.files.append(path)
    name, is_there = path.name, path.exists()
    if is_there and record.made.get(name) == of and name not in record.making:
        yield None
        return
    ours = name in record.made or name in record.making
    if is_there and not ours:
        raise OutputExistsError(errno.EEXIST, "exists already and is none of this command's; move it away", str(path))
    record.begin(name)
    yield ours
    record.done(name, of=of)
    found.steps.append(f"wrote {name}")


def _report(record: Sidecar, wish: Wish, found: Found) -> None:
    path = record.image.with_suffix(".html")
    with _making(record, path, _of(record, about=record.about, layout=wish.layout), found) as force:
        if force is not None:
            write_report(record.image, path, layout=wish.layout, force=force)


def _export(record: Sidecar, wanted: Wanted, wish: Wish, checked: Mapping[str, Any], found: Found) -> None:
    numbers = [recording["number"] for recording in checked["recordings"]]
    for number in numbers:
        path = wanted.path(record.image.with_suffix(""), number if len(numbers) > 1 else None)
        ways = {"to": wanted.to, "opening": wanted.opening, "options": wanted.options, "about": record.about}
        with _making(record, path, _of(record, **ways), found) as force:
            if force is None:
                continue
            told: dict[str, Any] = {name: value for name, value in wanted.options.items() if name not in record.about}
            opening: dict[str, Any] = {"layout": wish.layout, "recording": number, **wanted.opening}
            with xr.open_dataset(record.image, engine="miniscope", **opening) as ds:
                export(ds, path, wanted.to, force=force, **told)


def was_pulled(error: BaseException) -> bool:
    """Whether an error means that the card was pulled out, or its reader."""
    return isinstance(error, CardReadError)
