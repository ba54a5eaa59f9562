"""Whatever is given to the reader: our own clear error, at once, and nothing of another engine's taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import MiniscopeError, SDCard, check
from miniscope_xr.backend import MiniscopeBackendEntrypoint
from miniscope_xr.errors import (
    AmbiguousLayoutError,
    BlankCardError,
    CardNotFoundError,
    CardPermissionError,
    NotACardError,
    UnsupportedCardError,
)
from miniscope_xr.tools.simulate import blank, simulate
from tests.conftest import real_names


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("frame,time\n0,50\n" * 100_000)


def zeros(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


def ones(path: Path) -> None:
    path.write_bytes(b"\xff" * (2 << 20))


def random(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(2 << 20))


def netcdf(path: Path) -> None:
    xr.Dataset({"a": ("x", np.arange(300_000.0))}).to_netcdf(path, engine="h5netcdf")


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs on this system")
    os.mkfifo(path)


def short(path: Path) -> None:
    path.write_bytes(simulate(frames=2).data[: 1000 * 512])


def gone(path: Path) -> None:
    """Make nothing."""


CASES: dict[Callable[[Path], None], tuple[type[Exception], str]] = {
    empty: (NotACardError, "it is empty"),
    text: (NotACardError, "hold neither settings nor a recording"),
    zeros: (NotACardError, "are all zeros"),
    ones: (NotACardError, "hold neither settings nor a recording"),
    random: (NotACardError, "hold neither settings nor a recording"),
    netcdf: (NotACardError, "hold neither settings nor a recording"),
    directory: (NotACardError, "is a directory"),
    fifo: (NotACardError, "neither a file nor a disk"),
    short: (NotACardError, "it has only 512000 bytes"),
    gone: (CardNotFoundError, "no file or device here"),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_is_no_card_gets_a_clear_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "thing.img"
    make(path)
    kind, said = CASES[make]
    for use in (
        lambda: xr.open_dataset(path, engine="miniscope"),
        lambda: xr.open_datatree(path, engine="miniscope"),
        lambda: SDCard(path).frame_count,
        lambda: check(path),
    ):
        with pytest.raises(kind) as error:
            use()
        assert said in str(error.value)
        assert isinstance(error.value, MiniscopeError)
        assert isinstance(error.value, ValueError | OSError)
    assert MiniscopeBackendEntrypoint().guess_can_open(path) is False


@pytest.mark.parametrize("thing", [None, 3, b"card.img", object(), "", "\0", "https://example.invalid/x.img"])
def test_the_guess_is_false_for_anything_odd(thing: Any) -> None:
    assert MiniscopeBackendEntrypoint().guess_can_open(thing) is False


def test_files_of_other_engines_are_left_to_them(tmp_path: Path) -> None:
    netcdf(tmp_path / "other.nc")
    with xr.open_dataset(tmp_path / "other.nc") as ds:
        assert "a" in ds


def test_no_permission_says_what_to_do(tmp_path: Path, make_card: Any) -> None:
    path, _ = make_card(frames=2)
    if os.name != "posix":
        pytest.skip("chmod takes nobody's right to read on Windows")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        code = (
            "import os, sys; os.setuid(65534)\n"
            "from miniscope_xr.source.local import Device\n"
            "try: Device(sys.argv[1])\n"
            "except Exception as e: print(type(e).__name__, e)"
        )
        for folder in path.parents:
            if folder.name.startswith("pytest-"):
                folder.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
        if "CardNotFoundError" in done.stdout or not done.stdout:
            pytest.skip("another user cannot reach the temporary folder here")
        assert done.stdout.startswith("CardPermissionError")
        assert "administrator" in done.stdout
    else:
        with pytest.raises(CardPermissionError, match="administrator"):
            xr.open_dataset(path, engine="miniscope")
    assert issubclass(CardPermissionError, PermissionError)


@pytest.mark.parametrize("name", real_names(recorded=False))
def test_blank_real_cards_say_that_nothing_was_recorded(name: str, real_image: Callable[[str], Path]) -> None:
    with pytest.raises(BlankCardError, match="blank card, layout v4-wirefree"):
        xr.open_dataset(real_image(name), engine="miniscope")
    assert MiniscopeBackendEntrypoint().guess_can_open(real_image(name)) is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keys": True}, "write keys in sector 1022"),
        ({"keys": False}, "without write keys, as the lab notebook does"),
        ({"booted": True}, "switched on with this card"),
    ],
)
def test_blank_cards_are_told_apart(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings = {"gain": 1, "led": 2, "record_length": 1800, "fs": 20}
    path = blank("v4-wirefree", settings=settings, **options).write(tmp_path / "blank.img")
    with pytest.raises(BlankCardError, match=said):
        xr.open_dataset(path, engine="miniscope")


def test_a_daq_or_v3_card_that_is_only_prepared_may_be_either(tmp_path: Path) -> None:
    path = blank("daq-wirefree").write(tmp_path / "blank.img")
    with pytest.raises(BlankCardError, match="daq-wirefree or v3-wirefree"):
        xr.open_dataset(path, engine="miniscope")


def test_a_wrong_layout_names_the_right_one(make_card: Any) -> None:
    path, _ = make_card(frames=4)
    for wrong in ("daq-wirefree", "v3-wirefree"):
        with pytest.raises(NotACardError, match=r"looks like layout 'v4-wirefree'") as error:
            xr.open_dataset(path, engine="miniscope", layout=wrong)
        assert wrong in str(error.value)


def test_a_card_that_fits_two_layouts_asks_for_one(tmp_path: Path) -> None:
    card = simulate(frames=6)
    data = bytearray(card.data)
    for k in (0, 1):  # v3 footers where the first two frames of a 320x320 recording would end
        end = (1024 + 200 * (k + 1)) * 512
        data[end - 16 : end] = np.array([1, 320, 60 + 50 * k, k], "<u4").tobytes()
    path = tmp_path / "both.img"
    path.write_bytes(data)
    with pytest.raises(AmbiguousLayoutError, match=r"pass layout='v3-wirefree' or layout='v4-wirefree'"):
        xr.open_dataset(path, engine="miniscope")
    assert MiniscopeBackendEntrypoint().guess_can_open(path) is False
    with xr.open_dataset(path, engine="miniscope", layout="v4-wirefree") as ds:
        np.testing.assert_array_equal(ds.frame_num, card.expected()[0])


def test_headers_written_over_pixels_are_refused(make_card: Any) -> None:
    path, _ = make_card(build="9 words", frames=4)
    for options in ({}, {"layout": "v4-wirefree"}):
        with pytest.raises(UnsupportedCardError, match="08d3fd2 wrote these headers over the pixels"):
            xr.open_dataset(path, engine="miniscope", **options)


def test_a_card_prepared_over_an_older_recording_is_not_read_as_it(make_card: Any) -> None:
    path, card = make_card(frames=6)
    data = bytearray(card.data)
    data[1023 * 512 : 1024 * 512] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(BlankCardError, match="older one begins in sector 1024"):
        xr.open_dataset(path, engine="miniscope")
    with xr.open_dataset(path, engine="miniscope", layout="v4-wirefree") as ds:
        np.testing.assert_array_equal(ds.video, card.expected()[1])
        assert "not one" in ds.attrs["warnings"][0]
