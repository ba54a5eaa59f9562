"""suite2p's own conversion functions, the first step of its pipeline, on the TIFF, HDF5 and AVI exports.

torch and cellpose (gigabytes) have no part in reading files: stand-ins take their place.
"""

from __future__ import annotations

import shutil
import sys
from unittest.mock import MagicMock

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels

for absent in ("torch", "torch.fft", "torch.nn", "torch.nn.functional", "torch.utils", "torch.cuda", "cellpose",
               "cellpose.models", "cellpose.metrics", "cellpose.core", "cellpose.utils", "cellpose.transforms",
               "cellpose.plot", "cellpose.io", "cellpose.dynamics"):  # fmt: skip
    sys.modules.setdefault(absent, MagicMock(__version__="0", Tensor=type("Tensor", (), {})))


def converted(kind: str, source: str) -> str:
    """Convert a file into suite2p's binary as ``run_s2p`` does, and compare it."""
    from suite2p.io.utils import get_file_list, init_dbs
    from suite2p.parameters import default_db, default_settings
    from suite2p.run_s2p import files_to_binary

    place = FOLDER / f"suite2p_{kind}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    db = {**default_db(), "data_path": [str(FOLDER)], "file_list": [source], "input_format": kind,
          "save_path0": str(place), "save_folder": "suite2p", "fast_disk": str(place), "keep_movie_raw": False,
          }  # fmt: skip
    if kind == "h5":
        db["h5py_key"] = "data"
    db["file_list"], db["first_files"] = get_file_list(db)
    dbs = init_dbs(db)
    with open(dbs[0]["reg_file"], "wb") as file:
        files_to_binary[kind](dbs, default_settings(), [file], None)
    shape = dbs[0]["nframes"], dbs[0]["Ly"], dbs[0]["Lx"]
    same_pixels(np.fromfile(dbs[0]["reg_file"], np.int16).reshape(shape))
    mean = np.asarray(dbs[0]["meanImg"])
    np.testing.assert_allclose(mean, TRUTH["video"].mean(axis=0), rtol=1e-4)
    return f"pixels exact in suite2p's binary, {shape[0]} frames"


@check("suite2p", "TIFF export, tiff_to_binary")
def tiff() -> str:
    return converted("tif", "a.tif")


@check("suite2p", "HDF5 export, h5py_to_binary")
def hdf5() -> str:
    return converted("h5", "a.h5")


@check("suite2p", "GREY AVI, movie_to_binary")
def movie() -> str:
    return converted("movie", "grey.avi")


if __name__ == "__main__":
    main()
