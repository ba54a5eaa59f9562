"""``miniscope-xr collect``: all cards of a day, everything out of them."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniscope_xr.errors import MiniscopeError, OptionError, OutputExistsError, plain
from miniscope_xr.layout import load_layout
from miniscope_xr.source.words import example_device
from miniscope_xr.tools.collect.about import TOLD, checked, terminal
from miniscope_xr.tools.collect.again import Readying, agree
from miniscope_xr.tools.collect.exports import wanted
from miniscope_xr.tools.collect.job import AGAIN, CollectJob, Wish
from miniscope_xr.tools.collect.names import DEFAULT
from miniscope_xr.tools.collect.plan import Telling, identified, in_readers, plan_cards
from miniscope_xr.tools.collect.run import collect_all
from miniscope_xr.tools.collect.summary import Summary
from miniscope_xr.tools.collect.table import CardTable
from miniscope_xr.tools.export.archive import archive
from miniscope_xr.tools.export.cluster import scheduler
from miniscope_xr.tools.flash.arguments import Preparing
from miniscope_xr.tools.flash.commands import guarded
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.steps import Said, say
from miniscope_xr.tools.stream.arguments import anywhere, flag, option, positional, several, texts
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import kind_of

_NEXT = (
    "the next recording", "Each card is prepared as `prepare` does it, and only once all that was asked of it is done "
    "and what is erased was compared with its copy.",
)  # fmt: skip
_TOLD = (
    "what the cards do not know", "Kept beside the copy and carried into everything made of it. These are told of all "
    "cards; a table tells of each. What the names need and nobody told is asked for on a terminal.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Collecting:
    """``collect``."""

    paths: list[str] = positional(
        f"devices of cards ({example_device()}) or image files, and last the folder to collect into",
        "CARD ... [into] FOLDER", nargs="*",
    )  # fmt: skip
    all: bool = flag("every Miniscope card in the readers")
    name: str = option(
        "name of each card's files, of what is told and {card}, its id (default: %(default)s)", "TEMPLATE",
        default=DEFAULT,
    )  # fmt: skip
    report: bool = flag("a page about each card (.html)")
    export: list[str] = several(
        "a format (see `export`), an ending such as .ome.tif, or a preset of an export; can be given again", "WHAT"
    )
    archive: str | None = option("all of them in one Zarr store too, as `archive` writes it", "STORE")
    cluster: str | None = option(
        "have the workers of a dask.distributed scheduler write the archive; they read the copies by the same paths "
        "as this computer", "ADDRESS",
    )  # fmt: skip
    deep: bool = flag("check every buffer header")
    layout: str | None = option("id or file of the cards' layout, where it is not detected")
    at_once: int | None = option("cards read side by side (default: all)", "N")
    image: bool = flag("allow image files and loop devices (--all, --then-prepare)")
    json: bool = flag("print one JSON object; nothing is asked")
    then_prepare: str | None = option("prepare the cards again with these settings", "PRESET", group=_NEXT)
    settings: str | None = option(
        "NAME=VALUE words that count more than the preset's; a column of the table too", "WORDS", group=_NEXT
    )
    yes: bool = flag("do not ask; needs every card's id, by --card or in the table", group=_NEXT)
    card: list[str] = several("card id that is meant; can be given again", "ID", group=_NEXT)
    expect_size: str | None = option("allow cards of this size (for example 512G) above 256 GB", "SIZE", group=_NEXT)
    backup_dir: str | None = option("folder for backups and journals", "DIR", group=_NEXT)
    table: str | None = option("CSV or YAML that names each card by its id in a column `card`", "FILE", group=_TOLD)
    told: Mapping[str, str] = texts(TOLD, group=_TOLD)


def collect_cards(args: Collecting, report: Said, progress: Progress | None) -> int:
    """Plan, ask, do, tell."""
    report.pop("device")
    paths, into = _paths(args)
    readying = _readying(args)
    _check_before(args)
    wish = Wish(wanted(args.export), args.report, args.deep, args.layout)
    table = CardTable(Path(args.table)) if args.table else None
    told = Telling(args.name, checked(args.told), table, None if args.json else terminal())
    disks = in_readers(args.image) if args.all else identified(paths)
    strange = {name.lower() for name in args.card} - {disk.card_id.lower() for disk in disks}
    if strange:
        raise RefusedError(f"--card {plain(min(strange))} is none of these cards; look again with `list`")
    cards = plan_cards(disks, into, told, args.layout, args.backup_dir)
    agreed = {}
    if readying is not None:
        agreed = agree(cards, _with_words(readying, cards, table, args), show=not args.json)
    summary = collect_all(cards, into, wish, at_once=args.at_once, show=not args.json, agreed=agreed)
    others = table.others(disks) if table else []
    summary.notes += [f"{plain(card)} has a row in {args.table} and is none of these cards" for card in others]
    if args.archive is not None and not summary.interrupted:
        _archive(summary, args)
    report.update(phase="done", card_changed=summary.card_changed, **summary.to_json())
    say(summary.lines(), args)
    return summary.exit


def _check_before(args: Collecting) -> None:
    """What a wrong option or a library that is missing would end after an hour ends now."""
    if args.layout is not None:
        load_layout(args.layout)  # a wrong one is told before the cards are read
    if args.archive is not None:
        need("zarr", "archive", "an archive")
        need("dask.array", "archive", "an archive")
        if args.cluster is not None:
            with scheduler(args.cluster):  # it answers
                pass
    if args.report:
        need("PIL.Image", "report", "a report")


def _archive(summary: Summary, args: Collecting) -> None:
    """Have every copy of this run in one store too; what it lacks is written, what fails is told in the summary."""
    options: dict[str, Any] = {"layout": args.layout} if args.layout else {}
    try:
        if images := summary.images:
            written = archive(images, str(args.archive), progress=not args.json, cluster=args.cluster, **options)
            summary.notes.append(
                f"{args.archive}: {written} frames written" if written else f"{args.archive}: all of it is there"
            )
    except (MiniscopeError, OSError) as error:
        summary.failed = error
    except KeyboardInterrupt:  # what is said of the cards is said all the same
        summary.interrupted = True
        summary.notes.append(f"{args.archive}: stopped; {AGAIN}")


def _paths(args: Collecting) -> tuple[list[str], Path]:
    """Tell the cards from the folder, and check what can be checked without looking at a card."""
    paths = [path for path in args.paths if path.lower() != "into"]
    folder = paths.pop() if paths else ""
    if not folder:
        raise OptionError("name the cards, and last the folder that they are collected into")
    if bool(paths) == args.all:
        both = ", not both" if paths else f"; {plain(folder)} is taken for the folder to collect into"
        raise OptionError(f"name the cards, or give --all for every Miniscope card in the readers{both}")
    if args.cluster is not None and args.archive is None:
        raise OptionError("--cluster writes blocks of --archive STORE, which is not asked for")
    if args.at_once is not None and args.at_once < 1:
        raise OptionError(f"--at-once {args.at_once}: expected 1 or more")
    into = Path(folder).absolute()
    if kind_of(into) not in ("", "a folder") and not into.is_dir():
        raise OutputExistsError(
            errno.EEXIST, f"is {kind_of(into)}; name the folder that the cards are collected into", str(into)
        )
    return paths, into


def _readying(args: Collecting) -> Readying | None:
    if args.then_prepare is None:
        for name in ("settings", "yes", "card", "expect_size"):
            if getattr(args, name):
                raise OptionError(f"--{name.replace('_', '-')} is of --then-prepare, which is not asked for")
        return None
    return Readying(Preparing(
        command="prepare", device="", layout=args.layout, image=args.image, json=args.json, settings=[], yes=args.yes,
        backup_dir=args.backup_dir, expect_size=args.expect_size, preset=args.then_prepare,
    ))  # fmt: skip


def _with_words(readying: Readying, cards: Sequence[CollectJob], table: CardTable | None, args: Collecting) -> Readying:
    """Add the settings of each card, which its row of the table has, and the ids that were named."""
    words, named = {}, {name.lower() for name in args.card}
    for card in cards:
        own = table.settings_of(card.disk.card_id, card.disk.path) if table else ""
        words[card.disk.path] = (own or args.settings or "").split()
        if table and table.names_id(card.disk.card_id):
            named.add(card.disk.card_id.lower())
    return replace(readying, settings=words, named=frozenset(named))


def register(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object."""
    parser = subparsers.add_parser(
        "collect", usage="%(prog)s [options] CARD ... [into] FOLDER",
        help="copy, check, report and export many cards into one folder",
        description="Copy every card into a folder, verified, and check it; with --report and --export make of it what "
        "is asked. Several readers are read side by side. Run it again to go on after an interruption: what is done is "
        "not done twice.",
    )  # fmt: skip
    guarded(parser, Collecting, collect_cards)
    anywhere(parser, "paths")
