"""A day's cards on real block devices: worn, with a bad sector, without power in the middle, blank, and pulled out."""

from __future__ import annotations

import contextlib
import json

import pytest
import xarray as xr

from miniscope_xr.source.copy_map import unread_spans
from miniscope_xr.tools.collect import plan
from miniscope_xr.tools.copy import part
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.simulate import PowerLoss, Stall, blank, simulate

from ..conftest import SMALL
from ..flash.loops import loop, needs_loops
from ..flash.test_fuse import FuseDisk, has_fuse
from .conftest import MOMENT
from .test_collect import content

pytestmark = [
    pytest.mark.slow,
    needs_loops,
    pytest.mark.skipif(not has_fuse(), reason="needs /dev/fuse, libfuse and mfusepy"),
]
SECTOR = 512
BAD = 3000


@pytest.fixture
def cards(tmp_path):
    """Loop devices by what is the matter with them; the last two over disks that can fail."""
    plain = {
        "good": simulate(frames=60, seed=1, **SMALL),
        "worn": simulate(frames=120, seed=2, events=[Stall(1500, 700), Stall(3500, 500)], **SMALL),
        "interrupted": simulate(frames=120, seed=3, events=[PowerLoss(2500)], **SMALL),
        "blank": blank("v4-wirefree", settings={"gain": 2}),
    }
    failing = {"bad sector": simulate(frames=60, seed=4, **SMALL), "pulled": simulate(frames=100, seed=5, **SMALL)}
    with contextlib.ExitStack() as stack:
        devices, disks = {}, {}
        for name, card in plain.items():
            devices[name] = stack.enter_context(loop(card.write(tmp_path / f"{name}.img")))
        for name, card in failing.items():
            (tmp_path / name).mkdir()
            disks[name] = FuseDisk(tmp_path / name, card.data)
            stack.callback(disks[name].close)
            devices[name] = disks[name].device
        disks["bad sector"].spoil([BAD])
        yield devices, disks, {**plain, **failing}


def test_right_files_summary_and_exit_code(cards, tool, tmp_path, monkeypatch):
    devices, disks, made = cards
    into = tmp_path / "lab"
    monkeypatch.setattr(plan, "present", lambda: [identify(device) for device in devices.values()])
    monkeypatch.setattr(part, "STEP", 1 << 20)
    real = part._piece

    def piece(source, copy):
        if source.path == devices["pulled"] and copy.done >= 2 << 20 and disks["pulled"].process.poll() is None:
            disks["pulled"].pull()
        return real(source, copy)

    monkeypatch.setattr(part, "_piece", piece)
    ids = {name: identify(device).card_id for name, device in devices.items()}
    words = ["collect", "--all", "--image", into, "--name", "{animal}/{card}", "--animal", "m1", "--date", MOMENT]
    done = tool(*words, "--report", "--export", "hdf5", "--json")
    assert done.code == 5, done.err
    told = {card["card"]: card for card in json.loads(done.out)["cards"]}
    assert {name: told[device]["state"] for name, device in devices.items()} == {
        "good": "done", "worn": "problems", "interrupted": "problems", "blank": "blank", "bad sector": "problems",
        "pulled": "failed",
    }  # fmt: skip
    ends = (".h5", ".html", ".img", ".img.json", ".img.map", ".img.sha256")
    whole = ("good", "worn", "interrupted", "bad sector")
    left = {f"m1/{ids['pulled']}{end}" for end in (".img.part", ".img.map", ".img.json")}
    assert set(content(into)) == {f"m1/{ids[name]}{end}" for name in whole for end in ends} | left
    said = {name: " ".join(told[device]["why"]) for name, device in devices.items()}
    assert "never reached the card" in said["worn"]
    assert "interrupted" in said["interrupted"]
    assert "1 sectors could not be read" in said["bad sector"]
    assert "ddrescue" in said["bad sector"]
    assert "nothing was recorded" in said["blank"]
    assert "back in" in said["pulled"]
    assert "4 of 6 cards collected" in done.err
    spans = unread_spans((into / "m1" / f"{ids['bad sector']}.img.map").read_text())
    assert spans == [(BAD * SECTOR, SECTOR)]
    for name in whole:
        copy = (into / "m1" / f"{ids[name]}.img").read_bytes()
        wanted = bytearray(made[name].data[: len(copy)])
        if name == "bad sector":
            wanted[BAD * SECTOR : (BAD + 1) * SECTOR] = bytes(SECTOR)
        assert copy == wanted, name
    before = content(into)

    (tmp_path / "back").mkdir()
    back = FuseDisk(tmp_path / "back", made["pulled"].data)  # another reader, another name
    try:
        devices["pulled"] = back.device
        again = tool(*words, "--report", "--export", "hdf5", "--json")
        assert again.code == 7, again.err
        told = {card["card"]: card for card in json.loads(again.out)["cards"]}
        assert told[back.device]["state"] == "done"
        assert "copied" in told[back.device]["did"]
        assert [told[devices[name]]["did"] for name in whole] == [[]] * 4
    finally:
        back.close()
    after = content(into)
    assert {name: data for name, data in after.items() if name in before and ids["pulled"] not in name} == {
        name: data for name, data in before.items() if ids["pulled"] not in name
    }  # fmt: skip
    with xr.open_dataset(into / "m1" / f"{ids['pulled']}.img", engine="miniscope") as ds:
        assert ds.sizes["frame"] == 100
        assert ds.attrs["animal"] == "m1"
