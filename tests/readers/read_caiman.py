"""CaImAn's own loading functions on the AVI, TIFF, HDF5 and NWB exports and on the Miniscope-DAQ folder.

CaImAn comes from conda-forge, not from PyPI; its modules ``caiman.base.movies`` and ``timeseries`` are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels, session

FILES: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "GREY AVI": ("grey.avi", {}, np.asarray),
    "FFV1 AVI": ("ffv1.avi", {}, np.asarray),
    "FFV1 Matroska": ("matroska.mkv", {}, np.asarray),
    "TIFF export": ("a.tif", {}, np.asarray),
    "HDF5 export": ("a.h5", {}, np.asarray),
    # NWB's pictures are (x, y), and CaImAn leaves them so
    "NWB export": ("a.nwb", {"var_name_hdf5": "OnePhotonSeries"}, lambda found: np.asarray(found).transpose(0, 2, 1)),
}


def exact(name: str, options: dict[str, Any], upright: Callable[[Any], Any]) -> str:
    """Load a file whole, in part, and frame after frame, as CaImAn's steps do."""
    import caiman
    from caiman.base.movies import get_file_size, load_iter

    path = str(FOLDER / name)
    same_pixels(upright(caiman.load(path, **options)))
    part = upright(caiman.load(path, subindices=slice(100, 200), **options))
    np.testing.assert_array_equal(part, TRUTH["video"][100:200])
    same_pixels(upright(list(load_iter(path, **options))))
    size, frames = get_file_size(path, **options)
    assert (frames, *sorted(size)) == TRUTH["video"].shape, (size, frames)
    return "pixels exact, whole, 100 frames and frame after frame"


for title, (file, given, turned) in FILES.items():
    check("caiman", f"load, load_iter, get_file_size ({title})")(lambda f=file, o=given, t=turned: exact(f, o, t))


@check("caiman", "load_movie_chain(Miniscope-DAQ folder)")
def folder() -> str:
    import caiman

    files = sorted((session() / "Miniscope").glob("*.avi"), key=lambda path: int(path.stem))
    same_pixels(caiman.load_movie_chain([str(path) for path in files]))
    return f"pixels exact, {len(files)} files"


if __name__ == "__main__":
    main()
