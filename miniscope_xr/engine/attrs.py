"""Attributes of datasets: flat, so that every file format takes them, and in words where a number is a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.frames.rate import clock_step
from miniscope_xr.layout import Field
from miniscope_xr.layout.arrays import Ints


def flat(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes every file format takes: no None, no bool, no empty list."""
    return {k: v for k, v in attrs.items() if v is not None and v != []}


def _settings(card: OpenCard) -> dict[str, Any]:
    """Every setting as on the card; ``gain_meaning`` says what the code in ``gain`` stands for, and so on."""
    fields = card.layout.header
    said: dict[str, Any] = {}
    for name, value in card.index.settings.items():
        said[name] = int(value)
        item = fields.get(name)
        meaning = item.means(int(value)) if item is not None and item.choices else str(value)
        if meaning != str(value):
            said[f"{name}_meaning"] = meaning
    return said


def _fps(opened: OpenRecording) -> float | int:
    """Nominal frames per second; where a card does not say, its clock does."""
    card = opened.card.index
    if card.config is not None and "fs" in card.config:
        return int(card.config["fs"])

    def look(rows: Ints) -> Any:
        return opened.times(rows), opened.frames.frame_num(rows)

    step = clock_step(opened.frames.count, look)
    return 0 if step is None else round(1000 / step, 2)


def _unread(opened: OpenRecording) -> list[str]:
    sectors = opened.card.unread_in(opened.recording)
    said = f"{sectors} sectors of this recording could not be read when the card was copied, as the map beside the copy"
    return [f"{said} says: the buffers they belong to count as missing"] if sectors else []


def recording_attrs(opened: OpenRecording) -> dict[str, Any]:
    """Flat attributes of one recording."""
    recording, card = opened.recording, opened.card.index
    return flat({
        **_settings(opened.card),
        "layout": card.layout.id,
        "fs": _fps(opened),
        "width": recording.width,
        "height": recording.height,
        "buffer_size": None if card.config is None else int(card.config["buffer_size"]),
        "recording": recording.number,
        "n_buffers_recorded": recording.n_recorded,
        "n_buffers_dropped": recording.n_dropped,
        "n_buffers_found": recording.n_buffers,
        "status": recording.status,
        "warnings": [*recording.warnings, *_unread(opened)],
    })  # fmt: skip


def card_attrs(card: OpenCard) -> dict[str, Any]:
    """Flat attributes of the card: its layout, settings and number of recordings."""
    found = card.index
    return flat({
        **_settings(card),
        "layout": found.layout.id,
        "write_keys": int(found.keyed),
        "n_recordings": len(card.index.recordings),
    })  # fmt: skip


def field_attrs(item: Field | None, scaled: bool) -> dict[str, Any]:
    """Attributes of a header field. Units of time go into the name: xarray would decode them as durations."""
    if item is None:
        return {}
    attrs: dict[str, Any] = {"long_name": item.description or item.name}
    if item.none is not None and not scaled:
        attrs["missing_value"] = item.none
    if item.scale is not None and not scaled:
        attrs["scale_factor"] = item.scale
    elif item.units and item.units not in ("ms", "s"):
        attrs["units"] = item.units
    elif item.units:
        attrs["long_name"] += f" ({item.units})"
    return attrs
