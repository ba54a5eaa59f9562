"""The formats' own libraries, from an environment without ours: tifffile, h5py, zarr, netCDF4, OpenCV, PyAV."""

from __future__ import annotations

import csv

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels


@check("tifffile", "imread(TIFF export)")
def tiff() -> str:
    import tifffile

    same_pixels(tifffile.imread(FOLDER / "a.tif"))
    with tifffile.TiffFile(FOLDER / "a.tif") as file:
        assert file.is_imagej
        assert not file.is_bigtiff
        assert abs(1 / file.imagej_metadata["finterval"] - float(TRUTH["fps"])) < 0.01
        return f"pixels exact, {len(file.pages)} pages, a classic TIFF of ImageJ with its frame interval"


@check("h5py", "/mov, /data and /1 of the HDF5 export")
def hdf5() -> str:
    import h5py

    with h5py.File(FOLDER / "a.h5") as file:
        for name in ("mov", "data", "1"):
            same_pixels(file[name][...])
        np.testing.assert_allclose(file["headers/time"][...], TRUTH["time"])
        return f"pixels and times exact, {len(file['headers'])} header fields"


@check("zarr", "open(zarr export)")
def zarr3() -> str:
    import zarr

    group = zarr.open_group(str(FOLDER / "a.zarr"), mode="r")
    same_pixels(group["video"][...])
    np.testing.assert_array_equal(group["frame_num"][...], TRUTH["frame_num"])
    return f"pixels and headers exact, zarr format {group.metadata.zarr_format}"


@check("netCDF4", "Dataset(NetCDF export)")
def netcdf() -> str:
    import netCDF4

    with netCDF4.Dataset(FOLDER / "a.nc") as file:
        same_pixels(file["video"][...])
        np.testing.assert_array_equal(file["frame_num"][...], TRUTH["frame_num"])
        return f"pixels and headers exact, {file.data_model}"


@check("av", "decode GREY and FFV1 videos")
def av() -> str:
    import av

    for name in ("grey.avi", "ffv1.avi", "matroska.mkv"):
        with av.open(str(FOLDER / name)) as file:
            stream = file.streams.video[0]
            same_pixels([frame.to_ndarray(format="gray") for frame in file.decode(stream)])
            assert abs(float(stream.average_rate) - float(TRUTH["fps"])) < 0.01
    with (FOLDER / "grey_timeStamps.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([int(r["Time Stamp (ms)"]) / 1000 for r in rows], TRUTH["time"])
    return f"pixels exact, {float(stream.average_rate):.3f} frames/s, time stamps exact"


if __name__ == "__main__":
    main()
