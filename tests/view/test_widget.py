"""``ds.miniscope.view()`` by its messages, without a notebook: what is answered is what the Dataset says."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.card import OpenRecording
from miniscope_xr.errors import MissingDependencyError, OptionError
from miniscope_xr.tools.simulate import RecordAgain, Stall

from .notebook import Comm

comm = pytest.importorskip("comm", reason="needs ipywidgets")
pytest.importorskip("anywidget", reason="needs anywidget")

CARD = {"card": 0, "recording": 0}


class Talk:
    """A widget, and questions to it as its page asks them."""

    def __init__(self, ds: xr.Dataset) -> None:
        self.widget = ds.miniscope.view()
        self.comm = Comm.made[-1]
        self.asked = 0

    def __call__(self, ask: str, /, **given: Any) -> Any:
        """The whole answer, with ``data`` where it has a buffer."""
        self.asked += 1
        (out,) = self.comm.hear({"id": f"me:{self.asked}", "ask": ask, "given": given})
        assert out["content"].pop("id") == f"me:{self.asked}"
        return {**out["content"], **({"data": base64.b64decode(out["buffers"][0])} if out["buffers"] else {})}

    def frames(self, start: int, count: int, dtype: str = "u1") -> tuple[Any, np.ndarray[Any, Any]]:
        found = self("frames", **CARD, start=start, count=count)
        (about,) = self("start")["answer"]["card"]["recordings"]
        return found["answer"], np.frombuffer(found["data"], dtype).reshape(-1, about["height"], about["width"])

    def stream(self, ask: str, /, **given: Any) -> list[Any]:
        parts = []
        found = self(ask, **CARD, **given)
        while "work" in found:
            parts.append(found["answer"])
            found = self("next", work=found["work"])
        assert found == {}
        return parts


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[xr.Dataset], Talk]]:
    monkeypatch.setattr(comm, "create_comm", Comm)
    made: list[Talk] = []

    def begun(ds: xr.Dataset) -> Talk:
        made.append(Talk(ds))
        return made[-1]

    yield begun
    for one in made:
        one.widget.close()
    Comm.made.clear()


@pytest.fixture
def lossy(make_card, open_card) -> Any:
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    return lambda **options: open_card(path, **options)


def test_it_is_told_what_it_shows(talk, lossy):
    ds = lossy()
    told = talk(ds)("start")["answer"]
    (about,) = told["card"]["recordings"]
    assert (about["frames"], about["height"], about["width"]) == ds.video.shape
    assert about["fps"] == pytest.approx(20, rel=0.01)
    assert told["card"]["settings"]["gain"] == ds.attrs["gain_meaning"]
    assert told["card"]["name"].endswith(".img")
    assert {"FFV1", "zarr", "report"} <= {kind["name"] for kind in talk(ds)("kinds", **CARD)["answer"]["kinds"]}


def test_frames_are_those_of_the_dataset(talk, lossy):
    ds = lossy()
    about, pixels = talk(ds).frames(7, 9)
    np.testing.assert_array_equal(pixels, ds.video[7:16].values)
    assert about["numbers"] == ds.frame_num[7:16].values.tolist()
    assert about["ms"] == (ds.time[7:16].values / np.timedelta64(1, "ms")).tolist()
    assert about["whole"] == ds.complete[7:16].values.tolist()


def test_only_the_frames_that_are_looked_at_are_read(talk, lossy, monkeypatch):
    read: list[int] = []
    for name in ("pixels", "image", "frame"):
        whole = getattr(OpenRecording, name)

        def counted(store: OpenRecording, rows: Any, whole: Any = whole) -> Any:
            read.extend(np.atleast_1d(rows).tolist())
            return whole(store, rows)

        monkeypatch.setattr(OpenRecording, name, counted)
    asker = talk(lossy())
    asker("start")
    asker("line", **CARD)
    assert read == []
    asker.frames(42, 1)
    assert set(read) == {42}


@pytest.mark.parametrize(
    "cut",
    [
        lambda ds: ds.isel(frame=slice(20, 80)),
        lambda ds: ds.isel(frame=slice(None, None, 3)),
        lambda ds: ds.isel(frame=[50, 3, 9]),
        lambda ds: ds.isel(y=slice(10, 60), x=slice(100, 180)),
        lambda ds: ds.where(ds.complete, drop=True).astype({"video": "u1"}),
        lambda ds: ds.load(),
        lambda ds: ds.chunk(frame=16),
    ],
    ids=["part", "every third", "list", "cropped", "whole ones", "loaded", "chunked"],
)
def test_what_was_cut_is_shown_as_cut(talk, lossy, cut):
    ds = cut(lossy())
    about, pixels = talk(ds).frames(1, 2)
    np.testing.assert_array_equal(pixels, ds.video[1:3].values)
    assert about["numbers"] == ds.frame_num[1:3].values.tolist()


@pytest.mark.parametrize("options", [{}, {"gaps": "fill"}, {"partial": "drop"}, {"partial": "nan"}], ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["of a card", "of nothing"])
def test_the_line_is_in_rows_of_the_dataset(talk, lossy, options, known):
    ds = lossy(**options).isel(frame=slice(10, None, 2) if known else slice(10, None))
    if not known:
        ds.encoding.pop("source")
    told = talk(ds)("line", **CARD)["answer"]
    blank = ds.buffers_present.values == 0
    assert told["partial"] == np.flatnonzero(~ds.complete.values & ~blank).tolist()
    numbers, places = ds.frame_num.values.astype(int), ds.frame.values
    if not options:
        lost = np.diff(numbers) - np.diff(places)
        assert told["lost"] == [[int(k) + 1, int(lost[k])] for k in np.flatnonzero(lost)]
        assert told["lost"]
    if options == {"gaps": "fill"} and not known:
        assert sum(count for _, count in told["lost"]) == blank.sum() > 0
    np.testing.assert_array_equal(told["curves"]["drops"]["values"], ds.dropped_buffer_count[told["rows"]])


def test_findings_lead_to_rows_of_the_dataset(talk, lossy):
    ds = lossy().isel(frame=slice(20, None))
    found = talk(ds)("findings", **CARD)["answer"]["findings"]
    rows = [row for finding in found for row in finding["rows"]]
    assert rows == np.flatnonzero(~ds.complete.values).tolist()
    assert rows


def test_real_numbers_stay_real(talk, lossy):
    ds = lossy(partial="nan")
    asker = talk(ds)
    (about,) = asker("start")["answer"]["card"]["recordings"]
    assert about["real"]
    row = int(np.flatnonzero(~ds.complete.values)[0])
    _, pixels = asker.frames(row, 1, "<f4")
    np.testing.assert_array_equal(pixels[0], ds.video[row].values)
    assert np.isnan(pixels).any()
    change = ds.assign(video=ds.video - ds.video.mean("frame"))
    _, pixels = talk(change).frames(5, 1, "<f4")
    np.testing.assert_allclose(pixels[0], change.video[5].values, rtol=1e-6)


def test_traces_are_the_means_of_the_dataset(talk, lossy):
    shapes = [{"x": 150, "y": 100, "r": 6}, {"x0": 10, "y0": 200, "x1": 300, "y1": 303}]
    y, x = np.mgrid[:304, :304]
    inside = [(x - 150) ** 2 + (y - 100) ** 2 <= 36, (x >= 10) & (x <= 300) & (y >= 200)]
    for options in ({"partial": "nan"}, {}):
        ds = lossy(**options)
        parts = talk(ds).stream("traces", shapes=shapes)
        for k, mask in enumerate(inside):
            found = np.array([value for part in parts for value in part["values"][k]], float)
            expected = ds.video.where(xr.DataArray(mask, dims=("y", "x"))).values[:, mask].mean(1, dtype=np.float64)
            if not options:  # bytes that are missing are 0 in it, and no number tells which
                expected = np.where(ds.complete.values, expected, np.nan)
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "max", "std", "peak"])
def test_projections_of_real_numbers(talk, lossy, kind):
    ds = lossy(partial="nan")
    last = talk(ds).stream("projection", kind=kind, start=5, stop=70)[-1]
    video = ds.video[5:70].astype(float)
    expected = video.max("frame") - video.mean("frame") if kind == "peak" else getattr(video, kind)("frame")
    image = np.frombuffer(base64.b64decode(last["image"]), "<f4").reshape(304, 304)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)
    assert last["last"]


def test_a_file_is_written_of_what_is_shown(talk, lossy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds = lossy().isel(frame=slice(10, 40), x=slice(0, 80))
    parts = talk(ds).stream("write", kind="netcdf", path="part.nc", start=5, stop=9)
    assert parts[-1]["written"] == str(tmp_path / "part.nc")
    with xr.open_dataset(tmp_path / "part.nc") as made:
        np.testing.assert_array_equal(made.video.values, ds.video[5:9].values)


def test_work_is_ended_where_its_page_says_so(talk, lossy):
    asker = talk(lossy())
    begun = asker("traces", **CARD, shapes=[{"x": 50, "y": 50, "r": 3}])
    assert asker.comm.hear({"ask": "end", "given": {"work": begun["work"]}}) == []
    assert "ended" in asker("next", work=begun["work"])["error"]


def test_work_that_nobody_asks_for_any_more_does_not_pile_up(talk, lossy):
    asker = talk(lossy())
    begun = [asker("traces", **CARD, shapes=[{"x": 50, "y": 50, "r": 3}])["work"] for _ in range(20)]
    assert "error" in asker("next", work=begun[0])
    assert "answer" in asker("next", work=begun[-1])
    assert len(asker.widget._questions._work) < 20


@pytest.mark.parametrize(
    ("ask", "given"),
    [("frames", {**CARD, "start": 900, "count": 1}), ("frames", {}), ("nothing", {}), ("open", {"path": "/etc/passwd"}),
     ("look", {"path": "/dev/sda"}), ("begin", {"look": 1}), ("traces", {**CARD, "shapes": []}), ("next", {"work": 7}),
     ("projection", {**CARD, "kind": "sum", "start": 0, "stop": 5})],
)  # fmt: skip
def test_what_cannot_be_is_an_error_in_words(talk, lossy, ask, given):
    assert talk(lossy())(ask, **given)["error"]


def test_what_is_no_question_is_passed_over(talk, lossy):
    asker = talk(lossy())
    for content in (None, 5, [], {"id": 1}, {"id": 1, "ask": "start", "given": 3}):
        assert asker.comm.hear(content) == []


def test_a_dataset_that_knows_no_card(talk, lossy):
    ds = lossy().load()
    ds.encoding.clear()
    ds.attrs.clear()
    asker = talk(ds.drop_vars(["time", "frame_num", "complete", "buffers_present"]))
    told = asker("start")["answer"]
    assert told["card"]["name"] == "Dataset"
    assert "report" not in {kind["name"] for kind in asker("kinds", **CARD)["answer"]["kinds"]}
    assert "no longer knows" in asker("findings", **CARD)["error"]
    assert asker("line", **CARD)["answer"]["partial"] == []
    about, pixels = asker.frames(3, 1)
    np.testing.assert_array_equal(pixels[0], ds.video[3].values)
    assert about["ms"] == [None]


def test_a_second_recording(talk, make_card, open_card):
    path, _ = make_card(frames=20, events=[RecordAgain(12)])
    ds = open_card(path, recording=1)
    asker = talk(ds)
    assert "12" in str(asker("start")["answer"]["card"]["recordings"][0]["frames"])
    np.testing.assert_array_equal(asker.frames(3, 1)[1][0], ds.video[3].values)
    assert asker("line", **CARD)["answer"]["lost"] == []


def test_a_card_that_was_swapped_is_told(talk, make_card, open_card):
    path, _ = make_card(frames=20)
    asker = talk(open_card(path))
    asker.frames(3, 1)
    os.truncate(path, 600_000)
    assert "open it again" in asker("frames", **CARD, start=4, count=1)["error"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(lambda ds: ds.drop_vars("video"), "video"), (lambda ds: ds.isel(frame=3), "frame=\\[5\\]"),
     (lambda ds: ds.transpose("x", "y", "frame"), "video"), (lambda ds: ds.isel(frame=slice(0, 0)), "video")],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_at_once(talk, lossy, wrong, said):
    with pytest.raises(OptionError, match=said):
        talk(wrong(lossy()))


def test_without_anywidget_it_is_said_what_to_install(lossy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
    with pytest.raises(MissingDependencyError, match=r"miniscope-xr\[notebook\]"):
        lossy().miniscope.view()


def test_closing_it_leaves_the_dataset_open(talk, lossy):
    ds = lossy()
    asker = talk(ds)
    asker("line", **CARD)
    asker.widget.close()
    assert ds.video[3].values.any()


def test_the_module_is_the_page_and_names_no_server():
    from miniscope_xr.tools.view.server import PAGE
    from miniscope_xr.tools.view.widget import module

    text = module()
    for name in ("panel.js", "film.js", "kernel.js"):
        assert repr((PAGE / name).read_text(encoding="utf-8")[:40])[1:-1] in text
    assert "await fetch(" not in text
    assert "EventSource" not in text
    assert len(text) < 150_000
