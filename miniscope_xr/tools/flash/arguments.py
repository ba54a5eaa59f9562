"""What the commands that prepare and check cards are asked for, from what all of them take to what one of them does."""

from __future__ import annotations

from dataclasses import dataclass

from miniscope_xr.tools.stream.arguments import flag, option, positional


@dataclass(frozen=True, kw_only=True)
class Listing:
    """``list``."""

    command: str
    all: bool = flag("every disk, and why it is not a card")
    json: bool = flag("print one JSON object")


@dataclass(frozen=True, kw_only=True)
class Looking:
    """``backup``: whatever looks at one card."""

    command: str
    device: str = positional("device of the card (see `list`) or, with --image, an image file", "CARD")
    layout: str | None = option("id or file of the card's layout, where the card does not tell it")
    card: str | None = option("card id that must be in this device", "ID")
    image: bool = flag("allow an image file or a loop device")
    dry_run: bool = flag("open read-only, show what would be written")
    json: bool = flag("print one JSON object")
    backup_dir: str | None = option("folder for backups and journals", "DIR")


@dataclass(frozen=True, kw_only=True)
class Writing(Looking):
    """``blank-table``: whatever writes to it."""

    yes: bool = flag("do not ask; needs --card")
    expect_size: str | None = option("allow a card of this size (for example 512G) above 256 GB", "SIZE")
    discard_recording: str | None = option("allow to lose the recording with this id", "ID")


@dataclass(frozen=True, kw_only=True)
class Setting(Writing):
    """``set``."""

    settings: list[str] = positional(
        "for example gain=2x record_length=1h30m (also 5400, 90min, 1:30:00); what you do not name stays as it is",
        "NAME=VALUE", nargs="*",
    )  # fmt: skip
    preset: str | None = option("settings kept by `preset save`; those typed here count more", "NAME")
    no_stamp: bool = flag("leave the session id and checksum out of bytes 128-511")


@dataclass(frozen=True, kw_only=True)
class Preparing(Setting):
    """``prepare``."""

    keep: bool = flag("keep the data but for its first sector; save a list of it, so that a reader tells old from new")
    wipe_minutes: float | None = option("wipe room for M minutes instead of record_length", "M")


@dataclass(frozen=True, kw_only=True)
class Wiping(Writing):
    """``wipe``."""

    whole: bool = flag("to the end of the card, not only the recording")


@dataclass(frozen=True, kw_only=True)
class Recovering(Writing):
    """``restore`` and ``resume``."""

    backup: str | None = option("folder of the backup; else the newest of this card", "PATH")


@dataclass(frozen=True, kw_only=True)
class Qualifying(Writing):
    """``qualify``."""

    seconds: float = option("how long to write as the Miniscope does (60)", default=60)
    full: bool = flag("write as long as the planned recording")
    plot: str | None = option("picture of the write latencies (needs matplotlib)", "FILE")
