"""The plain path: right files, right summary, right exit code; run again, nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import xarray as xr

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.local import Device
from miniscope_xr.tools.copy import image
from miniscope_xr.tools.simulate import Stall, blank

from ..tools.test_copy import Bad
from .conftest import MOMENT

TOLD = ("--session", "s1", "--date", MOMENT, "--name", "{session}/{card}")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def data_of(card: Path, copy: Path) -> bool:
    with xr.open_dataset(card, engine="miniscope") as a, xr.open_dataset(copy, engine="miniscope") as b:
        return a.drop_attrs().identical(b.drop_attrs())


@pytest.mark.slow
def test_everything_of_two_cards(day, tool, tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("h5py")
    pytest.importorskip("tifffile")
    cards, into = day(2), tmp_path / "lab"
    words = [
        "collect",
        *cards,
        "into",
        into,
        *TOLD,
        "--animal",
        "m1",
        "--report",
        "--export",
        "hdf5",
        "--export",
        "tiff",
    ]
    done = tool(*words)
    assert done.code == 0, done.err
    assert f"2 of 2 cards collected into {into}" in done.out
    images = sorted(into.rglob("*.img"))
    assert len(images) == 2
    for copy in images:
        names = {path.name for path in copy.parent.iterdir() if path.name.startswith(copy.stem)}
        ends = (".img", ".img.json", ".img.map", ".img.sha256", ".html", ".h5", ".tif", "_headers.csv")
        assert names == {copy.stem + end for end in ends}
        record = json.loads(beside(copy))
        assert record["about"] == {"animal": "m1", "date": MOMENT, "session": "s1"}
        assert record["copy"]["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
        assert record["check"]["ok"] is True
        assert "making" not in record
    assert any(data_of(cards[0], copy) for copy in images)
    before = content(into)
    again = tool(*words, "--json")
    assert again.code == 0
    told = json.loads(again.out)
    assert [card["state"] for card in told["cards"]] == ["done", "done"]
    assert [card["did"] for card in told["cards"]] == [[], []]
    assert content(into) == before


def beside(copy: Path) -> str:
    return copy.with_name(copy.name + ".json").read_text()


def test_what_is_done_is_not_read_again(day, tool, tmp_path, reads):
    (card,), into = day(1), tmp_path / "lab"
    assert tool("collect", card, into, *TOLD).code == 0
    assert sum(length for _, length in reads) > card.stat().st_size
    reads.clear()
    assert tool("collect", card, into, *TOLD).code == 0
    assert sum(length for _, length in reads) < 100_000


def test_a_card_that_is_worn_and_one_that_is_blank(day, tool, tmp_path):
    (good,), (worn,), into = day(1), day(1, frames=120, events=[Stall(1500, 700)]), tmp_path / "lab"
    empty = blank("v4-wirefree").write(tmp_path / "empty.img")
    done = tool("collect", good, worn, empty, into, *TOLD, "--json")
    assert done.code == 7
    states = {Path(card["card"]).name: card for card in json.loads(done.out)["cards"]}
    assert [states[name]["state"] for name in (good.name, worn.name, empty.name)] == ["done", "problems", "blank"]
    assert "never reached the card" in states[worn.name]["why"][0]
    assert "nothing was recorded" in done.err
    assert len(list(into.rglob("*.img"))) == 2


def test_nothing_is_written_where_only_a_blank_card_is(tool, tmp_path):
    empty, into = blank("v4-wirefree").write(tmp_path / "empty.img"), tmp_path / "lab"
    assert tool("collect", empty, into, *TOLD).code == 7
    assert not into.exists()


def test_one_that_fails_keeps_no_other_waiting(day, tool, tmp_path):
    (good,), into = day(1), tmp_path / "lab"
    other = tmp_path / "holiday.img"
    other.write_bytes(b"\xff\xd8\xff\xe0 a picture" + bytes(2 << 20))
    done = tool("collect", other, good, into, *TOLD)
    assert done.code == 3
    assert "1 of 2 cards collected" in done.out
    assert "holiday.img" in done.out
    assert len(list(into.rglob("*.img"))) == 1
    assert len(list(into.rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the cards"),
        (["CARD", "--all"], "not both"),
        (["CARD", "CARD"], "named twice"),
        (["CARD", "--session", "a"], "not known: animal and date"),
        (["CARD", "--name", "{session}"], "session"),
        (["CARD", "--name", "../{card}"], "stay in the folder"),
        (["CARD", "--date", "3/4/2026"], "2026-03-14"),
        (["CARD", "--export", "nbw"], "did you mean 'nwb'"),
        (["CARD", "--at-once", "0"], "--at-once"),
        (["missing.img"], "no file or device"),
        (["CARD", "OTHER", "--name", "{session}", "--session", "a"], "both be named"),
        (["CARD", "--table", "missing.csv"], "no such table"),
        (["CARD", "--sex", "male", "--name", "{card}"], "one of M, F, U"),
    ],
)
def test_refused_before_anything_is_read_or_written(day, tool, tmp_path, words, said, monkeypatch):
    cards = dict(zip(("CARD", "OTHER"), day(2), strict=True))
    done = tool("collect", *(cards.get(word, word) for word in words), tmp_path / "lab")
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "lab").exists()


def test_what_is_not_known_of_many_cards_is_said_once(day, tool, tmp_path):
    done = tool("collect", *day(5), tmp_path / "lab")
    assert done.code == 2
    assert done.err.count("animal and date and session") == 1
    assert "and 2 more cards" in done.err


def test_a_name_of_another_recording(day, tool, tmp_path):
    (one, other), into = day(2), tmp_path / "lab"
    words = (into, "--session", "s1", "--name", "{session}")
    assert tool("collect", one, *words).code == 0
    before = content(into)
    done = tool("collect", other, *words)
    assert done.code == 2
    assert "another recording" in done.err
    assert content(into) == before


def test_what_is_somebody_elses_is_kept(day, tool, tmp_path):
    pytest.importorskip("h5py")
    (card,), into = day(1), tmp_path / "lab"
    into.mkdir()
    (into / "s1.h5").write_text("mine")
    done = tool("collect", card, into, "--session", "s1", "--name", "{session}", "--export", "hdf5")
    assert done.code == 2
    assert "move it away" in done.out
    assert (into / "s1.h5").read_text() == "mine"
    (into / "s1.h5").unlink()
    assert tool("collect", card, into, "--session", "s1", "--name", "{session}", "--export", "hdf5").code == 0


def test_told_anew_what_carries_it_is_made_anew(day, tool, tmp_path):
    h5py = pytest.importorskip("h5py")
    (card,), into = day(1), tmp_path / "lab"
    words = ("collect", card, into, "--session", "s1", "--name", "{session}", "--export", "hdf5")
    tool(*words, "--notes", "sleepy")
    with h5py.File(into / "s1.h5") as file:
        assert file.attrs["notes"] == "sleepy"
    copied = (into / "s1.img").stat()
    assert tool(*words, "--notes", "wide awake").code == 0
    with h5py.File(into / "s1.h5") as file:
        assert file.attrs["notes"] == "wide awake"
    assert (into / "s1.img").stat().st_mtime_ns == copied.st_mtime_ns


@pytest.mark.slow
def test_a_copy_that_reads_back_differently_is_no_copy(day, tool, tmp_path, monkeypatch):
    (card,), into = day(1), tmp_path / "lab"
    real = image.fill

    def spoilt(source, file, *rest):
        real(source, file, *rest)
        file.seek(1024 * 512)
        file.write(b"\xaa" * 512)

    with monkeypatch.context() as patch:
        patch.setattr(image, "fill", spoilt)
        done = tool("collect", card, into, *TOLD)
    assert done.code == 5
    assert "reads back differently" in done.out
    assert not list(into.rglob("*.img"))
    assert tool("collect", card, into, *TOLD).code == 0
    (copy,) = into.rglob("*.img")
    assert data_of(card, copy)


@pytest.mark.slow
def test_pulled_and_put_back(day, tool, tmp_path, monkeypatch):
    (card,), into = day(1, frames=150), tmp_path / "lab"

    real = image.fill

    class Pulled(Device):
        def read(self, offset, length):
            if offset >= 4 << 20:
                raise CardReadError(19, "no such device", self.path)
            return super().read(offset, length)

        def salvage(self, offset, length):
            return bytes(length), [(offset, length)]

    def pulled(source, *rest):
        source.close()
        with Pulled(str(card)) as gone:
            real(gone, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(image, "fill", pulled)
        done = tool("collect", card, into, *TOLD)
    assert done.code == 5
    assert "put the card (or its reader) back in" in done.out
    (part,) = into.rglob("*.img.part")
    assert part.stat().st_size == 4 << 20
    assert tool("collect", card, into, *TOLD).code == 0
    (copy,) = into.rglob("*.img")
    assert data_of(card, copy)
    assert not list(into.rglob("*.part"))


@pytest.mark.slow
def test_all_of_them_in_one_store_too(day, tool, tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("dask.array")
    into, store = tmp_path / "lab", tmp_path / "lab.zarr"
    words = ("collect", *day(2, frames=8), into, *TOLD, "--animal", "m1", "--archive", store)
    done = tool(*words)
    assert done.code == 0, done.err
    assert "16 frames written" in done.out
    with xr.open_datatree(store, engine="zarr", chunks=None) as tree:
        recordings = [tree[name] for name in tree.groups if name.endswith("recording_0")]
        assert [node.attrs["animal"] for node in recordings] == ["m1", "m1"]
    assert "all of it is there" in tool(*words).out
    elsewhere = tool(*words[:-1], into)  # a folder of other things
    assert elsewhere.code == 2
    assert "no Zarr store" in elsewhere.err
    assert tool("collect", *day(1), into, *TOLD, "--cluster", "tcp://127.0.0.1:1").code == 2


@pytest.mark.slow
def test_what_ddrescue_got_after_all_is_taken_up(day, tool, tmp_path, monkeypatch):
    """It writes into the copy and its map, as the summary says to; the check is made anew, the card is not read."""
    (card,), into = day(1), tmp_path / "lab"
    with monkeypatch.context() as patch:
        patch.setattr(image, "open_device", Bad)
        done = tool("collect", card, into, *TOLD)
    assert done.code == 7
    assert "3 sectors could not be read" in done.out
    (copy,) = into.rglob("*.img")
    whole = card.read_bytes()
    with copy.open("r+b") as file:
        for sector in Bad.bad:
            file.seek(sector * 512)
            file.write(whole[sector * 512 : (sector + 1) * 512])
    beside_it = copy.with_name(copy.name + ".map")
    beside_it.write_text(beside_it.read_text().replace("  -", "  +"))
    again = tool("collect", card, into, *TOLD, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["cards"][0]["did"] == ["checked"]
    assert json.loads(beside(copy))["copy"]["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert data_of(card, copy)
