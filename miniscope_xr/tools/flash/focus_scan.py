"""The focus scan of a firmware: settings that have to fit together, or it never begins, or never ends."""

from __future__ import annotations

from collections.abc import Mapping

from miniscope_xr.layout import Layout
from miniscope_xr.tools.flash.errors import SettingsError

_SCAN = ("ewl_scan_start", "ewl_scan_stop", "ewl_scan_step", "ewl_scan_interval")
_FASTEST = 30


def _check_scan(values: Mapping[str, int], *, derived: bool) -> None:
    """Refuse a focus scan that the firmware would never begin, or never end."""
    start, stop, step, interval = (values[name] for name in _SCAN)
    for name, value in (("ewl_scan_step", step), ("ewl_scan_interval", interval)):
        if value == 0:
            raise SettingsError(f"{name}=0: the focus scan would never move on; give a value of 1 or more")
    if stop < start:
        raise SettingsError(f"ewl_scan_stop={stop} is below ewl_scan_start={start}: the firmware scans upward only")
    if values["ewl"] == 0:
        raise SettingsError(
            "ewl=0: the focus scan starts at ewl and never runs if that is 0; give ewl=1 or more"
            + (" or ewl_scan_start=1 or more" if derived else "")
        )


def fit_scan(
    layout: Layout, values: dict[str, int], given: Mapping[str, int], notes: list[str], *, derive: bool
) -> None:
    """Check a focus scan; ``derive`` lets length and first focus follow from it, as the lab notebook does."""
    if not values.get("ewl_scan_mode") or not {*_SCAN, "ewl", "record_length"} <= values.keys():
        return
    start, stop, step, interval = (values[name] for name in _SCAN)
    if derive and "ewl" not in given:
        values["ewl"] = start
    _check_scan(values, derived=derive and "ewl" not in given)
    if values["ewl"] != start:
        notes.append(f"the firmware starts the focus scan at ewl={values['ewl']}, not at ewl_scan_start={start}")
    if (stop - values["ewl"]) % step:
        notes.append(f"the last step of the focus scan may pass ewl_scan_stop={stop} by one step of {step}")
    seconds: float = interval
    if layout.header["ewl_scan_interval"].units == "frames":  # each step lasts one frame more
        seconds = (interval + 1) / (values.get("fs") or _FASTEST)
    needed = int(((stop - start) / step + 1) * seconds)
    if derive and "record_length" not in given:
        values["record_length"] = needed
        notes.append(f"record_length={needed} s, so that the focus scan fits")
    elif 0 < values["record_length"] < needed:
        length = values["record_length"]
        notes.append(f"the focus scan takes {needed} s; record_length={length} ends it before, {needed} would fit it")
