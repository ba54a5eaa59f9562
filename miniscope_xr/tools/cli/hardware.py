r"""A card in a real reader, worked through step by step; what came out is a report file that can be sent in.

The disks of Windows and macOS are known from documentation and simulations. What only hardware shows is asked here, in
ten minutes and with a card that may be lost::

    python -m miniscope_xr.tools.cli.hardware \\.\PhysicalDrive2                 only looks; says the card's id
    python -m miniscope_xr.tools.cli.hardware \\.\PhysicalDrive2 --write ID      writes too: what is on the card is lost

``docs/hardware-checklist.md`` says what to have ready, and what a person does by hand meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miniscope_xr._version import __version__
from miniscope_xr.errors import MiniscopeError, message_of
from miniscope_xr.source.local import Device
from miniscope_xr.source.words import example_device
from miniscope_xr.tools.cli.program import main as command_line
from miniscope_xr.tools.flash.ask import is_person
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import BUSY, DONE, PROBLEMS, REFUSED, USAGE
from miniscope_xr.tools.flash.journal import journals

SETTINGS = ("--layout", "v4-wirefree", "gain=2x", "ewl=120", "record_length=5", "fs=20")
_PIECE, _MOST = 4 << 20, 64 << 20  # bytes at once, and in all, of the reading speed
_PATIENCE = 60  # seconds in which a person pulls a card
_BEGINS = 600  # seconds in which any computer begins to write
Ask = Callable[[str], str]


@dataclass
class Trial:
    """One thing tried: what, what should come out, and what did."""

    title: str
    expected: str
    got: str
    right: bool
    seconds: float
    said: str = ""

    def __str__(self) -> str:
        head = f"## {'as expected' if self.right else 'NOT AS EXPECTED'}: {self.title}\n"
        facts = f"expected {self.expected}; got {self.got}; {self.seconds:.1f} s\n"
        return f"{head}\n{facts}" + (f"\n```\n{self.said.rstrip()}\n```\n" if self.said.strip() else "")


class Checklist:
    """The steps for one card; the report is written anew after each, so that a crash loses nothing.

    Parameters
    ----------
    device, report
        The card, and the file to write.
    image
        An image file or loop device is meant (``--image`` of every command).
    """

    def __init__(self, device: str, report: Path, image: bool = False) -> None:
        self.device, self.report = device, report
        self.backups = report.with_name(f"{report.stem}-backups")
        self.flags = ["--backup-dir", str(self.backups), *(["--image"] if image else [])]
        self.steps: list[Trial] = []

    @property
    def wrong(self) -> list[Trial]:
        """The steps that did not end as expected."""
        return [step for step in self.steps if not step.right]

    def note(self, step: Trial) -> None:
        """Keep a step, show it, and write the report."""
        self.steps.append(step)
        print(f"{'ok  ' if step.right else 'NOT '} {step.title}: {step.got}")
        text = "\n".join([_facts(), *map(str, self.steps)])
        self.report.write_text(text, encoding="utf-8", errors="replace")

    def run(self, *words: str, codes: Sequence[int] = (DONE,)) -> str:
        """Run a command of ``miniscope-xr``; return what it printed."""
        out, began = io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = command_line(words)
            except SystemExit as left:  # argparse's way out
                code = left.code if isinstance(left.code, int) else USAGE
        title = "miniscope-xr " + " ".join(words)
        expected = "exit code " + " or ".join(map(str, codes))
        seconds = time.monotonic() - began
        self.note(Trial(title, expected, f"exit code {code}", code in codes, seconds, out.getvalue()))
        return out.getvalue()

    def write(self, verb: str, *words: str, codes: Sequence[int] = (DONE,)) -> None:
        """Run a command that writes to the card, as a script does: with its id of this moment."""
        self.run(verb, self.device, *words, *self._sure(), codes=codes)

    def _sure(self) -> list[str]:
        return [*self.flags, "--yes", "--card", identify(self.device).card_id]

    def look(self) -> None:
        """Everything that writes nothing."""
        self.run("list", "--all", "--json")
        self.run("info", self.device, "--json", codes=(DONE, REFUSED))
        self.run("check", self.device, codes=(DONE, REFUSED, PROBLEMS))
        self.speed()

    def speed(self) -> None:
        """Read the start of the card, in pieces and at places that no disk is fond of."""
        began = time.monotonic()
        try:
            with Device(self.device) as source:
                whole = b"".join(source.read(at, _PIECE) for at in range(0, min(source.size, _MOST), _PIECE))
                seconds = time.monotonic() - began
                odd = source.read(511, 1026)
                end = source.read(source.size - 100, 200)
        except (MiniscopeError, OSError) as error:
            self.note(Trial("read", "bytes", message_of(error), False, time.monotonic() - began))
            return
        right = odd == whole[511 : 511 + 1026] and len(end) == 100
        rate = f"{len(whole) / max(seconds, 1e-6) / 1e6:.1f} MB/s" if right else "other bytes at odd places"
        self.note(
            Trial(f"read {len(whole) >> 20} MB", "the same bytes however they are asked for", rate, right, seconds)
        )

    def change(self, seconds: str = "10") -> None:
        """A card's life: prepared, set, restored, prepared anew with a kill in between, qualified.

        Nothing here reads the whole of a large card, which takes longer than anybody waits.
        """
        self.run("backup", self.device, *self.flags)
        self.write("blank-table", "--discard-recording", identify(self.device).card_id)
        self.write("prepare", *SETTINGS, "led=10", "--discard-recording", identify(self.device).card_id)
        self.setting("led", 10)
        self.write("set", "led=20")
        self.setting("led", 20)
        self.write("restore")
        self.setting("led", 10)
        if self.kill():
            self.write("resume")
        self.setting("led", 30)
        self.write("qualify", "--seconds", seconds, codes=(DONE, PROBLEMS))

    def setting(self, name: str, value: int) -> None:
        """Look whether a setting is on the card."""
        said = self.run("info", self.device)
        found = [line for line in said.splitlines() if line.split()[:1] == [name]]
        right = any(line.split()[1] == str(value) for line in found)
        self.note(Trial(f"{name} on the card", str(value), "; ".join(found).strip() or "nothing", right, 0.0))

    def kill(self) -> bool:
        """End a process while it writes; return whether that came in time, so that there is something to resume."""
        words = ["prepare", self.device, *SETTINGS, "led=30", *self._sure()]
        began, in_time = time.monotonic(), False
        child = subprocess.Popen(
            [sys.executable, "-m", "miniscope_xr", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        while child.poll() is None and not in_time and time.monotonic() - began < _BEGINS:
            time.sleep(0.01)
            in_time = any(not journal.finished for journal in journals(self.backups))
        child.kill()
        try:
            said = child.communicate(timeout=_PATIENCE)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:  # a program that it had started lives on, and holds its output
            said = "its output does not end"
        in_time = any(not journal.finished for journal in journals(self.backups))
        got = "killed" if in_time else f"exit code {child.returncode}"
        right = in_time or child.returncode == DONE
        seconds = time.monotonic() - began
        self.note(Trial(f"miniscope-xr {' '.join(words)}", "killed, or done before that", got, right, seconds, said))
        return in_time

    def by_hand(self, ask: Ask = input) -> None:
        """What a person does: a card pulled while it is read and put back, a lock switch, a file left open."""
        before = identify(self.device).card_id
        print(f"Pull the card out of its reader now (within {_PATIENCE} s; leave the reader plugged in).")
        self.note(self._until_pulled())
        ask("Put the same card in again, wait for the computer to notice it, then press Enter. ")
        now = _told(lambda: identify(self.device).card_id)
        self.note(Trial("the card in its reader again", f"card {before}", f"card {now}", now == before, 0.0))
        if (
            ask("Has the card a lock switch? Move it down, put the card in again and type y; else Enter: ").strip()
            == "y"
        ):
            self.run("set", self.device, "led=10", *self.flags, "--yes", "--card", before, codes=(REFUSED, BUSY))
            ask("Move the switch up again, put the card in, and press Enter. ")

    def _until_pulled(self) -> Trial:
        began = time.monotonic()
        try:
            while time.monotonic() - began < _PATIENCE:
                with Device(self.device) as source:
                    source.read(0, _PIECE)
                time.sleep(0.2)
        except (MiniscopeError, OSError) as error:
            got, right = f"{type(error).__name__}: {message_of(error)}", isinstance(error, MiniscopeError)
        else:
            got, right = "it could be read all the time", False
        return Trial("the card pulled", "an error that says so", got, right, time.monotonic() - began)


def _told(question: Callable[[], str]) -> str:
    try:
        return question()
    except (MiniscopeError, OSError) as error:
        return message_of(error)


def _facts() -> str:
    """The computer: what a fault may come from."""
    libraries = (f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "xarray"))
    lines = [
        "# miniscope-xr on hardware", "",
        f"miniscope-xr {__version__}, Python {platform.python_version()}, {', '.join(libraries)}, {platform.machine()}",
        f"{platform.system()} {platform.release()} {platform.version()}", time.strftime("%Y-%m-%d %H:%M"), "",
    ]  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Work through the list; exit code 0 if all went as expected, 7 if not, 3 if the card is not the one meant."""
    text, _, how = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m miniscope_xr.tools.cli.hardware", description=text, epilog=how,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("card", metavar="CARD", help=f"a card's device, for example {example_device()}")
    parser.add_argument("--write", metavar="ID", help="write too; the id of the card whose content may be lost")
    parser.add_argument("--report", type=Path, default=Path("hardware-report.md"), help="file to write")
    parser.add_argument("--image", action="store_true", help="try it with an image file or a loop device")
    args = parser.parse_args(argv)
    try:
        found = identify(args.card).card_id
    except (MiniscopeError, OSError) as error:
        print(message_of(error), file=sys.stderr)
        return REFUSED
    print(f"card {found}" + ("" if args.write else f"; nothing is written to it (--write {found} does)"))
    if args.write not in (None, found):
        print(f"{args.card} holds card {found}, not {args.write}; nothing was done", file=sys.stderr)
        return REFUSED
    list_ = Checklist(args.card, args.report, args.image)
    list_.look()
    if args.write:
        list_.change()
    if is_person(sys.stdin):
        list_.by_hand()
    print(f"{len(list_.steps)} steps, {len(list_.wrong)} not as expected; the report: {args.report}")
    return PROBLEMS if list_.wrong else DONE


if __name__ == "__main__":
    raise SystemExit(main())
