"""The xarray engine: ``xr.open_dataset(card, engine="miniscope")``."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

import miniscope_xr.accessor  # noqa: F401 - registers ds.miniscope
from miniscope_xr.card import OpenCard
from miniscope_xr.engine.dataset import buffers_dataset, card_dataset, open_card, recording_dataset
from miniscope_xr.engine.joined import refuse_by_coordinates
from miniscope_xr.engine.options import Options
from miniscope_xr.index.detect import detect
from miniscope_xr.source.local import Device
from miniscope_xr.source.open import address

_NOT_OF_A_TREE = ("recording", "time_index", "group")


class MiniscopeBackendEntrypoint(BackendEntrypoint):
    """SD cards (and their images) of wire-free UCLA Miniscopes.

    The options of ``xr.open_dataset``, ``open_datatree`` and the rest are those of
    :class:`miniscope_xr.engine.options.Options`.
    """

    description = "SD cards of wire-free UCLA Miniscopes"
    supports_groups = True
    open_dataset_parameters = ("filename_or_obj", *(item.name for item in fields(Options)))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is a card with a recording in a layout we know; cheap, False on any error."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        try:
            with Device(address(filename_or_obj)) as device:
                detect(device)
        except Exception:
            return False
        return True

    def open_dataset(self, filename_or_obj: Any, **options: Any) -> xr.Dataset:
        """Open one recording of a card, or its buffer table.

        Parameters
        ----------
        filename_or_obj
            Path of an image file or block device, or URL of an image.
        **options
            Those of :class:`miniscope_xr.engine.options.Options`.
        """
        asked = Options.of(options)
        refuse_by_coordinates(filename_or_obj)
        number, table = asked.wanted
        card = open_card(filename_or_obj, asked)
        try:
            recording = card.recording(number)
            ds = (buffers_dataset if table else recording_dataset)(card, recording, asked)
        except BaseException:
            card.close()
            raise
        return _closing(card, ds)

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """Every node of the card: ``/``, ``/recording_0``, ``/recording_0/buffers`` and so on."""
        asked = Options.of(options, without=_NOT_OF_A_TREE)
        card = open_card(filename_or_obj, asked)
        try:
            groups = {"/": card_dataset(card)}
            for recording in card.index.recordings:
                groups[f"/recording_{recording.number}"] = recording_dataset(card, recording, asked)
                groups[f"/recording_{recording.number}/buffers"] = buffers_dataset(card, recording, asked)
        except BaseException:
            card.close()
            raise
        return {path: _closing(card, ds) for path, ds in groups.items()}

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """The whole card as a tree; options as for :meth:`open_groups_as_dict`."""
        groups = self.open_groups_as_dict(filename_or_obj, **options)
        tree = xr.DataTree.from_dict(groups)
        for path, ds in groups.items():
            tree[path].set_close(ds._close)
        return tree


def _closing(card: OpenCard, ds: xr.Dataset) -> xr.Dataset:
    """Let closing a Dataset close its card (the very last step, or the descriptor leaks)."""
    ds.set_close(card.close)
    return ds
