"""Readers of the Open Microscopy Environment's formats: bioio, and ome-zarr, by which napari opens a store."""

from __future__ import annotations

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels


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


if __name__ == "__main__":
    main()
