"""From the address of a card and what is asked of it to a Dataset, or to all that the card holds."""

from __future__ import annotations

from typing import Any

import xarray as xr

from miniscope_xr.card import OpenCard
from miniscope_xr.engine.dataset import buffers_dataset, card_dataset, open_card, recording_dataset
from miniscope_xr.engine.options import Options
from miniscope_xr.index.detect import detect
from miniscope_xr.source.local import Device
from miniscope_xr.source.open import address


def is_card(path: Any) -> bool:
    """Whether this is a card with a recording in a layout we know; cheap, False on any error."""
    try:
        with Device(address(path)) as device:
            detect(device)
    except Exception:
        return False
    return True


def open_one(path: Any, asked: Options) -> xr.Dataset:
    """Open one recording of a card, or its buffer table."""
    number, table = asked.wanted
    card = open_card(path, asked)
    try:
        recording = card.recording(number)
        ds = (buffers_dataset if table else recording_dataset)(card, recording, asked)
    except BaseException:
        card.close()
        raise
    return _closing(card, ds)


def open_all(path: Any, asked: Options) -> dict[str, xr.Dataset]:
    """Open every node of a card: ``/``, ``/recording_0``, ``/recording_0/buffers`` and so on."""
    card = open_card(path, asked)
    try:
        groups = {"/": card_dataset(card)}
        for recording in card.index.recordings:
            groups[f"/recording_{recording.number}"] = recording_dataset(card, recording, asked)
            groups[f"/recording_{recording.number}/buffers"] = buffers_dataset(card, recording, asked)
    except BaseException:
        card.close()
        raise
    return {node: _closing(card, ds) for node, ds in groups.items()}


def _closing(card: OpenCard, ds: xr.Dataset) -> xr.Dataset:
    """Let closing a Dataset close its card (the very last step, or the descriptor leaks)."""
    ds.set_close(card.close)
    return ds
