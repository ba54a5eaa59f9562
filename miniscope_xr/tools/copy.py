"""Copy a card to an image that ends with its recordings."""

from __future__ import annotations

import os
from pathlib import Path

from miniscope_xr.card import RecordingStore
from miniscope_xr.errors import OptionError, OutputError
from miniscope_xr.source.local import Device
from miniscope_xr.tools.stream.outputs import progress_bar, refuse_source, whole_file

_STEP = 32 << 20  # bytes


def end_byte(store: RecordingStore, frames: int | None = None) -> int:
    """Byte behind the last recording of the card, or behind the first ``frames`` frames of this one."""
    source = store.card.source()
    size = store.card.index.layout.sectors.size
    if frames is None:
        end = store.card.index.recordings[-1].end_sector * size
    else:
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise OptionError(f"frame={frames!r}: expected the number of frames to copy (1 or more)")
        end = store.frames.position(min(frames, store.frames.count))
    return min(end, source.size)


def trim(
    store: RecordingStore,
    path: str | os.PathLike[str],
    frames: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Copy the card up to the end of its recordings (or of ``frames`` frames) to an image.

    Raises
    ------
    OutputExistsError
        ``path`` exists and ``force`` is not given.
    """
    source = store.card.source()
    end = end_byte(store, frames)
    refuse_source(Path(path), store.card.path)
    with (
        whole_file(path, force) as part,
        part.open("wb", buffering=0) as out,
        progress_bar(end, "image", "B", progress) as bar,
    ):
        done = 0
        while done < end:
            step = min(_STEP, end - done)
            got = source.send(out.fileno(), done, step) if isinstance(source, Device) else None
            if got is None:
                got = out.write(source.read(done, min(step, 8 << 20))) or 0  # a raw file may take less than it is given
            if not got:
                raise OutputError(None, f"the card ended at byte {done} of {end}", store.card.path)
            done += got
            bar.update(got)
