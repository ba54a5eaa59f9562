"""CaImAn's own loading function on the HDF5, TIFF and AVI exports (CaImAn comes from conda-forge, not from PyPI)."""

from __future__ import annotations

import numpy as np
from common import FOLDER, check, main, same_pixels


@check("caiman", "load(HDF5 export)")
def hdf5() -> str:
    import caiman

    same_pixels(np.asarray(caiman.load(str(FOLDER / "a.h5"))))
    return "pixels exact"


@check("caiman", "load(TIFF export)")
def tiff() -> str:
    import caiman

    same_pixels(np.asarray(caiman.load(str(FOLDER / "a.tif"))))
    return "pixels exact"


@check("caiman", "load(GREY AVI)")
def movie() -> str:
    import caiman

    same_pixels(np.asarray(caiman.load(str(FOLDER / "grey.avi"))))
    return "pixels exact"


if __name__ == "__main__":
    main()
