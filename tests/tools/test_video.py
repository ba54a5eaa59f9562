"""Videos: exact where that is promised, at the true rate, with the time stamps beside them, whole or not there."""

from __future__ import annotations

import builtins
import csv
import os
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import MiniscopeError, SDCard
from miniscope_xr.errors import MissingDependencyError, OptionError, OutputError, OutputExistsError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import SimulatedCard, Stall, calcium_scene, noise_camera
from miniscope_xr.tools.stream.timing import filled_times, frame_rate, measured_rate
from miniscope_xr.tools.video.write import dataset_to_video, write_video

cv2: Any = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'miniscope-xr[video]'")

Open = Callable[..., xr.Dataset]
Make = Callable[..., tuple[Path, SimulatedCard]]


def frames_of(path: Path) -> np.ndarray:
    """Read a video back with OpenCV, grey."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        more, image = capture.read()
        if not more:
            break
        found.append(image[..., 0])
    capture.release()
    return np.array(found)


def rate_of(path: Path) -> float:
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return float(rate)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Bitmap(NamedTuple):
    """What an AVI says of its pictures (BITMAPINFOHEADER)."""

    width: int
    bits: int
    size: int


def avi_packets(path: Path) -> tuple[list[bytes], Bitmap]:
    """Pictures as they lie in an AVI, read by its chunks and no library."""
    data = path.read_bytes()
    at = data.index(b"strf") + 8
    _, width, _, _, bits, _, size = struct.unpack_from("<IiiHHII", data, at)
    packets, at = [], data.index(b"movi") + 4
    while (chunk := data[at : at + 4]) in (b"00dc", b"00db", b"JUNK", b"ix00"):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if chunk[2:3] == b"d":
            packets.append(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return packets, Bitmap(width, bits, size)


def left_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.suffix != ".img"}


@pytest.fixture
def ds(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> xr.Dataset:
    return open_card(clean_card[0])


class TestPixels:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("codec", "name"),
        [("GREY", "a.avi"), ("GREY", "a.mkv"), ("FFV1", "a.avi"), ("FFV1", "a.mkv"), ("Y800", "a.avi")],
    )
    def test_exact_codecs_give_back_every_pixel(self, ds: xr.Dataset, tmp_path: Path, codec: str, name: str) -> None:
        dataset_to_video(ds, tmp_path / name, codec=codec)
        np.testing.assert_array_equal(frames_of(tmp_path / name), ds["video"].values)

    @pytest.mark.parametrize(("codec", "name"), [("MJPG", "a.avi"), ("XVID", "a.avi"), ("mp4v", "a.mp4")])
    def test_lossy_codecs_give_back_every_frame_nearly(
        self, make_card: Make, open_card: Open, tmp_path: Path, codec: str, name: str
    ) -> None:
        path, _ = make_card(frames=12, camera=calcium_scene(304, 304))
        ds = open_card(path)
        dataset_to_video(ds, tmp_path / name, codec=codec)
        found, true = frames_of(tmp_path / name).astype(int), ds["video"].values.astype(int)
        assert found.shape == true.shape
        complete = ds["complete"].values
        assert np.abs(found - true)[complete].mean() < 5

    def test_ffv1_of_several_segments_is_exact_and_whole(
        self, make_card: Make, open_card: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from miniscope_xr.tools.video import segments

        monkeypatch.setattr(segments, "cores", lambda: 3)
        path, _ = make_card(frames=103, width=64, height=64)
        ds = open_card(path)
        assert len(segments.segment_bounds(103, 3)) == 5
        dataset_to_video(ds, tmp_path / "a.avi", codec="FFV1")
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), ds["video"].values)

    def test_segments_cover_every_frame_once(self) -> None:
        from miniscope_xr.tools.video.segments import segment_bounds

        for count in (1, 47, 48, 1000, 19_999):
            bounds = segment_bounds(count, 2)
            assert [k for start, stop in bounds for k in range(start, stop)] == list(range(count))
            assert all(start % 12 == 0 for start, _ in bounds)

    def test_wide_frames_stay_wide(self, make_card: Make, open_card: Open, tmp_path: Path) -> None:
        path, _ = make_card("daq-wirefree", frames=3, width=640, height=560)
        ds = open_card(path)
        dataset_to_video(ds, tmp_path / "a.avi")
        found = frames_of(tmp_path / "a.avi")
        assert found.shape[1:] == (560, 640)
        np.testing.assert_array_equal(found, ds["video"].values)

    def test_missing_buffers_are_black_and_in_place(self, make_card: Make, open_card: Open, tmp_path: Path) -> None:
        path, card = make_card(frames=50, events=[Stall(200, 900)])
        ds = open_card(path)
        assert not ds["complete"].values.all()
        dataset_to_video(ds, tmp_path / "a.avi")
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), card.expected()[1])

    def test_colour_has_three_equal_channels(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", codec="MJPG", color=True, frames=slice(0, 3))
        assert len(frames_of(tmp_path / "a.avi")) == 3

    @pytest.mark.slow
    def test_colour_in_an_exact_codec_keeps_every_value(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", codec="FFV1", color=True)
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), ds["video"].values)
        with pytest.raises(OptionError, match=r"GREY has one channel.*FFV1"):
            dataset_to_video(ds, tmp_path / "b.avi", codec="grey", color=True)
        assert not (tmp_path / "b.avi").exists()

    @pytest.mark.parametrize("width", [302, 304, 30, 2])
    def test_rows_of_an_uncompressed_avi_take_a_multiple_of_4_bytes(
        self, ds: xr.Dataset, tmp_path: Path, width: int
    ) -> None:
        """What ImageJ and GStreamer count with; FFmpeg reads rows with and without."""
        video = ds["video"].isel(x=slice(0, width))
        dataset_to_video(ds.isel(x=slice(0, width)), tmp_path / "a.avi")
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), video.values)
        packets, about = avi_packets(tmp_path / "a.avi")
        row = width + -width % 4
        assert (about.width, about.bits, about.size) == (width, 8, row * ds.sizes["y"])
        stored = np.array([np.frombuffer(packet, np.uint8).reshape(ds.sizes["y"], row) for packet in packets])
        np.testing.assert_array_equal(stored[..., :width], video.values)
        assert not stored[..., width:].any()

    @pytest.mark.slow
    def test_an_opencv_without_packets_says_what_to_do(
        self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(cv2, "VIDEOWRITER_PROP_RAW_VIDEO")
        dataset_to_video(ds, tmp_path / "a.avi", codec="FFV1")  # one encoder instead of several
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), ds["video"].values)
        with pytest.raises(OutputError, match="does not write packets"):
            dataset_to_video(ds.isel(x=slice(0, 302)), tmp_path / "b.avi")
        assert left_in(tmp_path) == {"a.avi", "a_timeStamps.csv"}

    @pytest.mark.parametrize("frames", [slice(5, 20), slice(None, None, 7), [3, 4, 50]])
    def test_some_frames(self, ds: xr.Dataset, tmp_path: Path, frames: Any) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", frames=frames)
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), ds["video"].isel(frame=frames).values)
        numbers = [int(row["DAQ Frame Number"]) for row in rows_of(tmp_path / "a_timeStamps.csv")]
        assert numbers == ds["frame_num"].isel(frame=frames).values.tolist()

    def test_a_chunked_dataset_gives_the_same_file(self, ds: xr.Dataset, tmp_path: Path) -> None:
        pytest.importorskip("dask")
        dataset_to_video(ds, tmp_path / "a.avi")
        dataset_to_video(ds.chunk(frame=16), tmp_path / "b.avi")
        assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()

    def test_sdcard_writes_the_same_file(
        self, clean_card: tuple[Path, SimulatedCard], ds: xr.Dataset, tmp_path: Path
    ) -> None:
        dataset_to_video(ds, tmp_path / "a.avi")
        with SDCard(clean_card[0]) as card:
            card.to_video(tmp_path / "b.avi")
            with pytest.raises(FileExistsError):
                card.to_video(tmp_path / "b.avi")
            card.to_video(tmp_path / "b.avi", fourcc="GREY", isColor=False, force=True, progress=False)
        assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()


class TestWriteVideo:
    def test_single_frames_and_batches_give_the_same_file(self, tmp_path: Path) -> None:
        camera = noise_camera(32, 16, 0)
        images = np.stack([camera(k) for k in range(10)])
        write_video(iter(images), tmp_path / "a.avi", (32, 16), 20)
        write_video([images[:7], images[7:]], tmp_path / "b.avi", (32, 16), 20)
        assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()
        np.testing.assert_array_equal(frames_of(tmp_path / "a.avi"), images)

    @pytest.mark.parametrize("bad", [np.zeros((16, 31), np.uint8), np.zeros((32, 16), np.uint8), np.zeros((16, 32))])
    def test_a_frame_of_another_shape_is_refused(self, tmp_path: Path, bad: np.ndarray) -> None:
        with pytest.raises(OptionError, match="expected uint8 frames"):
            write_video([bad], tmp_path / "a.avi", (32, 16), 20)
        assert left_in(tmp_path) == set()

    def test_odd_sizes_are_refused_not_cut(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="303x304"):
            dataset_to_video(ds.isel(x=slice(0, 303)), tmp_path / "a.avi")


class TestRate:
    def test_is_the_clocks_not_the_settings(self, make_card: Make, open_card: Open, tmp_path: Path) -> None:
        path, _ = make_card(frames=80, width=64, height=64, period_ms=51.2)
        ds = open_card(path)
        assert ds.attrs["fs"] == 20
        dataset_to_video(ds, tmp_path / "a.avi")
        assert rate_of(tmp_path / "a.avi") == pytest.approx(1000 / 51.2, abs=0.02)
        for codec, name in (("XVID", "b.avi"), ("mp4v", "b.mp4"), ("MJPG", "c.avi")):
            dataset_to_video(ds, tmp_path / name, codec=codec, force=True)
            assert rate_of(tmp_path / name) == pytest.approx(1000 / 51.2, abs=0.02)

    def test_lost_frames_do_not_slow_it(self, make_card: Make, open_card: Open) -> None:
        path, _ = make_card(frames=100, events=[Stall(1000, 2000)])
        ds = open_card(path)
        assert ds.sizes["frame"] < 90
        assert frame_rate(ds) == pytest.approx(20, rel=0.01)
        assert frame_rate(open_card(path, gaps="fill")) == pytest.approx(20, rel=0.01)

    def test_nominal_or_a_number_on_request(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", fps=30)
        assert rate_of(tmp_path / "a.avi") == 30
        assert frame_rate(ds, "nominal") == 20
        assert frame_rate(ds.isel(frame=[0])) == 20

    @pytest.mark.parametrize("fps", ["fast", 0, -1, "10"])
    def test_other_values_are_refused(self, ds: xr.Dataset, fps: Any) -> None:
        with pytest.raises(OptionError, match="fps="):
            frame_rate(ds, fps)

    def test_unknown_is_an_error_never_ten(self) -> None:
        ds = xr.Dataset({"video": (("frame", "y", "x"), np.zeros((3, 4, 4), np.uint8))})
        assert measured_rate(ds) is None
        with pytest.raises(OptionError, match="frame rate is not known"):
            frame_rate(ds)


class TestTimeStamps:
    def test_are_those_of_the_card(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi")
        rows = rows_of(tmp_path / "a_timeStamps.csv")
        assert list(rows[0]) == ["Frame Number", "Time Stamp (ms)", "Buffer Index", "DAQ Frame Number"]
        assert [int(r["Frame Number"]) for r in rows] == list(range(60))
        assert [int(r["Time Stamp (ms)"]) for r in rows] == ds["timestamp"].values.tolist()
        assert [int(r["Buffer Index"]) for r in rows] == ds["linked_list"].values.tolist()

    def test_lost_frames_show_in_the_device_number(self, make_card: Make, open_card: Open, tmp_path: Path) -> None:
        path, card = make_card(frames=50, events=[Stall(200, 900)])
        dataset_to_video(open_card(path), tmp_path / "a.avi")
        numbers = [int(r["DAQ Frame Number"]) for r in rows_of(tmp_path / "a_timeStamps.csv")]
        assert numbers == card.expected()[0].tolist()
        assert len(numbers) < numbers[-1] + 1

    def test_a_filled_gap_has_the_times_it_stands_for(self) -> None:
        blank = np.iinfo(np.int64).min
        times = np.array([blank, 100, 150, blank, blank, 300, blank], np.int64)
        assert filled_times(times, np.arange(7)).tolist() == [50, 100, 150, 200, 250, 300, 350]

    def test_say_which_frames_are_blank_or_partial(self, make_card: Make, open_card: Open, tmp_path: Path) -> None:
        path, _ = make_card(frames=50, events=[Stall(200, 900)])
        ds = open_card(path, gaps="fill")
        written = dataset_to_video(ds, tmp_path / "a.avi")
        rows = rows_of(tmp_path / "a_timeStamps.csv")
        present, complete = ds["buffers_present"].values, ds["complete"].values
        right = ["blank" if not p else "complete" if c else "partial" for p, c in zip(present, complete, strict=True)]
        assert [r["Frame Status"] for r in rows] == right
        assert {r["Buffer Index"] for r in rows if r["Frame Status"] == "blank"} == {"-1"}
        assert (written.blank, written.partial, written.lost) == (right.count("blank"), right.count("partial"), 0)
        assert written.blank > 0

    def test_have_a_name_of_their_own_beside_another_video(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", frames=slice(0, 4))
        dataset_to_video(ds, tmp_path / "a.mkv", frames=slice(0, 4))
        assert left_in(tmp_path) == {"a.avi", "a_timeStamps.csv", "a.mkv", "a_mkv_timeStamps.csv"}

    def test_can_be_left_out(self, ds: xr.Dataset, tmp_path: Path) -> None:
        dataset_to_video(ds, tmp_path / "a.avi", time_stamps=False, frames=slice(0, 2))
        assert left_in(tmp_path) == {"a.avi"}


class TestWholeOrNotThere:
    def test_an_existing_file_is_kept(self, ds: xr.Dataset, tmp_path: Path) -> None:
        (tmp_path / "a.avi").write_text("mine")
        with pytest.raises(OutputExistsError, match=r"a\.avi"):
            dataset_to_video(ds, tmp_path / "a.avi")
        assert (tmp_path / "a.avi").read_text() == "mine"
        dataset_to_video(ds, tmp_path / "a.avi", force=True)
        assert len(frames_of(tmp_path / "a.avi")) == 60

    def test_existing_time_stamps_are_kept(self, ds: xr.Dataset, tmp_path: Path) -> None:
        (tmp_path / "a_timeStamps.csv").write_text("mine")
        with pytest.raises(OutputExistsError, match="timeStamps"):
            dataset_to_video(ds, tmp_path / "a.avi")
        assert left_in(tmp_path) == {"a_timeStamps.csv"}

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("unplugged")])
    @pytest.mark.parametrize("codec", ["GREY", "FFV1"])
    def test_a_failure_leaves_nothing_and_keeps_the_old_file(
        self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any, codec: str
    ) -> None:
        from miniscope_xr.tools.stream.footage import Footage

        def batches(self: Footage, start: int = 0, stop_at: int | None = None) -> Iterator[np.ndarray]:
            yield np.zeros((1, self.height, self.width), np.uint8)
            raise stop

        (tmp_path / "a.avi").write_text("old")
        monkeypatch.setattr(Footage, "batches", batches)
        with pytest.raises(stop if isinstance(stop, type) else type(stop)):
            dataset_to_video(ds, tmp_path / "a.avi", codec=codec, force=True)
        assert (tmp_path / "a.avi").read_text() == "old"
        assert left_in(tmp_path) == {"a.avi"}
        assert not [t for t in threading.enumerate() if "read ahead" in t.name]

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="limits the file size as a full disk does")
    @pytest.mark.parametrize("codec", ["GREY", "FFV1"])
    def test_a_full_disk_is_an_error(self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path, codec: str) -> None:
        code = f"""
            import resource, signal, xarray as xr
            from miniscope_xr import MiniscopeError
            from miniscope_xr.tools.video.write import dataset_to_video
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
            ds = xr.open_dataset({str(clean_card[0])!r}, engine="miniscope")
            try:
                dataset_to_video(ds, {str(tmp_path / "a.avi")!r}, codec={codec!r})
            except MiniscopeError as error:
                print("refused:", error)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
        assert done.stdout.startswith("refused:"), done
        assert left_in(tmp_path) == set()

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
    @pytest.mark.parametrize("codec", ["GREY", "FFV1"])
    def test_an_interrupt_ends_it_soon_and_leaves_nothing(
        self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path, codec: str
    ) -> None:
        code = f"""
            import numpy as np, os, signal, threading, time, xarray as xr
            from miniscope_xr.tools.video.write import dataset_to_video
            with xr.open_dataset({str(clean_card[0])!r}, engine="miniscope") as ds:
                rows = np.resize(np.arange(60), 60_000)
                threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
                start = time.monotonic()
                try:
                    dataset_to_video(ds, {str(tmp_path / "a.avi")!r}, codec={codec!r}, frames=rows)
                except KeyboardInterrupt:
                    print("interrupted", time.monotonic() - start)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
        word, seconds = done.stdout.split()
        assert word == "interrupted"
        assert float(seconds) < 6
        assert left_in(tmp_path) == set()

    def test_a_folder_that_cannot_be_written(self, ds: xr.Dataset, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            dataset_to_video(ds, tmp_path / "file" / "a.avi")


class TestCommand:
    def test_says_frames_length_and_what_was_lost(
        self, make_card: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path, card = make_card(frames=50, events=[Stall(200, 900)])
        numbers = card.expected()[0]
        lost = int(numbers[-1]) + 1 - len(numbers)
        assert main(["video", str(path), str(tmp_path / "a.avi")]) == 0
        said = capsys.readouterr().out
        assert f"{len(numbers)} frames, {len(numbers) / 20:.1f} s at 20 frames/s; {lost} lost frames left out" in said
        assert "--gaps fill" in said
        assert main(["video", str(path), str(tmp_path / "b.avi"), "--gaps", "fill"]) == 0
        assert f"{lost} of them black" in capsys.readouterr().out

    def test_a_range_beyond_the_end_is_said(
        self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["video", str(clean_card[0]), str(tmp_path / "a.avi"), "--frames", "50:2000"]) == 0
        said = capsys.readouterr()
        assert "10 frames" in said.out
        assert said.err == "--frames 50:2000 goes beyond the recording, which has rows 0 to 59\n"


class TestWords:
    @pytest.mark.parametrize(
        ("codec", "name", "text"),
        [
            ("GREY", "a.mp4", "GREY does not go into .mp4; it goes into .avi, .mkv"),
            ("FFV1", "a.mp4", "FFV1 does not go into"),
            ("GREY", "a.tif", "ends in '.tif'"),
            ("GREY", "a", "no ending"),
            ("FV1", "a.avi", "did you mean 'FFV1'"),
        ],
    )
    def test_what_does_not_go_together_says_what_does(
        self, ds: xr.Dataset, tmp_path: Path, codec: str, name: str, text: str
    ) -> None:
        with pytest.raises(OptionError, match=text.replace(".", r"\.")):
            dataset_to_video(ds, tmp_path / name, codec=codec)
        assert left_in(tmp_path) == set()

    def test_a_codec_that_is_not_there_lists_those_that_are(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="does write GREY, FFV1, MJPG"):
            dataset_to_video(ds, tmp_path / "a.avi", codec="QQQQ")
        assert left_in(tmp_path) == set()

    @pytest.mark.parametrize("name", ["ffv1", "Mp4V", "grey"])
    def test_case_does_not_matter(self, ds: xr.Dataset, tmp_path: Path, name: str) -> None:
        path = tmp_path / ("a.mp4" if name == "Mp4V" else "a.avi")
        dataset_to_video(ds, path, codec=name, frames=slice(0, 4))
        assert len(frames_of(path)) == 4

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (ModuleNotFoundError("No module named 'cv2'", name="cv2"), r"miniscope-xr\[video\]"),
            (ImportError("libGL.so.1: cannot open shared object file"), "libGL.so.1.*libgl1"),
        ],
    )
    def test_no_opencv_says_what_to_install(
        self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ImportError, text: str
    ) -> None:
        real = builtins.__import__

        def no_cv2(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "cv2":
                raise error
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", no_cv2)
        with pytest.raises(MissingDependencyError, match=text):
            dataset_to_video(ds, tmp_path / "a.avi")
        assert left_in(tmp_path) == set()

    def test_pixels_of_another_kind_are_refused(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(MiniscopeError, match="float64"):
            dataset_to_video(ds.assign(video=ds["video"] / 2.0), tmp_path / "a.avi")
        with pytest.raises(MiniscopeError, match="no variable 'video'"):
            dataset_to_video(ds.drop_vars("video"), tmp_path / "a.avi")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
@pytest.mark.parametrize("name", [b"g\xfcnther.avi", b"g\xfcnther/a.avi"])
def test_a_name_that_opencv_crashes_on_is_refused(name: bytes, make_card: Any, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    with (
        xr.open_dataset(make_card(frames=5)[0], engine="miniscope") as ds,
        pytest.raises(OutputError, match="not UTF-8"),
    ):
        ds.miniscope.to_video(path)
    assert not list(path.parent.glob("*.avi*"))
