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

MOTIONS: dict[str, dict[str, float]] = {
    "as in a mouse": {},
    "four times as large": {"motion_amplitude_um": 40, "max_shift_um": 50},
}


def film(seconds: float, seed: int, motion: dict[str, float], light: float = 1.0) -> Any:
    """A recording of CA1 through a v4, with motion, and the truth about it."""
    from minisim import BrainMotion, build_spec, presets, simulate

    scope = presets.miniscope_v4()
    sensor = scope.image_sensor.model_copy(update={"n_px_height": 304, "n_px_width": 304, "pixel_pitch_um": 6.0})
    scope = scope.model_copy(
        update={"image_sensor": sensor, "photons_per_unit": scope.photons_per_unit * light},
    )
    steps = [BrainMotion(**motion)]
    return simulate(build_spec(scope, presets.ca1(), duration_s=seconds, seed=seed, extra_steps=steps))


def still(video: Any, truth: Any, seed: int) -> Any:
    """The same tissue with the same motion, in which nothing flashes: its median, moved, with noise of its own."""
    from scipy.ndimage import shift

    back = [shift(image.astype(np.float32), -by, mode="reflect") for image, by in zip(video, truth, strict=True)]
    median = np.median(back, axis=0)
    light = np.stack([shift(median, by, mode="reflect") for by in truth])
    noise = np.random.default_rng(seed).normal(0, 0.45, light.shape) * np.sqrt(np.maximum(light, 0))
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)


def measured(video: Any, truth: Any) -> tuple[str, xr.Dataset]:
    """How far off the shift is, and all that was found."""
    frames = len(video)
    ds = xr.Dataset(
        {"video": (("frame", "y", "x"), video)},
        {"frame": np.arange(frames), "time": ("frame", (np.arange(frames) * 50).astype("timedelta64[ms]"))},
    )
    found = quality(ds, progress=False)
    off = np.stack([found.shift_y.values, found.shift_x.values], axis=1) - truth
    off -= np.median(off, axis=0)  # the reference has a place of its own
    size = np.abs(off)
    said = (
        f"{frames} frames, motion up to {np.abs(truth).max():.1f} px, mean {video.mean():.0f}; shift off by "
        f"{np.sqrt((off**2).mean()):.2f} px rms, {np.quantile(size, 0.95):.2f} px in 95 %, at most {size.max():.2f}; "
        f"dead {int(found.dead.sum())}, hot {int(found.hot.sum())}"
    )
    return said, found


def main(seconds: float) -> None:
    """Print how far off shifts are, and whether a pixel was taken for a defect."""
    kinds = [(name, motion, 1.0) for name, motion in MOTIONS.items()]
    for seed in (1, 2, 3):
        for name, motion, light in [*kinds, ("as in a mouse, a third of the light", {}, 1 / 3)]:
            made = film(seconds, seed, motion, light)
            video = np.clip(np.asarray(made.observed), 0, 255).astype(np.uint8)
            truth = np.asarray(made.ground_truth.shifts)
            print(f"seed {seed}, motion {name}: {measured(video, truth)[0]}", flush=True)
            print(
                f"seed {seed}, the same, but nothing flashes: {measured(still(video, truth, seed), truth)[0]}",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6)
