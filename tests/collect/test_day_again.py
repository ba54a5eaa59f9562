"""A day's cards made ready again, on real block devices: of each only what is proven to be in its copy is erased."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from miniscope_xr.tools.collect import run
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.simulate import RecordAgain, simulate

from ..conftest import SMALL
from ..flash.loops import loop, needs_loops
from ..flash.test_fuse import FuseDisk, has_fuse
from .conftest import MOMENT

pytestmark = [
    pytest.mark.slow,
    needs_loops,
    pytest.mark.skipif(not has_fuse(), reason="needs /dev/fuse, libfuse and mfusepy"),
]
SIZE = 16 << 20


def data_of(card) -> bytes:
    return card.data[:SIZE].ljust(SIZE, b"\0")


@pytest.fixture
def cards(tmp_path):
    """Devices and their content by what will happen to them; the last two over disks that can fail."""
    made = {
        "good": simulate(frames=40, seed=1, **SMALL),
        "twice": simulate(frames=60, seed=2, events=[RecordAgain(20)], **SMALL),
        "spoilt copy": simulate(frames=40, seed=3, **SMALL),
        "used meanwhile": simulate(frames=40, seed=4, **SMALL),
        "bad sector": simulate(frames=40, seed=5, **SMALL),
        "pulled": simulate(frames=40, seed=6, **SMALL),
    }
    with contextlib.ExitStack() as stack:
        devices, disks = {}, {}
        for number, (name, card) in enumerate(made.items()):
            folder = tmp_path / f"disk{number}"
            folder.mkdir()
            if name in ("bad sector", "pulled"):
                disks[name] = FuseDisk(folder, data_of(card))
                stack.callback(lambda disk=disks[name]: disk.close())
                devices[name] = disks[name].device
            else:
                (folder / "card.img").write_bytes(data_of(card))
                devices[name] = stack.enter_context(loop(folder / "card.img"))
        disks["bad sector"].spoil([3000])
        yield devices, disks, made


def test_each_by_its_own_proof(cards, tool, tmp_path, monkeypatch):
    devices, disks, made = cards
    into, backups = tmp_path / "lab", tmp_path / "backups"
    tool("preset", "save", "dim", "--layout", "v4-wirefree", "gain=2x", "led=5", "record_length=3")
    ids = {name: identify(device).card_id for name, device in devices.items()}
    named = {device: name for name, device in devices.items()}
    real = run.prepare_again

    def just_before(agreed, record, *rest):
        name = named[agreed.seen.disk.path]
        if name == "spoilt copy":
            with record.image.open("r+b") as file:
                file.seek(1030 * 512)
                file.write(b"x")
        if name == "used meanwhile":
            with Path(devices[name]).open("r+b") as file:
                file.seek(3000 * 512)
                file.write(b"\xa5" * 512)
        if name == "pulled":
            disks[name].pull()
        real(agreed, record, *rest)

    monkeypatch.setattr(run, "prepare_again", just_before)
    words = [
        "collect",
        *devices.values(),
        "into",
        into,
        "--name",
        "{session}/{card}",
        "--session",
        "s",
        "--date",
        MOMENT,
    ]
    words += ["--then-prepare", "dim", "--image", "--backup-dir", backups, "--json", "--yes"]
    words += [word for card_id in ids.values() for word in ("--card", card_id)]
    done = tool(*words)
    report = json.loads(done.out)
    told = {named[card["card"]]: card for card in report["cards"]}
    whole, kept = ("good", "twice"), ("spoilt copy", "used meanwhile", "bad sector")
    assert {name: told[name]["state"] for name in devices} == {
        "good": "done", "twice": "problems", **dict.fromkeys((*kept, "pulled"), "failed")
    }  # fmt: skip
    assert (done.code, report["card_changed"]) == (5, True)
    said = {name: " ".join(card["why"]) for name, card in told.items()}
    assert "is not the copy any more" in said["spoilt copy"]
    assert "somebody wrote to it meanwhile" in said["used meanwhile"]
    assert "missing in the copy" in said["bad sector"]
    assert "was pulled out" in said["pulled"]
    assert "back in" in said["pulled"]
    for name in whole:
        copy = (into / "s" / f"{ids[name]}.img").read_bytes()
        assert copy == data_of(made[name])[: len(copy)]
        assert not any(Path(devices[name]).read_bytes()[1023 * 512 :]), name
    for name in ("spoilt copy", "used meanwhile"):
        now = bytearray(Path(devices[name]).read_bytes())
        if name == "used meanwhile":
            now[3000 * 512 : 3001 * 512] = data_of(made[name])[3000 * 512 : 3001 * 512]
        assert now == data_of(made[name]), name
    assert disks["bad sector"].dump() == data_of(made["bad sector"])
    assert {path.parent.parent.name for path in backups.rglob("journal.json")} == {ids[name] for name in whole}
    assert all(journals.load(path).finished for path in backups.rglob("journal.json"))

    for name in ("spoilt copy", "used meanwhile"):  # as the words say
        (into / "s" / f"{ids[name]}.img").rename(tmp_path / f"{name}.img")
    disks["bad sector"].spoil([])
    (tmp_path / "back").mkdir()
    disks["pulled"].close()
    back = FuseDisk(tmp_path / "back", data_of(made["pulled"]))
    try:
        monkeypatch.setattr(run, "prepare_again", real)
        words[words.index(devices["pulled"])] = back.device
        again = tool(*words)
        told = {card["card"]: card for card in json.loads(again.out)["cards"]}
        assert {card["state"] for name, card in told.items() if name != devices["bad sector"]} == {"done"}, again.err
        assert told[back.device]["did"] == ["prepared"]
        assert "missing in the copy" in " ".join(told[devices["bad sector"]]["why"])
        assert again.code == 3
        assert not any(back.dump()[1023 * 512 :])
    finally:
        back.close()
