"""Lights in simulated behaviour videos: an animal walks, reflections waver, the codec loses detail; or no light."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("cv2", reason="needs an importable OpenCV", exc_type=ImportError)

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.clock import filmed
from miniscope_xr.tools.clock.align import align
from miniscope_xr.tools.clock.card_clock import CardClock
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.export.aligned import camera_of
from miniscope_xr.tools.simulate import simulate
from tests.clock.behaviour import Behaviour, share
from tests.clock.test_clock import recording

pytestmark = pytest.mark.slow

FPS, FRAMES = 30, 480
TIMES = np.arange(FRAMES) / FPS
ON, OFF = 3.213, 13.213
LENGTH = 200  # frames of 50 ms: 10 s


def video(folder: Path, spans: Any = ((ON, OFF),), codec: str = "MJPG", **how: Any) -> Path:
    film = Behaviour(share(TIMES, 1 / FPS, *spans), FRAMES, **how)
    return film.write(folder / ("film.mp4" if codec == "mp4v" else "film.avi"), FPS, codec)


def off_by(ds: xr.Dataset) -> np.ndarray:
    """How far start and end of the recording are from when the light went on and off, in s."""
    return np.array([float(ds.clock_pair_other[0]) - ON, float(ds.clock_pair_other[1]) - OFF])


@pytest.mark.parametrize(
    "how",
    [
        {}, {"strength": 45, "seed": 1}, {"where": None, "seed": 2}, {"camera_noise": 5, "seed": 3},
        {"codec": "mp4v", "seed": 4},
    ],
    ids=["in a corner", "weak", "on the animal's head", "noise", "mp4"],
)  # fmt: skip
def test_the_status_led_is_found(how: dict[str, Any], tmp_path: Path) -> None:
    ds = align(recording(LENGTH), video=video(tmp_path, **how), progress=False)
    moves = "where" in how  # a light that moves is seen a frame early or late
    assert np.abs(off_by(ds)).max() <= (2 if moves else 1) / FPS
    truth = ON + (recording(LENGTH).time.values.astype(float) - 40 + 50) / 1000
    assert np.abs(ds.clock_time.values - truth).max() < 0.05
    assert (np.abs(ds.clock_time.values - truth) <= ds.clock_error.values).all()


def blinking(delay: int) -> list[tuple[float, float]]:
    """What the v4's LED does while it waits, and then records: it goes on or off every second."""
    edges = [ON - delay + k for k in range(delay)]
    spans = list(zip(edges[::2], [*edges[1::2], OFF], strict=False))
    return spans if delay % 2 else [*spans[: delay // 2], (ON, OFF)]


@pytest.mark.parametrize("delay", [1, 2, 3, 9])
def test_the_led_blinks_while_the_recording_waits(delay: int, tmp_path: Path) -> None:
    """After an odd number of seconds it is on one second before the recording is."""
    film = video(tmp_path, blinking(delay), seed=5)
    ds = align(recording(LENGTH).assign_attrs(delay_start=delay), video=film, progress=False)
    early = delay % 2
    assert (f"on 1 s before the recording (delay_start={delay})" in ds.attrs["clock_source"]) == bool(early)
    assert np.abs(off_by(ds) + np.array([early, 0])).max() <= 1 / FPS
    truth = ON + (recording(LENGTH).time.values.astype(float) - 40 + 50) / 1000
    assert (np.abs(ds.clock_time.values - truth) <= ds.clock_error.values).all()


def test_a_firmware_that_does_not_wait_lights_its_led_when_it_records(tmp_path: Path) -> None:
    ds = align(recording(LENGTH).assign_attrs(delay_start=7), video=video(tmp_path), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS
    assert "before the recording" not in ds.attrs["clock_source"]


def test_the_led_blinks_when_the_recording_is_over(tmp_path: Path) -> None:
    """Miniscope-zero turns it off and on twenty times in four seconds when the time is up."""
    blinks = [(OFF + 0.2 + 0.4 * k, OFF + 0.4 + 0.4 * k) for k in range(10)]
    ds = align(recording(LENGTH), video=video(tmp_path, [(ON, OFF), *blinks]), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_a_light_that_went_on_between_the_two_is_not_guessed_at() -> None:
    hour = CardClock(np.arange(72_000) / 20 + 0.05, 0.05, delay=3)
    assert filmed._went_on_early(3600.9, hour, 1.0) == 1
    assert filmed._went_on_early(3600.2, hour, 1.0) == 0
    with pytest.raises(ClockError, match=r"delay_start=3.*cannot be told"):
        filmed._went_on_early(3600.55, hour, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_light_nothing_is_found(seed: int, tmp_path: Path) -> None:
    with pytest.raises(ClockError, match="no light was found"):
        align(recording(LENGTH), video=video(tmp_path, spans=(), seed=seed), progress=False)


def test_a_light_of_another_length_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ClockError, match=r"nothing is on for 10\.0 s"):
        align(recording(LENGTH), video=video(tmp_path, spans=((2, 6),)), progress=False)


ROOM = {
    "turned up": 1 + 0.5 * (TIMES > 8),
    "up for as long as the recording": 1 + 0.6 * ((TIMES >= 1) & (TIMES < 11)),
    "the camera's exposure goes down with it": 1 - 0.15 * share(TIMES, 1 / FPS, (ON, OFF)),
}


@pytest.mark.parametrize("room", ROOM)
def test_the_room_s_light_is_not_the_led(room: str, tmp_path: Path) -> None:
    ds = align(recording(LENGTH), video=video(tmp_path, room=ROOM[room]), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_the_room_s_light_alone_is_no_light(tmp_path: Path) -> None:
    for room in (ROOM["up for as long as the recording"], np.where(TIMES < 6, 0.1, 1)):
        with pytest.raises(ClockError, match="no light was found"):
            align(recording(LENGTH), video=video(tmp_path, spans=(), room=room), progress=False)


@pytest.mark.parametrize("channel", [0, 2], ids=["blue", "red"])
def test_a_coloured_led(channel: int, tmp_path: Path) -> None:
    ds = align(recording(LENGTH), video=video(tmp_path, channel=channel), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_glare_around_it(tmp_path: Path) -> None:
    """Saturated, and seen in the blocks beside it."""
    ds = align(recording(LENGTH), video=video(tmp_path, strength=800, radius=4), progress=False)
    assert np.abs(off_by(ds)).max() <= 1.5 / FPS


@pytest.mark.parametrize("spans", [((-1, OFF),), ((ON, 99),)], ids=["on before the video", "never off"])
def test_a_light_of_which_one_end_is_not_seen_is_not_taken(spans: Any, tmp_path: Path) -> None:
    with pytest.raises(ClockError, match="no light was found"):
        align(recording(LENGTH), video=video(tmp_path, spans=spans), progress=False)


@pytest.mark.parametrize(
    ("frames", "said"), [(4, "4 frames are too few"), (40, r"1\.3 s long and the recording 10\.0 s"), (0, "film.avi")]
)
def test_a_video_shorter_than_the_recording_says_so(frames: int, said: str, tmp_path: Path) -> None:
    film = Behaviour(share(TIMES, 1 / FPS, (ON, OFF)), frames).write(tmp_path / "film.avi", FPS)
    with pytest.raises(OptionError, match=said):
        align(recording(LENGTH), video=film, progress=False)


@pytest.mark.parametrize("strength", [0.4, 2.5])
def test_another_light_on_for_as_long_is_not_guessed_at(strength: float, tmp_path: Path) -> None:
    """Another animal's scope, begun by the same remote for as long, nearer to the camera or further away."""
    second = strength * share(TIMES, 1 / FPS, (1.5, 11.5))
    with pytest.raises(ClockError, match="two lights in the video"):
        align(recording(LENGTH), video=video(tmp_path, second=second), progress=False)


def test_other_lights_do_not_matter(tmp_path: Path) -> None:
    for second in (np.arange(FRAMES) % 7 < 3, np.arange(FRAMES) < 4):
        ds = align(recording(LENGTH), video=video(tmp_path, second=second), progress=False)
        assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_two_lights_are_told_apart_by_their_region(tmp_path: Path) -> None:
    film = video(tmp_path, second=share(TIMES, 1 / FPS, (1.5, 11.5)))
    with pytest.raises(ClockError, match="give the region"):
        align(recording(LENGTH), video=film, progress=False)
    ds = align(recording(LENGTH), video=film, region=(244, 34, 12, 12), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_a_reflection_that_goes_along_is_no_second_light(tmp_path: Path) -> None:
    ds = align(recording(LENGTH), video=video(tmp_path, second=share(TIMES, 1 / FPS, (ON, OFF))), progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_flashes_are_matched_to_the_card_s_by_their_intervals(tmp_path: Path) -> None:
    card = np.cumsum([0.9, 1.3, 0.7, 1.9, 1.1, 2.2, 0.8, 1.6])
    spans = [(2 + t, 2.2 + t) for t in card]
    ds = align(recording(LENGTH), video=video(tmp_path, spans=spans), card=card[1:], progress=False)
    assert ds.attrs["clock_pairs"] == 7
    np.testing.assert_allclose(ds.clock_pair_other - ds.clock_pair_card, 2, atol=1 / FPS)
    assert ds.attrs["clock_error"] >= 0.5 / FPS  # what a video's frames leave open


CARD = np.cumsum([0.5, 0.9, 0.7, 1.1, 0.6, 1.3, 0.8, 1.0])
FLASHES = [(2 + t, 2.2 + t) for t in CARD]


def test_of_several_flashing_lights_the_card_s_is_taken(tmp_path: Path) -> None:
    """The brighter one blinks by itself."""
    film = video(tmp_path, spans=FLASHES, second=1.5 * (np.arange(FRAMES) % 20 < 10))
    ds = align(recording(LENGTH), video=film, card=CARD, progress=False)
    assert "x 240, y 32" in ds.attrs["clock_source"]
    np.testing.assert_allclose(ds.clock_pair_other - ds.clock_pair_card, 2, atol=1 / FPS)
    film = video(tmp_path, spans=FLASHES, second=share(TIMES, 1 / FPS, *((a + 1, b + 1) for a, b in FLASHES)))
    with pytest.raises(ClockError, match="two lights"):  # both do as the card says
        align(recording(LENGTH), video=film, card=CARD, progress=False)


def test_missing_flashes_do_no_harm_and_doubled_ones_are_not_guessed_at(tmp_path: Path) -> None:
    few = [span for k, span in enumerate(FLASHES) if k not in (2, 5)]
    ds = align(recording(LENGTH), video=video(tmp_path, spans=few), card=CARD, progress=False)
    assert ds.attrs["clock_pairs"] == 6
    np.testing.assert_allclose(ds.clock_pair_other - ds.clock_pair_card, 2, atol=1 / FPS)
    twice = [(a + late, a + late + 0.1) for a, _ in FLASHES for late in (0, 0.2)]
    with pytest.raises(ClockError, match=r"fit twice, 0\.20 s apart"):
        align(recording(LENGTH), video=video(tmp_path, spans=twice), card=CARD, progress=False)


def test_a_camera_s_folder_gives_dates(tmp_path: Path) -> None:
    """As Miniscope-DAQ writes it: numbered videos, their times beside them, the start of the session above."""
    folder = tmp_path / "BehavCam"
    folder.mkdir()
    film = Behaviour(share(TIMES, 1 / FPS, (ON, OFF)), FRAMES)
    halves = [Behaviour(film.lit[at : at + 240], 240) for at in (0, 240)]
    halves[1].path = film.path[240:]
    halves[0].path = film.path[:240]
    for k, half in enumerate(halves):
        half.write(folder / f"{k}.avi", FPS)
    rows = "".join(f"{k},{1000 * t:.0f},0\n" for k, t in enumerate(TIMES))
    (folder / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n" + rows)
    (tmp_path / "metaData.json").write_text(json.dumps({"recordingStartTime": {"msecSinceEpoch": 1_700_000_000_000}}))
    ds = align(recording(LENGTH), video=folder, progress=False)
    assert abs(ds.wall_time.values[0] - np.datetime64(1_700_000_000_000 + int(1000 * ON) + 50, "ms")) < np.timedelta64(
        40, "ms"
    )
    assert "timeStamps.csv" in ds.attrs["clock_source"]


@pytest.mark.parametrize("more", [3, 45])
def test_times_without_a_frame_widen_the_error_or_are_refused(more: int, tmp_path: Path) -> None:
    film = video(tmp_path)
    rows = "".join(f"{k},{round(1000 * k / FPS)},0\n" for k in range(FRAMES + more))
    (tmp_path / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n" + rows)
    if more > FPS:
        with pytest.raises(ClockError, match=r"480 frames, and timeStamps.csv has 525 times: 1\.5 s .* missing"):
            align(recording(LENGTH), video=film, progress=False)
        return
    ds = align(recording(LENGTH), video=film, progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS
    assert ds.attrs["clock_error"] >= more / FPS


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_video_whose_rate_is_not_even_has_the_times_of_its_file(tmp_path: Path) -> None:
    """As a phone films: here it takes half as many frames a second from the sixth second on."""
    film = Behaviour(share(np.where(np.arange(FRAMES) < 180, TIMES, 6 + (TIMES - 6) * 2), 1 / FPS, (ON, OFF)), FRAMES)
    even = film.write(tmp_path / "even.avi", FPS, "MJPG")
    uneven = "setpts='if(lt(N,180),N/30,6+(N-180)/15)/TB'"
    words = ["ffmpeg", "-v", "error", "-i", even, "-vf", uneven, "-vsync", "vfr", "-c:v", "mjpeg", "-q:v", "2"]
    subprocess.run([*map(str, words), str(tmp_path / "film.mkv")], check=True)
    ds = align(recording(LENGTH), video=tmp_path / "film.mkv", progress=False)
    assert "the times that the video's file gives its frames" in ds.attrs["clock_source"]
    assert np.abs(off_by(ds)).max() <= 2 / FPS  # a frame of the second part
    camera = camera_of(ds, tmp_path / "film.mkv")
    assert camera is not None
    np.testing.assert_allclose(
        camera.seconds, np.where(TIMES < 6, TIMES, 6 + (TIMES - 6) * 2), atol=0.04
    )  # ffmpeg rounds


def test_a_video_in_several_parts_is_one(tmp_path: Path) -> None:
    """Numbered as Miniscope-DAQ does, ten of them, so that 10 comes behind 9."""
    film = Behaviour(share(TIMES, 1 / FPS, (ON, OFF)), FRAMES)
    folder = tmp_path / "BehavCam"
    folder.mkdir()
    for part in range(12):
        film.write(folder / f"{part}.avi", FPS, "MJPG", range(40 * part, 40 * part + 40))
    ds = align(recording(LENGTH), video=folder, progress=False)
    assert np.abs(off_by(ds)).max() <= 1 / FPS


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.avi").write_bytes(b"no video")
    for name in ("film.avi", "missing.avi"):
        with pytest.raises(OptionError):
            align(recording(LENGTH), video=tmp_path / name, progress=False)
    with pytest.raises(OptionError, match="320 px wide and 240 px high"):
        align(recording(LENGTH), video=video(tmp_path / ".."), region=(315, 0, 20, 20), progress=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = simulate(frames=LENGTH).write(tmp_path / "card.img")
    outs = [str(tmp_path / name) for name in ("clock.json", "times.csv", "off.png")]
    words = ["align", str(card), *outs, "--video", str(video(tmp_path)), "--start", "2026-03-14T15:00:00+00:00"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("Status LED in the video at x 240, y 32")
    assert "2 of 2 pairs fit" in said
    table = (tmp_path / "times.csv").read_text().splitlines()
    assert table[0] == "Frame Number,Time Stamp (ms),Clock Time (s),Clock Error (s),Wall Time (UTC)"
    assert table[1].split(",")[4].startswith("2026-03-14T15:00:03.2")
    assert len(table) == LENGTH + 1
    assert (tmp_path / "off.png").stat().st_size > 5000
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["align", str(card), "--start", "2026-03-14T15:00:00"]) == 0
    assert "drift is not" in capsys.readouterr().out
    assert main(["align", str(card), str(tmp_path / "x.doc"), "--start", "2026"]) == 2
