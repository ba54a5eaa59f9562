"""The cursor API: the calling habits of miniscope-io, without its defects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr import MiniscopeError, SDCard
from miniscope_xr.errors import EndOfRecordingError, NotOpenError, OptionError, OutputExistsError
from miniscope_xr.tools.simulate import SimulatedCard, Stall

Clean = tuple[Path, SimulatedCard]


def test_twenty_frames_in_a_row(clean_card: Clean) -> None:
    path, made = clean_card
    card = SDCard(path, layout="wirefree-sd-layout")
    with pytest.raises(RuntimeError, match="with SDCard"):
        card.read()
    assert card.frame is None
    with card:
        for i in range(20):
            assert card.frame == i
            frame = card.read()
            assert frame.shape == (card.config.height, card.config.width)
            np.testing.assert_array_equal(frame, made.expected()[1][i])
            assert len(card.positions) == i + 2
    assert card.frame is None
    with pytest.raises(NotOpenError):
        card.read()
    assert len(card.positions) == 21


def test_keeping_one_frame_keeps_no_other(clean_card: Clean) -> None:
    with SDCard(clean_card[0]) as card:
        for image in (card.read() for _ in range(5)):
            assert image.base is not None
            assert image.base.nbytes < 2 * image.nbytes


def test_headers_come_with_a_frame_when_asked_for(clean_card: Clean) -> None:
    path, made = clean_card
    with SDCard(path) as card:
        found = card.read(return_header=True)
    assert found.frame_num == 0
    assert len(found.headers) == 5
    words = [b.words for b in made.buffers[:5]]
    assert [h.timestamp for h in found.headers] == [w[7] for w in words]
    assert [h.battery_voltage for h in found.headers] == [w[10] for w in words]
    assert [h.frame_buffer_count for h in found.headers] == [0, 1, 2, 3, 4]


def test_fields_the_header_is_too_short_for_are_none(make_card: Any) -> None:
    path, _ = make_card(build="f70f880", frames=4)
    with SDCard(path) as card:
        header = card.read(return_header=True).headers[0]
    assert header.ewl is None
    assert header.battery_voltage is None
    assert header.write_timestamp is not None


def test_the_last_frame_counts_and_the_end_is_a_stop_iteration(clean_card: Clean) -> None:
    path, made = clean_card
    card = SDCard(path)
    assert card.frame_count == 60
    with card:
        card.frame = 59
        np.testing.assert_array_equal(card.read(), made.expected()[1][59])
        with pytest.raises(StopIteration):
            card.read()
        with pytest.raises(EndOfRecordingError):
            card.skip()
        card.frame = 61
        with pytest.raises(EndOfRecordingError, match="frame 61 is behind the last frame"):
            card.read()
        with pytest.raises(OptionError):
            card.frame = -1


def test_seeking_is_arithmetic(clean_card: Clean) -> None:
    path, made = clean_card
    video = made.expected()[1]
    with SDCard(path) as card:
        for k in (40, 3, 59, 0):
            card.frame = k
            assert card.position == card.positions[k] == (1024 + 181 * k) * 512
            np.testing.assert_array_equal(card.read(), video[k])
        card.frame = 10
        card.skip()
        assert card.frame == 11
        np.testing.assert_array_equal(card.read(), video[11])
    assert card.position is None


def test_every_read_returns_its_own_array(clean_card: Clean) -> None:
    with SDCard(clean_card[0]) as card:
        first = card.read()
        kept = first.copy()
        second = card.read()
        second[:] = 0
        np.testing.assert_array_equal(first, kept)
        assert not np.shares_memory(first, second)


def test_drops_leave_pixels_in_place(make_card: Any) -> None:
    path, made = make_card(frames=40, events=[Stall(500, 400)])
    frame_num, video, _ = made.expected()
    with SDCard(path) as card:
        assert card.frame_count == len(frame_num)
        for k, wanted in zip(frame_num, video, strict=True):
            found = card.read(return_header=True)
            assert found.frame_num == k
            np.testing.assert_array_equal(found.frame, wanted)


def test_frames_of_a_non_square_card_are_not_scrambled(make_card: Any) -> None:
    path, made = make_card("daq-wirefree", "HEAD 640x560", frames=5)
    with SDCard(path) as card:
        assert (card.config.width, card.config.height) == (640, 560)
        np.testing.assert_array_equal(card.read(), made.expected()[1][0])


def test_iteration_goes_on_from_the_cursor(clean_card: Clean) -> None:
    with SDCard(clean_card[0]) as card:
        card.frame = 55
        assert sum(1 for _ in card) == 5


def test_relative_and_absolute_paths_stay_what_they_are(clean_card: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clean_card[0]
    monkeypatch.chdir(path.parent)
    card = SDCard(Path(path.name), layout="wirefree-sd-layout")
    assert card.config.width == 304
    assert not card.drive.is_absolute()
    assert SDCard(path).drive.is_absolute()


def test_the_config_is_readable_outside_the_context(clean_card: Clean) -> None:
    config = SDCard(clean_card[0]).config
    assert (config.width, config.height, config.fs, config.buffer_size) == (304, 304, 20, 20480)
    assert config.n_buffers_recorded == 300
    assert config.n_buffers_dropped == 0


@pytest.mark.parametrize("keys", [True, False])
def test_write_keys_are_reported_not_required(keys: bool, make_card: Any) -> None:
    path, _ = make_card(frames=3, write_keys=keys)
    card = SDCard(path)
    assert card.check_valid() is keys
    with card:
        assert card.read().any()


def test_entering_twice_is_refused(clean_card: Clean) -> None:
    card = SDCard(clean_card[0])
    with card, pytest.raises(RuntimeError, match="open already"):
        card.__enter__()


def test_to_img_ends_with_the_frames_asked_for(clean_card: Clean, tmp_path: Path) -> None:
    path, made = clean_card
    out = tmp_path / "short.img"
    card = SDCard(path)
    card.to_img(out, 50)
    with SDCard(out) as short:
        assert short.frame_count == 50
        np.testing.assert_array_equal(np.stack(list(short)), made.expected()[1][:50])
    before = out.stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="force=True") as error:
        card.to_img(out, 50)
    assert isinstance(error.value, OutputExistsError)
    assert isinstance(error.value, MiniscopeError)
    assert out.stat().st_mtime_ns == before
    card.to_img(out, force=True)
    assert out.stat().st_size == made.end_sector() * 512
    with SDCard(out) as whole:
        np.testing.assert_array_equal(np.stack(list(whole)), made.expected()[1])
    assert [p.name for p in tmp_path.iterdir()] == ["short.img"]


def test_to_img_keeps_the_cursor(clean_card: Clean, tmp_path: Path) -> None:
    with SDCard(clean_card[0]) as card:
        card.frame = 7
        card.to_img(tmp_path / "out.img", 3)
        assert card.frame == 7
        assert card.read().any()


def test_to_video_is_exact_and_kept(clean_card: Clean, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs an importable OpenCV", exc_type=ImportError)
    path, made = clean_card
    out = tmp_path / "out.avi"
    card = SDCard(path)
    card.to_video(out, fourcc="GREY", progress=False)
    reader = cv2.VideoCapture(str(out))
    reader.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    frames = []
    while (got := reader.read())[0]:
        frames.append(got[1].reshape(-1)[: 304 * 304].reshape(304, 304))
    reader.release()
    np.testing.assert_array_equal(np.stack(frames), made.expected()[1])
    with pytest.raises(FileExistsError):
        card.to_video(out)
    card.to_video(out, force=True, progress=False)


def test_positions_take_no_room_for_frames_read_one_after_another(clean_card: Any) -> None:
    path, _ = clean_card
    with SDCard(path) as card:
        for frame in (*range(10), 40, 39, 12, 11, 10, 41):
            card.frame = frame
        assert list(card.positions) == [*range(13), 39, 40, 41]
        assert len(card.positions) == 16
        assert card.positions._stretches == [(0, 13), (39, 42)]
        assert card.positions[11] == card._f.frames.position(11)
        with pytest.raises(KeyError):
            card.positions[20]


def test_outputs_outside_the_with_block_leave_nothing_open(clean_card: Any, tmp_path: Any) -> None:
    card = SDCard(clean_card[0])
    card.to_img(tmp_path / "a.img", progress=False)
    assert "closed" in repr(card._open().card._source)
