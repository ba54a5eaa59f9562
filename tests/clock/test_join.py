"""Recordings of one session as one: every frame, times that never run back, one export; or the reason why not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("dask")

from miniscope_xr.errors import OptionError, OutputExistsError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.clock.join import join
from miniscope_xr.tools.simulate import Stall, simulate


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cards")
    first = simulate(frames=60, width=64, height=64, seed=1, events=[Stall(1200, 500)]).write(folder / "a.img")
    return [first, simulate(frames=30, width=64, height=64, seed=2).write(folder / "b.img")]


@pytest.fixture
def both(cards: list[Path]) -> Iterator[list[xr.Dataset]]:
    with xr.open_dataset(cards[0], engine="miniscope") as a, xr.open_dataset(cards[1], engine="miniscope") as b:
        yield [a, b]


def test_every_frame_once_and_time_runs_on(both: list[xr.Dataset]) -> None:
    whole = both[0].miniscope.join(both[1])
    assert whole["video"].chunks is not None, "nothing was read"
    np.testing.assert_array_equal(whole.video, np.concatenate([ds.video.values for ds in both]))
    assert (np.diff(whole.time.values) > np.timedelta64(0, "ms")).all()
    assert (np.diff(whole.frame_num.values) > 0).all()
    np.testing.assert_array_equal(whole.frame, np.arange(len(whole.frame)))
    n = both[0].sizes["frame"]
    np.testing.assert_array_equal(whole.recording, np.repeat([0, 1], [n, 30]))
    step = whole.time.values[n] - whole.time.values[n - 1]
    assert step == np.timedelta64(50, "ms")
    assert "not known" in whole.attrs["joined"]
    assert whole.attrs["recordings"][1].endswith(f"b.img, recording 0, from row {n} on")
    assert whole.attrs["layout"] == both[0].attrs["layout"]


def test_aligned_recordings_stand_where_they_were(both: list[xr.Dataset]) -> None:
    """Given the wrong way round: their dates put them in order."""
    late = both[1].miniscope.align(pairs=[(0, 1_700_000_100.0), (1, 1_700_000_101.0)])
    early = both[0].miniscope.align(pairs=[(0, 1_700_000_000.0), (1, 1_700_000_001.0)])
    whole = late.miniscope.join(early)
    n = early.sizes["frame"]
    assert whole.recording.values[0] == 0
    np.testing.assert_array_equal(whole.wall_time[:n], early.wall_time)
    since = whole.time.values - whole.time.values[0]
    np.testing.assert_allclose(
        since.astype("timedelta64[ms]").astype(float),
        (whole.wall_time.values - whole.wall_time.values[0]) / np.timedelta64(1, "ms"), atol=1.5,
    )  # fmt: skip
    with pytest.raises(OptionError, match="align all or none"):
        join([late, both[0]])
    with pytest.raises(OptionError, match="two scopes at once"):
        join([late, late])
    with pytest.raises(OptionError, match="say themselves"):
        join([late, early], apart=3)


def test_a_gap_of_one_s_own(both: list[xr.Dataset]) -> None:
    whole = join(both, apart=60)
    n = both[0].sizes["frame"]
    assert whole.time.values[n] - whole.time.values[n - 1] == np.timedelta64(60_000, "ms")
    with pytest.raises(OptionError, match="more than 0 s"):
        join(both, apart=-1)


@pytest.mark.slow
def test_they_are_exported_as_one(both: list[xr.Dataset], cards: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    pytest.importorskip("cv2", exc_type=ImportError)
    whole = join(both)
    whole.miniscope.export(tmp_path / "whole.nc")
    with xr.open_dataset(tmp_path / "whole.nc", engine="h5netcdf", decode_timedelta=True) as again:
        np.testing.assert_array_equal(again.video, whole.video)
        np.testing.assert_array_equal(again.time, whole.time)
        np.testing.assert_array_equal(again.recording, whole.recording)
    whole.miniscope.to_video(tmp_path / "whole.avi")  # times do not go back: no warning
    stamps = (tmp_path / "whole_timeStamps.csv").read_text().splitlines()
    assert len(stamps) == whole.sizes["frame"] + 1
    second = Path(shutil.copyfile(cards[1], tmp_path / "second.h5"))  # a card by the name of an output
    moved = both[1].copy()
    moved.encoding["source"] = str(second)
    with pytest.raises(OutputExistsError, match="the card itself"):
        join([both[0], moved]).miniscope.export(second, force=True)


def test_what_is_no_one_film_is_refused(both: list[xr.Dataset], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at least one other"):
        join(both[:1])
    with pytest.raises(OptionError, match="32x64 uint8 are not one film"):
        join([both[0], both[1].isel(x=slice(0, 32))])
    with pytest.raises(OptionError, match="frames/s are not one film"):
        join([both[0], both[1].assign_coords(time=both[1].time * 2)])
    with pytest.raises(OptionError, match="no 'video'"):
        join([both[0], both[1].drop_vars("video")])


def test_a_time_index_is_no_hindrance(cards: list[Path]) -> None:
    with xr.open_dataset(cards[0], engine="miniscope", time_index=True) as a:
        assert join([a, a]).sizes["frame"] == 2 * a.sizes["frame"]


class TestAtATerminal:
    @pytest.mark.slow
    def test_cards_are_exported_as_one(
        self, cards: list[Path], both: list[xr.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        h5py = pytest.importorskip("h5py")
        out = tmp_path / "whole.h5"
        assert main(["export", str(cards[0]), str(out), "--join", str(cards[1]), "--apart", "60"]) == 0
        assert "2 recordings in a row, 60 s apart, as given" in capsys.readouterr().out
        with h5py.File(out) as file:
            np.testing.assert_array_equal(file["mov"][...], np.concatenate([ds.video.values for ds in both]))

    @pytest.mark.slow
    def test_aligned_ones_each_with_its_clock(self, cards: list[Path], tmp_path: Path) -> None:
        """Given the wrong way round; the clocks put them in order."""
        h5py = pytest.importorskip("h5py")
        clocks = []
        for card, began in zip(cards, ("15:10:00", "15:09:00"), strict=True):
            clocks.append(str(card.with_suffix(".json")))
            assert main(["align", str(card), clocks[-1], "--start", f"2026-03-14T{began}Z", "--force", "--quiet"]) == 0
        words = ["export", str(cards[0]), str(tmp_path / "a.h5"), "--join", str(cards[1]), "--quiet"]
        assert main([*words, *(word for clock in clocks for word in ("--clock", clock))]) == 0
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["mov"].shape[0] == 30 + xr.open_dataset(cards[0], engine="miniscope").sizes["frame"]
            np.testing.assert_array_equal(np.unique(file["headers/recording"][:30]), [0])

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--apart", "30"], "give the others with --join"),
            (["--join", "3"], "--recording 3: this card holds 0"),
            (["--join", "gone.img"], "gone.img: there is no file"),
            (["--join", "0", "--clock", "a.json"], "1 times for 2 recordings"),
            (["--join", "0", "--until", "5"], "cannot be given together with --join"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, words: list[str], said: str, cards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", str(cards[1]), str(tmp_path / "a.h5"), *words]) != 0
        assert said in capsys.readouterr().err
        assert not (tmp_path / "a.h5").exists()
