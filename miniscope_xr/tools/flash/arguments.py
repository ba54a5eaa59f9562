"""What the commands that prepare and check cards are asked for, from what all of them take to what one of them does."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Listing:
    """``list``."""

    command: str
    json: bool
    all: bool


@dataclass(frozen=True)
class Looking:
    """``backup``: whatever looks at one card."""

    command: str
    device: str
    layout: str | None
    card: str | None
    image: bool
    dry_run: bool
    json: bool
    backup_dir: str | None


@dataclass(frozen=True)
class Writing(Looking):
    """``blank-table``: whatever writes to it."""

    yes: bool
    expect_size: str | None
    discard_recording: str | None


@dataclass(frozen=True)
class Setting(Writing):
    """``set``."""

    settings: list[str]
    no_stamp: bool
    preset: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Preparing(Setting):
    """``prepare``."""

    keep: bool
    wipe_minutes: float | None


@dataclass(frozen=True)
class Wiping(Writing):
    """``wipe``."""

    whole: bool


@dataclass(frozen=True)
class Recovering(Writing):
    """``restore`` and ``resume``."""

    backup: str | None


@dataclass(frozen=True)
class Qualifying(Writing):
    """``qualify``."""

    seconds: float
    full: bool
    plot: str | None
