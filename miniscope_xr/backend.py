"""The xarray engine: ``xr.open_dataset(card, engine="miniscope")``.

xarray imports this module with every other engine, whatever file is opened. So it is small, and what opens a card is
imported when one is opened.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

import miniscope_xr.accessor  # noqa: F401 - registers ds.miniscope
from miniscope_xr.engine.joined import refuse_by_coordinates
from miniscope_xr.engine.options import Options

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
        from miniscope_xr.engine.opening import is_card  # start-up time

        return isinstance(filename_or_obj, str | os.PathLike) and is_card(filename_or_obj)

    def open_dataset(self, filename_or_obj: Any, **options: Any) -> xr.Dataset:
        """Open one recording of a card, or its buffer table.

        Parameters
        ----------
        filename_or_obj
            Path of an image file or block device, or URL of an image.
        **options
            Those of :class:`miniscope_xr.engine.options.Options`.
        """
        from miniscope_xr.engine.opening import open_one  # start-up time

        asked = Options.of(options)
        refuse_by_coordinates(filename_or_obj)
        return open_one(filename_or_obj, asked)

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """Every node of the card: ``/``, ``/recording_0``, ``/recording_0/buffers`` and so on."""
        from miniscope_xr.engine.opening import open_all  # start-up time

        return open_all(filename_or_obj, Options.of(options, without=_NOT_OF_A_TREE))

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """The whole card as a tree; options as for :meth:`open_groups_as_dict`."""
        groups = self.open_groups_as_dict(filename_or_obj, **options)
        tree = xr.DataTree.from_dict(groups)
        for path, ds in groups.items():
            tree[path].set_close(ds._close)
        return tree
