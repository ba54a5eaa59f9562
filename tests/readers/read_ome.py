"""Readers of the Open Microscopy Environment's formats: bioio, ome-zarr (which napari uses) and Bio-Formats."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
from common import FOLDER, TRUTH, NotHereError, check, main, same_pixels

JAR = Path(os.environ.get("BIOFORMATS_JAR", "bioformats_package.jar"))


def opened(name: str) -> str:
    """Read an image as bioio gives it: (t, c, z, y, x), with its time from frame to frame in s."""
    from bioio import BioImage

    image = BioImage(FOLDER / name)
    assert image.dims.order == "TCZYX"
    assert image.shape[1:3] == (1, 1)
    same_pixels(image.get_image_data("TYX"))
    step = image.time_interval
    if step is None:  # its TIFF reader gives none; it is in the metadata it has read
        pixels = image.ome_metadata.images[0].pixels
        assert pixels.time_increment_unit.value == "s"
        step = pixels.time_increment
    seconds = step.total_seconds() if hasattr(step, "total_seconds") else float(step)
    np.testing.assert_allclose(seconds, 1 / TRUTH["fps"], rtol=1e-4)
    return f"pixels exact, {image.shape[0]} times of {seconds * 1000:.3f} ms"


@check("bioio-ome-tiff", "BioImage(OME-TIFF export)")
def tiff() -> str:
    return opened("a.ome.tif")


@check("bioio-ome-zarr", "BioImage(OME-Zarr export)")
def zarr() -> str:
    return opened("a.ome.zarr")


@check("ome-zarr", "Reader(OME-Zarr export)")
def nodes() -> str:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = list(Reader(parse_url(FOLDER / "a.ome.zarr"))())[:1]
    same_pixels(node.data[0])
    axes = node.metadata["axes"]
    assert [axis["name"] for axis in axes] == ["t", "y", "x"]
    (scale,) = [t["scale"] for t in node.metadata["coordinateTransformations"][0] if t["type"] == "scale"]
    np.testing.assert_allclose(scale, [1 / TRUTH["fps"], 1, 1], rtol=1e-6)
    return "pixels exact, axes t (s), y, x"


def bio_formats() -> str:
    """Version of Bio-Formats, as its file says it."""
    if not JAR.exists():
        return "?"
    with zipfile.ZipFile(JAR) as jar:
        found = re.search(r"Implementation-Version: (\S+)", jar.read("META-INF/MANIFEST.MF").decode())
    return found[1] if found else "?"


def java(tool: str, *words: str | Path) -> str:
    """Run one of the programs in Bio-Formats' file; what it printed."""
    if not JAR.exists() or shutil.which("java") is None:
        raise NotHereError("java is not on the PATH, or BIOFORMATS_JAR names no bioformats_package.jar")
    words = ("java", "-Xmx3g", "-cp", JAR, f"loci.formats.tools.{tool}", "-no-upgrade", *words)
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


@check("Bio-Formats", "the OME-TIFF and the TIFF export, converted by its own converter", bio_formats())
def converted() -> str:
    from tifffile import imread

    back = FOLDER / "back.tif"
    for name in ("a.ome.tif", "a.tif"):
        back.unlink(missing_ok=True)
        java("ImageConverter", FOLDER / name, back)
        same_pixels(imread(back))
    said = java("ImageInfo", "-nopix", "-omexml", FOLDER / "a.ome.tif")
    size, step = re.search(r'SizeT="(\d+)"', said), re.search(r'TimeIncrement="([\d.]+)" TimeIncrementUnit="s"', said)
    assert size
    assert int(size[1]) == len(TRUTH["video"])
    assert step
    np.testing.assert_allclose(float(step[1]), 1 / TRUTH["fps"], rtol=1e-4)
    return f"pixels exact, {size[1]} times of {1000 * float(step[1]):.3f} ms"


if __name__ == "__main__":
    main()
