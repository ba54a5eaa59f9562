"""One card in one process; what several of them do, and what is killed, is in ``test_scale.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from miniscope_xr.errors import OutputExistsError
from miniscope_xr.tools.cli import main

zarr = pytest.importorskip("zarr", reason="needs zarr")
pytest.importorskip("dask.array", reason="needs dask")


def test_a_card_goes_into_the_store_once(
    make_card: Any, open_card: Callable[..., xr.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, card = make_card(frames=12, width=64, height=1000)
    store = tmp_path / "lab.zarr"
    words = ["archive", str(path), str(store), "--workers", "1"]
    assert main(words) == 0
    assert "12 frames written" in capsys.readouterr().out
    assert main(words) == 0
    assert "all of it is there already" in capsys.readouterr().out
    (group,) = zarr.open_group(store, mode="r").group_keys()
    with xr.open_zarr(store, group=f"{group}/recording_0", chunks=None) as back:
        assert (back["video"].values == card.expected()[1]).all()
        xr.testing.assert_equal(back.drop_vars("video"), open_card(path).drop_vars("video").drop_attrs(deep=False))


def test_what_is_archived_in_another_way_is_not_mixed(make_card: Any, tmp_path: Path) -> None:
    from miniscope_xr.tools.export.archive import archive

    path, _ = make_card(frames=12, width=64, height=1000)
    archive([path], tmp_path / "lab.zarr", 1, progress=False)
    with pytest.raises(OutputExistsError, match="archived in another way"):
        archive([path], tmp_path / "lab.zarr", 1, progress=False, gaps="fill")
