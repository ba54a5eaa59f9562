"""Press Ctrl+C at many stages of every command, on a terminal, and measure what comes of it.

    python tests/measure/stopping.py                               # every command, ten stages each
    python tests/measure/stopping.py image collect --stages 20     # these, at twenty
    python tests/measure/stopping.py --layout daq-wirefree --frames 9000  # 608x608, 3.4 GB

Each command is run once undisturbed, for its length; then again and again, each time with one Ctrl+C at a random moment
of one stage (a tenth of that length). A line is told for each: what was on the terminal, how long it took to end, the
exit code, how many lines were said after the key was pressed, and what is left in the folder of its outputs. A command
ends well with 5 or 6 and one line (``collect``: and its summary), or as if nothing had been where it was done already.
Seconds are of a machine with the load that is told beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr.tools.flash.disks.find import identify
from tests.screen import Screen

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 600.0  # seconds for a command that nobody stops
FORMATS = ("miniscope-daq", "minian", "zarr", "netcdf", "hdf5", "tiff", "nwb")
WRITES = ("wipe", "prepare", "set", "qualify", "restore")
BEGUN = 0.2  # seconds in which a terminal has a command, and Python begins: nobody of ours is there to listen
VIEWED = 3.0  # seconds for which `view` is looked at


@dataclass(frozen=True)
class Ended:
    """How a command ended: seconds, and those of a core, since the key was pressed; its exit code, what it said then.

    Where no key was pressed, or it was done before: since it began.
    """

    seconds: float
    cpu: float
    code: int
    late: bool
    said: list[str]
    before: str
    left: list[str]

    @property
    def good(self) -> bool:
        """Within a second, by an exit code of ours, and with one line, or the summary of a card."""
        told = len(self.said) <= 1 or any("collected into" in line for line in self.said)
        return self.late or (self.seconds <= 1 and self.code >= 0 and told)


def words_of(name: str, card: Path, out: Path) -> list[str]:
    """The words of a command; its outputs are in the folder ``out``, and ``card`` is its own where it writes to it."""
    if name.startswith("export-"):
        kind = name.removeprefix("export-")
        end = {"hdf5": ".h5", "tiff": ".tif", "nwb": ".nwb", "netcdf": ".nc", "zarr": ".zarr"}.get(kind, "")
        start = ["--start", "2026-03-14T15:09:26"] if kind in ("nwb", "miniscope-daq") else []
        return ["export", str(card), str(out / f"out{end}"), "--to", kind, *start]
    told = ["--animal", "m1", "--session", "s1", "--date", "2026-03-14"]
    if name in WRITES:
        asked = ["--image", "--yes", "--card", identify(str(card)).card_id, "--backup-dir", str(out)]
        discard = ["--discard-recording", identify(str(card)).card_id]
        more = {
            "wipe": ["--whole", *discard], "prepare": ["record_length=5", *discard], "set": ["gain=2"],
            "qualify": ["--seconds", "5", "--layout", "v4-wirefree"],
        }[name]  # fmt: skip
        return [name, str(card), *more, *asked]
    return {
        "info": ["info", str(card)],
        "check-deep": ["check", str(card), "--deep"],
        "image": ["image", str(card), str(out / "out.img")],
        "rescue": ["rescue", str(card), str(out / "out.img")],
        "video": ["video", str(card), str(out / "out.avi")],
        "video-ffv1": ["video", str(card), str(out / "out.avi"), "--codec", "FFV1"],
        "report": ["report", str(card), str(out / "out.html")],
        "archive": ["archive", str(card), str(out / "out.zarr")],
        "simulate": ["simulate", str(out / "out.img"), "--frames", "2000"],
        "demo": ["demo", str(out / "demo")],
        "view": ["view", str(card), "--no-browser"],
        "collect": ["collect", str(card), "into", str(out), *told],
        "collect-all": ["collect", str(card), "into", str(out), *told, "--deep", "--report", "--export", "nwb",
                        "--export", "tiff"],
    }[name]  # fmt: skip


NAMES = (
    "info", "check-deep", "image", "rescue", "video", "video-ffv1", "report", *(f"export-{kind}" for kind in FORMATS),
    "archive", "simulate", "demo", "view", "collect", "collect-all", "wipe", "prepare", "set", "qualify",
)  # fmt: skip


def lines_of(text: str) -> list[str]:
    """What of a terminal's text stands on it in the end, without what a key leaves there."""
    screen = Screen()
    screen.write(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n"))
    return [line for line in (line.replace("^C", "").strip() for line in screen.left()) if line]


def run(words: Sequence[str], out: Path, press: float | None, home: Path) -> Ended:
    """Run a command on a terminal of its own, and press Ctrl+C once, ``press`` seconds after it began."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
    env = {**os.environ, "TERM": "xterm", "XDG_DATA_HOME": str(home), "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    process = subprocess.Popen(
        ["setsid", "-c", sys.executable, "-m", "miniscope_xr", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env=env,
    )  # fmt: skip
    os.close(theirs)
    said, pressed, cut, used = b"", None, 0, 0.0
    while True:
        now = time.monotonic()
        if press is not None and pressed is None and now - began >= press:
            used = cpu_of(process.pid)
            os.write(ours, b"\x03")
            pressed, cut = now, len(said)
        due = 0.2 if press is None or pressed is not None else max(0.0, press - (now - began))
        if select.select([ours], [], [], min(due, 0.2))[0]:
            try:
                said += os.read(ours, 1 << 16)
                continue
            except OSError:  # nobody has the terminal any more
                break
        if now - began > LONGEST:
            process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    ended = time.monotonic() - (pressed or began)
    os.close(ours)
    text, after = said.decode(errors="replace"), said[cut:].decode(errors="replace")
    bars = re.findall(r"\r\s*([^\r\n%|]{1,60}?): +\d+%", said[:cut].decode(errors="replace"))
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) if out.exists() else []
    late = press is not None and pressed is None
    cpu = usage.ru_utime + usage.ru_stime - used
    return Ended(ended, cpu, code, late, lines_of(after if pressed else text), bars[-1] if bars else "", left)


def cpu_of(pid: int) -> float:
    """Seconds of a core that a process has used so far."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def once(name: str, card: Path, folder: Path, press: float | None) -> Ended:
    """One run in fresh folders, on a card of its own where it writes to it."""
    out, home, own = folder / "out", folder / "home", folder / "own.img"
    for path in (out, home):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    if name in WRITES:
        shutil.copyfile(card, own)
        if name == "qualify":  # of empty cards alone
            os.truncate(own, 0)
            os.truncate(own, card.stat().st_size)
    try:
        return run(words_of(name, own if name in WRITES else card, out), out, press, home)
    finally:
        own.unlink(missing_ok=True)


def short(names: Sequence[str]) -> str:
    """Files in a few words: how many of each ending."""
    ends: dict[str, int] = {}
    for name in names:
        end = "".join(Path(name).suffixes[-2:]) or "no ending"
        ends[end] = ends.get(end, 0) + 1
    return ", ".join(f"{count} {end}" if count > 1 else end for end, count in sorted(ends.items())) or "nothing"


def measured(name: str, card: Path, folder: Path, stages: int, draw: random.Random, tell: Callable[[str], None]) -> int:
    """Press the key once in each stage of a command; returns how many did not end well."""
    length = VIEWED
    if name != "view":
        alone = once(name, card, folder, None)
        length = alone.seconds
        tell(f"{name}: {length:.2f} s undisturbed, exit code {alone.code}, leaves {short(alone.left)}")
        if alone.code not in (0, 7):
            tell("\n".join(alone.said))
            return 1
    bad, longest, cpu = 0, 0.0, 0.0
    for stage in range(stages):
        at = max(BEGUN, (stage + draw.random()) / stages * length)
        end = once(name, card, folder, at)
        if end.late:
            tell(f"  {name} at {at:6.2f} s: was done before")
            continue
        bad, longest, cpu = bad + (not end.good), max(longest, end.seconds), max(cpu, end.cpu)
        mark = "  " if end.good else "! "
        tell(f"{mark}{name} at {at:6.2f} s ({end.before or '-'}): {end.seconds:.2f} s ({end.cpu:.2f} s of a core), "
             f"exit code {end.code}, {len(end.said)} lines, leaves {short(end.left)}")  # fmt: skip
        if not end.good:
            tell("".join(f"      {line}\n" for line in end.said).rstrip())
    most = f"at most {longest:.2f} s and {cpu:.2f} s of a core (load {os.getloadavg()[0]:.1f})"
    tell(f"{name}: {stages} stages, {bad} not well, {most}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--stages", type=int, default=10, help="moments for each command (default 10)")
    parser.add_argument("--layout", default="v4-wirefree", help="of the card (default v4-wirefree)")
    parser.add_argument("--frames", type=int, default=3000, help="frames on the card (default 3000)")
    parser.add_argument("--seed", type=int, help="the same moments again")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2**16)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="stopping-") as name, contextlib.suppress(KeyboardInterrupt):
        folder = Path(name)
        card = folder / "card.img"
        made_by = [sys.executable, "-m", "miniscope_xr", "simulate", str(card), "--layout", args.layout]
        subprocess.run([*made_by, "--frames", str(args.frames)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(f"{args.frames} frames of {args.layout}, {card.stat().st_size / 1e9:.2f} GB, --seed {seed}", flush=True)
        for command in args.commands or NAMES:
            bad += measured(command, card, folder, args.stages, random.Random(f"{seed}-{command}"), tell=flushed)
    return 1 if bad else 0


def flushed(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
