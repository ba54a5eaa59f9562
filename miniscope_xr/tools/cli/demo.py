"""``miniscope-xr demo DIR``: a card, its dataset, a video and a picture, without a microscope."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import MissingDependencyError, OutputExistsError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.cli.read import filmed
from miniscope_xr.tools.simulate import Stall, calcium_scene, simulate
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import kind_of, output_errors, whole_file
from miniscope_xr.tools.video.write import dataset_to_video


def make_card(path: Path, frames: int = 400) -> None:
    """Simulate a v4 card of a mouse's session, with two card stalls that lose frames."""
    events = [Stall(6_000, 420), Stall(13_000, 700)]
    with filmed(calcium_scene(304, 304, 3), frames) as camera:
        card = simulate(
            "v4-wirefree", frames=frames, camera=camera, settings={"gain": 2, "led": 12, "ewl": 120}, events=events
        )
    with whole_file(path, force=True) as part:
        card.write(part)


def draw(ds: Any, path: Path) -> None:
    """Draw projections, a trace and the gaps of a recording as one picture."""
    Figure = need("matplotlib.figure", "plot", "a picture").Figure
    mpl = need("matplotlib", "plot")

    video = ds.video.values
    whole = ds.complete.values
    mean, std = video[whole].mean(0), video[whole].std(0)
    seconds = ds.time.values.astype(float) / 1000
    y, x = np.unravel_index(np.argmax(_smooth(std)), std.shape)
    trace = video[:, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5].mean((1, 2))
    rest = np.percentile(trace[whole], 20)  # F0: the cell at rest
    change = np.where(whole, (trace - rest) / rest, np.nan)
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 8), layout="constrained")
        grid = figure.add_gridspec(3, 2, height_ratios=[3, 1, 1])
        for column, (image, title) in enumerate(
            ((mean, "mean of all whole frames"), (std, "standard deviation: active cells"))
        ):
            axes = figure.add_subplot(grid[0, column])
            shown = axes.imshow(image, cmap="gray" if not column else "magma")
            axes.plot(x, y, "o", mfc="none", mec="tab:cyan", ms=16)
            axes.set(title=title, xlabel="x (px)", ylabel="y (px)")
            figure.colorbar(shown, ax=axes, label="grey value")
        axes = figure.add_subplot(grid[1, :])
        axes.plot(seconds, change, lw=1, color="tab:green")
        axes.set(ylabel="dF/F", title="the circled cell (F0: 20th percentile)", xlim=(0, seconds[-1]))
        axes = figure.add_subplot(grid[2, :], sharex=axes)
        axes.step(seconds, ds.dropped_buffer_count.values, color="tab:red", where="post")
        axes.set(xlabel="time (s)", ylabel="buffers so far", title="buffers the card was too slow for, cumulative")
        figure.suptitle("a simulated recording: no animal, no microscope")
        with whole_file(path, force=True) as part:
            figure.savefig(part, dpi=110)


def _smooth(image: Array, n: int = 9) -> Array:
    """Mean over n x n pixels, edges left out."""
    total = np.cumsum(np.cumsum(image, 0), 1)
    inner = total[n:, n:] - total[:-n, n:] - total[n:, :-n] + total[:-n, :-n]
    out = np.zeros_like(image)
    out[n // 2 : n // 2 + inner.shape[0], n // 2 : n // 2 + inner.shape[1]] = inner / n**2
    return out


def run(where: str) -> int:
    """Run the demo."""
    folder = Path(where)
    card, video, picture = folder / "card.img", folder / "card.avi", folder / "card.png"
    for path in (card, video, picture):
        if kind_of(path):  # it may be somebody's recording
            raise OutputExistsError(
                errno.EEXIST, "exists already and is kept; give the demo a folder of its own", str(path)
            )
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"simulating a card (what it shows is made up): {card}")
    make_card(card)
    with xr.open_dataset(card, engine="miniscope") as ds:
        print(f'\nxr.open_dataset("{card}", engine="miniscope"):\n{ds}\n')
        print(check(card, deep=True, progress=True))
        made = [
            text
            for text, write in (
                (f"{video} (a lossless grey video)", lambda: dataset_to_video(ds, video, force=True)),
                (f"{picture}", lambda: draw(ds, picture)),
            )
            if _written(write)
        ]
    print(f"\nlook at {' and '.join(made or [str(card)])}")
    return 0


def _written(write: Callable[[], object]) -> bool:
    """Whether an output was written; without the library it needs, say which and go on."""
    try:
        write()
    except MissingDependencyError as error:
        print(f"left out: {error}")
        return False
    return True


def register(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object."""
    parser = subparsers.add_parser("demo", help="simulate a card, read it, write a video and a picture")
    parser.add_argument("dir", metavar="DIR", help="folder for the demo's files")
    parser.set_defaults(func=lambda args: run(args.dir))
