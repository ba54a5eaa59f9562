"""The output formats: which module writes each, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass

from miniscope_xr.tools.export.options import ABOUT


@dataclass(frozen=True)
class Format:
    """One output format."""

    module: str
    """Its writer."""
    suffixes: tuple[str, ...]
    """Endings of its files."""
    folder: bool
    """Whether it is a folder."""
    text: str
    """What it is for."""
    needs: tuple[str, ...]
    """Modules of optional libraries that its writer uses."""
    extra: str
    """The extra of this package that brings them."""
    carries: frozenset[str] = frozenset()
    """Options that it can hold besides which frames; others are refused."""
    table: bool = False
    """Whether a table of header values goes beside it."""
    batch_bytes: int = 4_000_000
    """Size of a batch of frames, which is a chunk of the file where it has chunks. About three are in memory, and what
    the library makes of one: copies, and buffers kept by each thread that compresses."""
    plain: bool = False
    """Whether pixels take a byte each."""


FORMATS = {
    "miniscope-daq": Format(
        "daq_folder", (), True, "folder of AVIs as Miniscope-DAQ writes it (FFV1 or GREY)", ("cv2",), "video",
        frozenset({"fps", "start", "codec", "camera", "animal", "researcher", "experiment"}), batch_bytes=1_500_000,
    ),
    "minian": Format(
        "minian", (), True, "folder of zarr arrays (format 2) that minian's open_minian reads", ("zarr",), "zarr",
        frozenset({"start"}), batch_bytes=2_000_000,
    ),
    "zarr": Format(
        "zarr_store", (".zarr",), True, "one zarr store (format 3), an OME-Zarr where its name ends in .ome.zarr",
        ("zarr",), "zarr",
    ),
    "netcdf": Format(
        "netcdf", (".nc", ".nc4", ".netcdf"), False, "NetCDF-4, for xarray and others", ("h5netcdf",), "netcdf",
        frozenset({"start", "compression"}), plain=True,
    ),
    "hdf5": Format(
        "hdf5", (".h5", ".hdf5"), False, "HDF5 with /mov, for CaImAn, suite2p, EXTRACT, MATLAB", ("h5py",), "hdf5",
        frozenset({"fps", "compression"}), plain=True,
    ),
    "tiff": Format(
        "tiff", (".tif", ".tiff"), False, "TIFF stack for ImageJ, Fiji, suite2p, CaImAn; BigTIFF from 4 GB on, "
        "an OME-TIFF where its name ends in .ome.tif", ("tifffile",), "tiff",
        frozenset({"fps", "start", "compression"}), table=True, plain=True,
    ),
    "nwb": Format(
        "nwb", (".nwb",), False, "Neurodata Without Borders, OnePhotonSeries", ("pynwb", "ndx_miniscope"), "nwb",
        frozenset({"fps", "start", "camera", *ABOUT}),
    ),
}  # fmt: skip
