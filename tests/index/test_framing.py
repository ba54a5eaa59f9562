"""How buffers are framed: a header in front of the data (v4, DAQ), a footer over their last bytes (v3)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import HeaderReader, read_rows
from miniscope_xr.index.runs import Cut, Header, Run, ended_at, expected_headers, odd_buffer
from miniscope_xr.layout import SECTOR, lengths_of, load_layout
from miniscope_xr.source.local import Device
from miniscope_xr.tools.simulate import simulate


def framed(layout: str) -> Framing:
    family = load_layout(layout)
    build = family.builds[0]
    return Framing(family.of(build), build.header_words, build.payload if family.buffer else 0)


def header(frame: int = 0, index: int = 0, count: int = 0) -> Header:
    return Header(11, 0, frame, count, index, count, 0, 0, 100, 0, 0, 0)


def test_a_header_stands_in_front_of_its_data(make_card: Any) -> None:
    path, card = make_card(frames=6)
    framing = framed("v4-wirefree")
    with Device(path) as device:
        reader = HeaderReader(device, framing)
        first = card.buffers[0]
        start = reader.at(first.sector)
        assert start is not None
        cut = framing.cut(tuple(b.length for b in card.buffers if b.frame_num == first.frame_num))
        run = Run(first.sector, len(card.buffers), start, cut)
        i = np.arange(len(card.buffers))
        places = framing.places(run, i)
        assert places.tolist() == [b.sector * SECTOR for b in card.buffers]
        rows = read_rows(device, framing.dtype, places)
        assert framing.vouched(rows, run, i).all()
        assert not framing.vouched(rows, run, i + 1).any()  # each of the buffer before the one that is asked for
        data = device.read(int(places[1]), SECTOR)
        own = framing.header_in(data, card.buffers[1].length)
        assert own is not None
        assert framing.length_in(own, -1) == card.buffers[1].length
        assert framing.header_in(data[: framing.head - 1], card.buffers[1].length) is None


def test_a_footer_lies_over_the_last_sizeof_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "v3.img"
    card = simulate("v3-wirefree", frames=5)
    card.write(path)
    framing = framed("v3-wirefree")
    size = framing.layout.builds[0].frame_sectors * SECTOR
    run = Run(framing.layout.sectors.data, 5, header(), framing.cut((size,)))
    i = np.arange(5)
    assert framing.places(run, i).tolist() == [run.sector * SECTOR + (k + 1) * size - 16 for k in range(5)]
    with Device(path) as device:
        rows = read_rows(device, framing.dtype, framing.places(run, i))
        frame = device.read(run.sector_of(3) * SECTOR, size)
    assert framing.vouched(rows, run, i).all()
    assert framing.vouched(rows[::-1], run, i).tolist() == [False, False, True, False, False]
    footer = framing.header_in(frame, size)
    assert footer is not None
    assert int(footer["frame_num"][0]) == 3
    assert framing.header_in(frame[:-1], size) is None  # the image ends within the frame
    assert framing.length_in(footer, size) == size
    assert not framing.odd_lengths(rows.reshape(-1, 1), run).any()


def test_a_header_that_promises_more_than_a_buffer_holds_vouches_for_nothing() -> None:
    framing = framed("v4-wirefree")
    rows = np.zeros(2, framing.dtype)
    rows["length"], rows["data_length"] = framing.marker, (framing.payload, framing.payload + 1)
    assert framing.vouch(rows, {}).tolist() == [True, False]


@pytest.mark.parametrize(("size", "payload", "lengths"), [(10, 4, (4, 4, 2)), (8, 4, (4, 4)), (3, 4, (3,)), (0, 4, ())])
def test_a_frame_is_cut_into_full_buffers_and_a_rest(size: int, payload: int, lengths: tuple[int, ...]) -> None:
    assert lengths_of(size, payload) == lengths


def test_an_odd_buffer_is_a_run_with_a_cut_of_its_own() -> None:
    usual = Cut((2000, 2000, 500), 44)
    assert (usual.sectors, usual.starts, usual.frame_sectors) == ((4, 4, 2), (0, 4, 8), 10)
    lapped = odd_buffer(1000, header(frame=7, index=2, count=23), usual, 500, sectors=4)
    assert (lapped.odd, lapped.count, lapped.end_sector) == (True, 1, 1004)
    assert (lapped.frame_of(0), lapped.index_of(0), lapped.sector_of(0), lapped.length_of(0)) == (7, 2, 1000, 500)
    i = np.arange(1)
    assert lapped.sectors_of(i).tolist() == [1000]
    expected = expected_headers(lapped, i)
    assert (expected["frame_num"].tolist(), expected["frame_buffer_count"].tolist()) == ([7], [2])
    assert odd_buffer(1000, header(index=2), usual, 500).sector_count(0) == 2  # what its length needs


def test_a_run_that_begins_within_a_frame() -> None:
    run = Run(1008, 5, header(frame=7, index=2, count=23), Cut((2000, 2000, 500), 44))
    assert [(run.frame_of(i), run.index_of(i), run.sector_of(i)) for i in range(5)] == [
        (7, 2, 1008), (8, 0, 1010), (8, 1, 1014), (8, 2, 1018), (9, 0, 1020),
    ]  # fmt: skip
    assert run.sectors_of(np.arange(5)).tolist() == [run.sector_of(i) for i in range(5)]
    assert not run.odd
    ended = ended_at([run], 1026, run.first._replace(frame=9, index=0))
    assert [(r.sector, r.count, r.odd) for r in ended] == [(1008, 4, False), (1020, 1, True)]
    assert ended[-1].end_sector == 1026
    assert replace(run, count=4).end_sector == 1020
