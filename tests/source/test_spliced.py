"""An image with zeros put in reads as one that had them from the start, whichever way it is read."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from miniscope_xr.source.open import open_device
from miniscope_xr.source.owned import OwnedSource
from miniscope_xr.source.spliced import Spliced, open_spliced

DATA = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8).tobytes()
SPLICES = ((700, 24), (5000, 700), (5001, 3))
WHOLE = DATA[:700] + bytes(24) + DATA[700:5000] + bytes(700) + DATA[5000:5001] + bytes(3) + DATA[5001:]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "card.img"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("offset", [0, 690, 710, 724, 5000, 5724, 5727, 10_720, 20_000])
@pytest.mark.parametrize("length", [0, 1, 40, 6000, 20_000])
def test_every_stretch_of_it(path: Path, offset: int, length: int) -> None:
    source = Spliced(open_device(path), SPLICES)
    assert source.size == len(WHOLE)
    assert source.read(offset, length) == WHOLE[offset : offset + length]
    assert source.salvage(offset, length) == (WHOLE[offset : offset + length], [])
    buffers = [bytearray(length // 2), bytearray(length - length // 2)]
    got = source.readv(offset, buffers)
    assert b"".join(buffers)[:got] == WHOLE[offset : offset + length]
    source.close()


def test_many_places_at_once(path: Path) -> None:
    source = Spliced(open_device(path), SPLICES)
    inside = [0, 800, 6000]
    assert source.gather(inside, 50) == b"".join(WHOLE[at : at + 50] for at in inside)
    assert source.gather([690], 50) is None  # over a seam: one by one
    source.close()


def test_it_reopens_where_it_is_unpickled(path: Path) -> None:
    owned = OwnedSource(str(path), partial(open_spliced, splices=SPLICES))
    again = pickle.loads(pickle.dumps(owned))
    assert again.read(600, 6000) == WHOLE[600:6600]
    owned.close()
    again.close()
