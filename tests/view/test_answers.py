"""What the page is told is what the Dataset says, to the bit."""

from __future__ import annotations

import base64
import os
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.simulate import RecordAgain, Stall
from miniscope_xr.tools.view.measure import BATCH, mask_of, spread

CARD = {"card": 0, "recording": 0}


def test_a_page_is_told_what_it_opens(viewing, clean_card):
    told = viewing(clean_card[0]).get("start").json
    assert told["open"] == [str(clean_card[0])]


def test_images_in_the_folder_are_offered(viewing, make_card):
    path, _ = make_card(frames=5)
    assert str(path) in [found["path"] for found in viewing().get("found").json["found"]]


def test_what_is_no_image_is_not_offered(viewing, make_card, tmp_path):
    path, _ = make_card(frames=5)
    (tmp_path / "folder.img").mkdir()
    odd = tmp_path / "a\u202egmi.img"
    try:
        os.link(path, odd)
        (tmp_path / "nowhere.img").symlink_to(tmp_path / "gone")
    except OSError:
        pytest.skip("this system has no such names or links")
    asker = viewing(odd)
    found = {each["path"]: each["shown"] for each in asker.get("found").json["found"] if each["path"].endswith(".img")}
    assert found == {str(path): str(path), str(odd): str(odd).replace("\u202e", "\\u202e")}
    (first,) = asker.get("start").json["open"]
    assert asker.post("open", path=first).json["card"] == 0


def test_a_card_is_described(viewing, clean_card, open_card):
    told = viewing().post("open", path=str(clean_card[0])).json
    ds = open_card(clean_card[0])
    assert (told["card"], told["layout"]) == (0, "v4-wirefree")
    (recording,) = told["recordings"]
    assert (recording["frames"], recording["height"], recording["width"]) == ds.video.shape
    assert recording["fps"] == pytest.approx(20, rel=0.01)
    assert recording["status"] == ds.attrs["status"]
    assert told["settings"]["gain"] == ds.attrs["gain_meaning"]


def test_the_rate_is_that_of_the_clock(viewing, make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    steps = open_card(path).time.diff("frame") / np.timedelta64(1, "ms")
    assert viewing(path).get("rate", **CARD).json["fps"] == pytest.approx(1000 / float(steps.median()), rel=0.01)


def test_a_card_opened_twice_is_one(viewing, clean_card):
    asker = viewing(clean_card[0])
    assert asker.post("open", path=str(clean_card[0])).json["card"] == 0


@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree", "daq-wirefree"])
def test_frames_are_those_of_the_dataset(viewing, make_card, open_card, layout):
    path, _ = make_card(layout, frames=40, events=[Stall(600, 300)])
    ds = open_card(path)
    about, pixels = viewing(path).get("frames", **CARD, start=7, count=9).frames(*ds.video.shape[1:])
    rows = slice(7, 16)
    np.testing.assert_array_equal(pixels, ds.video[rows].values)
    assert about["numbers"] == ds.frame_num[rows].values.tolist()
    assert about["ms"] == (ds.time[rows].values / np.timedelta64(1, "ms")).tolist()
    assert about["whole"] == ds.complete[rows].values.tolist()


def test_frames_end_with_the_recording_and_with_the_size_of_an_answer(viewing, clean_card):
    asker = viewing(clean_card[0])
    assert asker.get("frames", **CARD, start=55, count=20).frames(304, 304)[0]["count"] == 5
    answer = asker.get("frames", **CARD, start=0, count=10**9)
    assert len(answer.data) < 9_000_000


@pytest.mark.parametrize(
    "given",
    [{"start": 60, "count": 1}, {"start": -1, "count": 1}, {"start": 0, "count": 0}, {"start": 0, "count": "many"},
     {"count": 1}, {"start": 0, "count": 1, "recording": 3}, {"start": 0, "count": 1, "card": 9}],
)  # fmt: skip
def test_what_is_not_there_is_an_error_in_words(viewing, clean_card, given):
    answer = viewing(clean_card[0]).get("frames", **{**CARD, **given})
    assert answer.status == 422
    assert answer.json["error"]


def test_no_card_is_an_error_in_words(viewing, tmp_path):
    (tmp_path / "notes.txt").write_text("no card\n" * 200)
    answer = viewing().post("open", path=str(tmp_path / "notes.txt"))
    assert answer.status == 422
    assert "notes.txt" in answer.json["error"]


def test_an_image_that_was_cut_while_open_is_told_and_opened_anew(viewing, make_card):
    path, _ = make_card(frames=60)
    asker = viewing(path)
    assert asker.get("frames", **CARD, start=50, count=1).status == 200
    os.truncate(path, 1_000_000)
    answer = asker.get("frames", **CARD, start=50, count=1)
    assert answer.status == 422
    assert "open it again" in answer.json["error"]
    again = asker.post("open", path=str(path)).json
    assert again["card"] == 1
    assert again["recordings"][0]["status"] == "truncated"


def test_the_line_names_gaps_and_partial_frames(viewing, make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    ds = open_card(path)
    told = viewing(path).get("line", **CARD).json
    steps = np.diff(ds.frame_num.values)
    assert told["lost"] == [[row + 1, step - 1] for row, step in enumerate(steps.tolist()) if step > 1]
    assert told["lost"]
    assert told["partial"] == np.flatnonzero(~ds.complete.values).tolist()
    np.testing.assert_array_equal(told["curves"]["drops"]["values"], ds.dropped_buffer_count[told["rows"]])
    battery = np.array(told["curves"]["battery"]["values"], float)
    np.testing.assert_array_equal(battery, ds.battery_voltage[told["rows"]])


def test_findings_name_their_frames(viewing, make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    found = viewing(path).get("findings", **CARD).json["findings"]
    rows = [row for finding in found for row in finding["rows"]]
    assert rows == np.flatnonzero(~open_card(path).complete.values).tolist()
    assert any("never reached the card" in finding["sentence"] for finding in found)


def test_each_recording_of_a_card_is_shown(viewing, make_card, open_card):
    path, _ = make_card(frames=20, events=[RecordAgain(12)])
    asker = viewing(path)
    told = asker.post("open", path=str(path)).json["recordings"]
    assert [recording["frames"] for recording in told] == [20, 12]
    for recording in told:
        number = recording["number"]
        _, pixels = asker.get("frames", card=0, recording=number, start=3, count=1).frames(304, 304)
        np.testing.assert_array_equal(pixels[0], open_card(path, recording=number).video[3].values)


# -- traces and projections ------------------------------------------------------------------------------


def whole_trace(lines: list[Any], k: int = 0) -> np.ndarray[Any, Any]:
    return np.array([value for part in lines if "start" in part for value in part["values"][k]], float)


def test_traces_are_the_means_of_the_dataset(viewing, make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    shapes = [{"x": 150, "y": 100, "r": 6}, {"x0": 10, "y0": 200, "x1": 300, "y1": 303}]
    lines = viewing(path).post("traces", **CARD, shapes=shapes).lines
    ds = open_card(path, partial="nan")
    y, x = np.mgrid[:304, :304]
    circle = (x - 150) ** 2 + (y - 100) ** 2 <= 36
    box = (x >= 10) & (x <= 300) & (y >= 200)
    for k, inside in enumerate((circle, box)):
        expected = [frame[inside].mean(dtype=np.float64) for frame in ds.video.values]
        np.testing.assert_allclose(whole_trace(lines, k), expected, rtol=1e-12)
    assert np.isnan(whole_trace(lines, 1)).any()


@pytest.mark.slow
def test_cells_are_saved_as_netcdf_beside_what_is_there(viewing, make_card, open_card, tmp_path):
    pytest.importorskip("h5netcdf")
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    asker, ds = viewing(path), open_card(path, partial="nan")
    shapes = [{"x": 150, "y": 100, "r": 6}, {"x0": 10, "y0": 200, "x1": 300, "y1": 303}]
    given = {**CARD, "shapes": shapes, "names": ["cell 1", "cell 2"], "path": "a.nc"}
    made = asker.post("cells", **given).lines[-1]["written"]
    assert made == str(tmp_path / "a.nc")
    assert asker.post("cells", **given).lines[-1]["written"] == str(tmp_path / "a-2.nc")
    with xr.open_dataset(made) as found:
        traces = asker.post("traces", **CARD, shapes=shapes).lines
        for k, name in enumerate(("cell 1", "cell 2")):
            np.testing.assert_array_equal(found.F.sel(cell=name), whole_trace(traces, k))
        rest = np.sort(found.F[0].values[np.isfinite(found.F[0])])
        rest = rest[int(0.2 * (len(rest) - 1))]
        np.testing.assert_allclose(found.dff[0], (found.F[0] - rest) / rest)
        np.testing.assert_array_equal(found.frame_num, ds.frame_num)
        np.testing.assert_allclose(found.seconds, ds.time.values / np.timedelta64(1, "s"))
        assert np.isnan(found.F[1]).any()
    before = sorted(tmp_path.iterdir())
    for wrong in ({"path": "a.txt"}, {"names": ["one"]}, {"shapes": []}):
        assert asker.post("cells", **{**given, **wrong}).status == 422
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_long_recording_is_sketched_first(viewing, make_card, open_card):
    path, _ = make_card("samd-framework", frames=1100)
    lines = viewing(path).post("traces", **CARD, shapes=[{"x": 20, "y": 30, "r": 3}]).lines
    coarse = [part for part in lines if part.get("coarse")]
    assert lines[: len(coarse)] == coarse
    rows = np.concatenate([part["rows"] for part in coarse])
    values = np.concatenate([part["values"][0] for part in coarse])
    assert (rows[0], rows[-1]) == (0, open_card(path).sizes["frame"] - 1)
    np.testing.assert_array_equal(values, whole_trace(lines)[rows])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "max", "std", "peak"])
def test_a_projection_ends_exact(viewing, make_card, open_card, kind):
    path, _ = make_card(frames=80, events=[Stall(1500, 400)])
    lines = viewing(path).post("projection", **CARD, kind=kind, start=5, stop=70).lines
    ds = open_card(path, partial="nan")
    video = ds.video[5:70][ds.complete[5:70].values].values.astype(np.float64)
    expected = video.max(0) - video.mean(0) if kind == "peak" else getattr(video, kind)(0)
    image = np.frombuffer(base64.b64decode(lines[-1]["image"]), "<f4").reshape(304, 304)
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert (lines[-1]["last"], lines[-1]["frames"]) == (True, len(video))
    assert not any(part["last"] for part in lines[:-1])


def test_the_resting_picture_is_that_of_a_preview(viewing, make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    said = viewing(path).get("resting", **CARD).json
    image = np.frombuffer(base64.b64decode(said["image"]), "<f4").reshape(304, 304)
    ds = open_card(path)
    whole = ds.video.values[ds.complete.values]
    np.testing.assert_allclose(image, np.percentile(whole, 20, axis=0), rtol=1e-6)
    assert (said["dark"], said["low"], said["high"]) == (5, -0.1, 0.5)


@pytest.mark.parametrize(
    ("name", "given"),
    [("traces", {"shapes": []}), ("traces", {"shapes": "all"}), ("traces", {"shapes": [{"x": 1, "y": 2}]}),
     ("traces", {"shapes": [{"x": -90, "y": 5, "r": 3}]}), ("traces", {"shapes": [{"x": 5, "y": 5, "r": np.nan}]}),
     ("traces", {"shapes": [{"x": 5, "y": 5, "r": 1}] * 40}), ("projection", {"kind": "sum", "start": 0, "stop": 5}),
     ("projection", {"kind": "mean", "start": 9, "stop": 9})],
)  # fmt: skip
def test_what_cannot_be_computed_is_an_error_in_words(viewing, clean_card, name, given):
    answer = viewing(clean_card[0]).post(name, **CARD, **given)
    assert answer.status == 422
    assert answer.json["error"]


@pytest.mark.slow
@given(st.integers(0, 500))
def test_a_spread_has_every_number_once(count):
    assert sorted(spread(count)) == list(range(count))


def test_a_spread_begins_all_over():
    assert list(spread(8)) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert BATCH > 1


@given(st.floats(-50, 150), st.floats(-50, 150), st.floats(0, 60))
def test_a_circle_has_the_pixels_whose_centre_is_in_it(x, y, r):
    ys, xs = np.mgrid[:80, :100]
    expected = (xs - x) ** 2 + (ys - y) ** 2 <= r**2
    found = np.zeros((80, 100), bool)
    if not expected.any():
        with pytest.raises(OptionError):
            mask_of({"x": x, "y": y, "r": r}, 80, 100)
        return
    rows, columns, inside = mask_of({"x": x, "y": y, "r": r}, 80, 100)
    found[rows, columns] = inside
    np.testing.assert_array_equal(found, expected)
