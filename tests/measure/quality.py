"""``quality()`` on recordings that minisim made (PyPI, 1.0.3), a forward model that is none of ours.

minisim needs zarr below 3, our exports zarr 3, so it has an environment of its own::

    uv venv .minisim && uv pip install --python .minisim/bin/python minisim construct platformdirs tqdm pyyaml
    PYTHONPATH=. .minisim/bin/python -m tests.measure.quality
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.tools.check.quality import quality


def film(seconds: float, seed: int) -> Any:
    """A recording of CA1 through a v4, with motion, and the truth about it."""
    from minisim import BrainMotion, build_spec, presets, simulate

    scope = presets.miniscope_v4()
    sensor = scope.image_sensor.model_copy(update={"n_px_height": 304, "n_px_width": 304, "pixel_pitch_um": 6.0})
    scope = scope.model_copy(update={"image_sensor": sensor})
    return simulate(build_spec(scope, presets.ca1(), duration_s=seconds, seed=seed, extra_steps=[BrainMotion()]))


def main(seconds: float) -> None:
    """Print how far off shift and light are."""
    for seed in (1, 2):
        made = film(seconds, seed)
        video = np.clip(np.asarray(made.observed), 0, 255).astype(np.uint8)
        frames = len(video)
        ds = xr.Dataset(
            {"video": (("frame", "y", "x"), video)},
            {"frame": np.arange(frames), "time": ("frame", (np.arange(frames) * 50).astype("timedelta64[ms]"))},
        )
        found = quality(ds, progress=False)
        truth = np.asarray(made.ground_truth.shifts)
        seen = np.stack([found.shift_y.values, found.shift_x.values], axis=1)
        sign = np.sign((truth * seen).sum())  # minisim counts the way of the field of view
        off = seen - sign * truth
        off -= np.median(off, axis=0)
        print(
            f"seed {seed}: {frames} frames, motion up to {np.abs(truth).max():.1f} px; shift off by at most "
            f"{np.abs(off).max():.2f} px, {np.sqrt((off**2).mean()):.2f} px rms; dead {int(found.dead.sum())}, hot "
            f"{int(found.hot.sum())}; mean {video.mean():.0f}"
        )
        print("  " + "; ".join(found.attrs["findings"]))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
