"""Output files that are whole or not there, and progress bars that show on a terminal only.

An output is a new file or a regular one, whatever is forced: a device node, a pipe, a socket or a link of that name is
somebody else's, and putting a plain file in its place would say "done" and hurt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from miniscope_xr.errors import MiniscopeError, OutputError, OutputExistsError
from miniscope_xr.source import windows
from miniscope_xr.source.replace import is_held, new_name, remove, replace
from miniscope_xr.source.same_disk import lies_on

_MOST = 220  # letters of a path on Windows: names of files beside an output are up to 40 longer
_BLOCK = 4096  # bytes; less than this is free on a full disk
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_ADDRESS = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]+:{re.escape(os.sep)}")  # "s3://bucket/film.avi", as a Path writes it


@contextlib.contextmanager
def output_errors(path: Path, then: str = "nothing was kept") -> Iterator[None]:
    """Turn what the system says while an output is written into an OutputError, which says what is left or to do."""
    try:
        yield
    except MiniscopeError:
        raise
    except OSError as error:
        code = error.errno or (errno.ENOSPC if is_full(path) else errno.EIO)  # numpy: "92416 requested and 512 written"
        text = error.strerror or (os.strerror(code) if code == errno.ENOSPC else str(error))
        text += " (is it open in another program, or write-protected?)" if is_held(error) else ""
        text += windows.hint_of_length(path, error, _MOST) if sys.platform == "win32" else ""
        raise OutputError(code, f"cannot be written: {text}; {then}", str(path)) from error


def is_full(path: Path) -> bool:
    """Whether the disk of ``path`` has no room for a block more."""
    try:
        return shutil.disk_usage(path.absolute().parent).free < _BLOCK
    except OSError:
        return False


def kind_of(path: Path) -> str:
    """Say what has this name, a link itself and not what it leads to: ``""`` for nothing, ``"a file"``, ``"a folder"``.

    Anything else is in words for a message: ``"a pipe"``, ``"a link to /data/film.avi"``.

    Raises
    ------
    OutputError
        The system does not let us look, or nothing can have such a name.
    """
    if sys.platform == "win32" and (why := windows.unusable(str(path))):
        raise OutputError(errno.EINVAL, why, str(path))
    with output_errors(path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except ValueError as error:  # a null byte, a character this system cannot put into a name
            raise OutputError(errno.EINVAL, f"no file can have this name: {error}", str(path)) from error
        if stat.S_ISREG(mode):
            return "a file"
        if stat.S_ISLNK(mode):
            return f"a link to {os.readlink(path)}"  # noqa: PTH115
        return next((words for is_kind, words in _KINDS if is_kind(mode)), "no regular file")


def headers_beside(out: Path) -> Path:
    """The table of headers beside an output that has no place for them, such as a TIFF."""
    return out.with_name(f"{out.stem}_headers.csv")


def refuse_special(path: Path) -> None:
    """Raise OutputExistsError where something that is no regular file has this name; nothing forces it."""
    if _ADDRESS.match(str(path)):
        raise OutputExistsError(
            errno.EINVAL, "is an address; an output is a file on this computer: write it, then upload it", str(path)
        )
    kind = kind_of(path) or ("" if path.name else "a drive or a folder of another computer")
    if kind not in ("", "a file"):
        raise OutputExistsError(
            errno.EEXIST, f"is {kind}; an output is a new file or a regular one: give another name", str(path)
        )


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputExistsError where ``path`` exists and ``force`` is not given, or is no regular file."""
    refuse_special(path)
    if kind_of(path) and not force:
        raise OutputExistsError(
            errno.EEXIST,
            "exists already and is kept; give another name, or force=True (--force) to overwrite",
            str(path),
        )


def refuse_source(path: Path, *sources: str | os.PathLike[str] | None) -> None:
    """Raise where the output is the card itself (or one of them), which ``force`` would destroy, or lies on it.

    Raises
    ------
    OutputExistsError
        It is the card.
    OutputError
        It would be a file on the card, which somebody formatted: it would be written over what is read.
    """
    known = [source for source in sources if source is not None]
    same = False
    for source in known:
        with contextlib.suppress(OSError, ValueError):
            same = same or path.samefile(source)
    if same:
        raise OutputExistsError(errno.EEXIST, "is the card itself; give another name", str(path))
    if any(lies_on(path, source) for source in known):
        raise OutputError(
            errno.EINVAL, "lies on the card itself, where it would be written over what is read; give a folder of this "
            "computer", str(path),
        )  # fmt: skip


def refuse_too_large(path: Path, size: int) -> None:
    """Raise OutputError where the disk of ``path`` has no room for ``size`` bytes: better now than hours later."""
    with output_errors(path):
        there = next((folder for folder in path.absolute().parents if folder.exists()), None)
        if there is None:
            raise FileNotFoundError(errno.ENOENT, f"there is no {path.absolute().anchor} on this computer")
        free = shutil.disk_usage(there).free
    if free < size:
        raise OutputError(
            errno.ENOSPC,
            f"takes {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on this disk; nothing was written",
            str(path),
        )


@contextlib.contextmanager
def parents_made(path: Path) -> Iterator[None]:
    """Make the folders that ``path`` is to lie in; where the block fails, those that were not there are gone again."""
    made = []
    with output_errors(path):
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
    try:
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``; it takes the final name only when the block succeeds.

    Whole or not there holds for errors, interrupts and a program that is killed. It is not promised over a power cut:
    the system puts the file on the disk when it likes.

    Raises
    ------
    OutputExistsError
        Something is there and ``force`` is not given; or what is there is no regular file.
    OutputError
        The file cannot be written here.
    """
    final = Path(path)
    refuse_existing(final, force)
    with parents_made(final), _part_of(final) as part, output_errors(final):
        yield part
        refuse_existing(final, force)  # it may have come meanwhile
        replace(part, final)


@contextlib.contextmanager
def _part_of(final: Path) -> Iterator[Path]:
    """A temporary name beside ``final``, of which nothing is left."""
    with output_errors(final):
        # the suffix stays last: writers choose the format by it
        tried, part = (new_name(final.parent, f".{final.stem[:40]}-", f".part{final.suffix}") for _ in range(2))
        os.close(os.open(tried, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        remove(tried)
    # The writer makes it anew, with the permissions of a new file; and a file that was cut to nothing, as writers do
    # with one that is there, is put on the disk by ext4 before it is closed: half of the time of a copy. Its name is
    # another one than was tried, as Windows may keep that until whoever looks at the file lets it go.
    try:
        yield part
    finally:
        with contextlib.suppress(PermissionError):  # Windows, where a writer that failed left it open: its error counts
            remove(part)


Watcher = Callable[[str, int, int], None]
"""Told what is at work, how much of it is done, and of how much."""
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """Within the block progress is told to ``by`` instead of a terminal; an error that it raises ends the work."""
    before = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(before)


def progress_bar(total: int, what: str, unit: str = "frame", show: bool = True) -> Any:
    """A tqdm bar on stderr; disabled where stderr is no terminal."""
    from tqdm import tqdm

    watcher = _watcher.get()
    if watcher is not None:
        return _told(watcher, total, what)
    scale = unit == "B"
    return tqdm(
        total=total, desc=what, unit=unit, unit_scale=scale, leave=False,
        disable=not (show and sys.stderr is not None and sys.stderr.isatty()),
    )  # fmt: skip


def begin_step(what: str) -> None:
    """Tell who watches (:func:`watched`) that something short begins which has no bar: they may end the work here."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(what, 0, 1)


def _told(by: Watcher, total: int, what: str) -> Any:
    """A bar that nobody sees: ``by`` is told of it."""
    from tqdm import tqdm

    class Told(tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            by(what, int(self.n), total)

    by(what, 0, total)
    return Told(total=total, disable=True)
