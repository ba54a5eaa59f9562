"""minian's own loading functions on the Miniscope-DAQ folder and on the minian export."""

from __future__ import annotations

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels, session


@check("minian", "load_videos(Miniscope-DAQ folder)")
def load() -> str:
    from minian.utilities import load_videos

    found = load_videos(str(session() / "Miniscope"), pattern=r"[0-9]+\.avi$", dtype=np.uint8)
    assert found.dims == ("frame", "height", "width"), found.dims
    same_pixels(found.compute().values)
    return f"pixels exact, {found.dtype}"


@check("minian", "load_videos(each camera of the folder with both)")
def load_both() -> str:
    from minian.utilities import load_videos

    same_pixels(
        load_videos(str(session("both") / "Miniscope"), pattern=r"[0-9]+\.avi$", dtype=np.uint8).compute().values
    )
    film = load_videos(str(session("both") / "BehavCam"), pattern=r"[0-9]+\.avi$", dtype=np.uint8)
    rows = (session("both") / "BehavCam" / "timeStamps.csv").read_text().splitlines()
    assert film.shape == (len(rows) - 1, 120, 160), film.shape
    return f"pixels exact; {len(film)} frames of the behaviour video, a time stamp each"


@check("minian", "open_minian(minian export)")
def opened() -> str:
    from minian.utilities import open_minian

    found = open_minian(str(FOLDER / "minian"))
    varr = found["varr"]
    assert varr.dims == ("frame", "height", "width"), varr.dims
    same_pixels(varr.compute().values)
    np.testing.assert_array_equal(found["frame_num"].values, TRUTH["frame_num"])
    return f"pixels and headers exact, {varr.dtype}, dask chunks of {varr.data.chunksize[0]} frames"


@check("minian", "save_minian after open_minian")
def saved() -> str:
    import shutil

    from minian.utilities import open_minian, save_minian

    varr = open_minian(str(FOLDER / "minian"))["varr"]
    again = FOLDER / "minian_again"
    shutil.rmtree(again, ignore_errors=True)
    same_pixels(save_minian(varr.rename("again"), dpath=str(again)).compute().values)
    return "pixels exact after a round trip"


if __name__ == "__main__":
    main()
