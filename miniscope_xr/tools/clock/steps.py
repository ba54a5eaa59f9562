"""Sudden changes in a behaviour video: one pass over it, with little memory.

Of every frame only how bright the brightest point of each block is, against what surrounds it, and of that only the
sudden changes. Where the room's light changes, all blocks do: those changes are of no light in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.stream.camera import opened_film, parts_of
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import progress_bar

Region = tuple[int, int, int, int]
"""x, y, width and height in px."""

BLOCK = 16  # px of a side
STRETCH = 5  # frames
LEAST = 14
"""Grey values by which a light stands out when it is on."""
HALVES = 3
"""Frames over which a light may come or go: compression smears it."""
_AROUND = 9  # px of a side of what a point is compared with
_ROOM = 0.5  # of a change: where the whole picture changes by as much, it is the room's light, or the exposure
_SOME = 7  # of so many rows and columns one tells how bright the whole picture is


def frames_of(path: Path) -> Iterator[tuple[Array, float]]:
    """Yield the frames of a video, or of the numbered videos of a folder in their order: of colours the brightest.

    A blue LED is hardly seen in grey, to which blue adds a tenth. With each comes when its file shows it, in s.
    """
    cv2 = need("cv2", "video", "reading a behaviour video")
    begins, shown = 0.0, 0.0
    for part in parts_of(path):
        with opened_film(part) as film:
            rate = float(film.get(cv2.CAP_PROP_FPS))
            while True:
                there, image = film.read()
                if not there:
                    break
                shown = begins + float(film.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                bright = image if image.ndim == 2 else cv2.max(cv2.max(image[..., 0], image[..., 1]), image[..., 2])
                yield bright, shown
            begins = shown + (1 / rate if rate > 0 else 0.0)


@dataclass
class Steps:
    """Sudden changes of the blocks of a video: which frame, which block, how many grey values."""

    frame: Array
    block: Array
    size: Array
    count: int
    shape: tuple[int, int]
    """Blocks along y and x."""
    levels: Array
    """How far every block stood out on the whole in each stretch of :data:`STRETCH` frames (stretch, block)."""
    shown: Array
    """When the video's file shows each frame, in s."""
    edge: int = BLOCK


def steps_of(path: Path, region: Region | None = None, progress: bool = True) -> Steps:
    """Look at a video once and keep the sudden changes of its blocks.

    Parameters
    ----------
    path
        A video, or a camera's folder.
    region
        Only this part of the picture, as one block; None looks everywhere.
    progress
        Show a progress bar (on a terminal).
    """
    past: list[Array] = []
    glow: list[float] = []
    shown: list[float] = []
    stretch: list[Array] = []
    levels: list[Array] = []
    found: list[tuple[Array, Array, Array]] = []
    count, shape = 0, (1, 1)
    with progress_bar(0, f"light in {path.name}", show=progress) as bar:
        for image, second in frames_of(path):
            shown.append(second)
            points = _points(image, region)
            shape = points.shape
            flat = points.reshape(-1).astype(np.int16)
            past, stretch = [*past[-HALVES:], flat], [*stretch, flat]
            glow = [*glow[-HALVES:], float(np.median(image[::_SOME, ::_SOME]))]
            if len(stretch) == STRETCH:
                levels.append(np.clip(np.median(stretch, axis=0), 0, 255).astype(np.uint8))
                stretch = []
            if len(past) > HALVES:
                found.append(_changes(past, glow[-1] - glow[0], count - 1))
            count += 1
            bar.update(1)
    if count < 2 * HALVES:
        raise ClockError(f"{path}: {count} frames are too few to find a light in")
    frames, blocks, sizes = (np.concatenate(each) for each in zip(*found, strict=True))
    whole = np.array(levels, np.uint8).reshape(-1, shape[0] * shape[1])
    return Steps(frames, blocks, sizes, count, shape, whole, np.array(shown))


def _points(image: Array, region: Region | None) -> Array:
    """How far the brightest point of each block stands out of what surrounds it."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    if region is not None:
        x, y, width, height = region
        if x < 0 or y < 0 or width < 1 or height < 1 or y + height > image.shape[0] or x + width > image.shape[1]:
            raise OptionError(f"region={region}: the picture is {image.shape[1]} px wide and {image.shape[0]} px high")
        return np.array([[image[y : y + height, x : x + width].mean()]])
    smooth = cv2.blur(image, (3, 3))
    out = cv2.subtract(smooth, cv2.blur(image, (_AROUND * 2 + 1, _AROUND * 2 + 1)))
    height, width = (size // BLOCK * BLOCK for size in image.shape)
    if not height or not width:
        return np.array([[float(out.max())]])
    points: Array = out[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).max(axis=(1, 3))
    return points


def _changes(past: list[Array], room: float, frame: int) -> tuple[Array, Array, Array]:
    """Blocks that changed between the frames ``frame`` - 1 and ``frame``, and did not waver on either side.

    ``past`` is the frames ``frame`` - 2 to ``frame`` + 1: a change may be half done in one frame. ``room`` is by how
    much the picture as a whole changed meanwhile.
    """
    before, last, now, after = past
    whole = after - before
    step = now - last
    sudden = (np.abs(step) * 2 >= np.abs(whole)) & (np.abs(whole) >= LEAST / 2) & (np.sign(step) == np.sign(whole))
    blocks = np.flatnonzero(sudden & (_ROOM * np.abs(whole) > abs(room)))
    return np.full(len(blocks), frame, np.int64), blocks, whole[blocks]
