"""Preparing a card from the page, by its requests: what `prepare` does and refuses."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash import jobs, journal, presets
from miniscope_xr.tools.simulate import blank
from miniscope_xr.tools.view import preparing

SETTINGS = ["gain=1", "record_length=4"]


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(journal, "default_dir", lambda: tmp_path / "home" / "backups")
    monkeypatch.setattr(presets, "default_dir", lambda: tmp_path / "home" / "backups")
    monkeypatch.setattr(presets, "folder", lambda: tmp_path / "home" / "config")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An image of a card of 12 MB on which nothing is."""
    path = tmp_path / "empty.img"
    path.write_bytes(blank("v4-wirefree", keys=True).data)
    with path.open("r+b") as file:
        file.truncate(12 << 20)
    return path


def looked(asker: Any, path: Path, layout: str = "") -> Any:
    return asker.post("look", path=str(path), image=True, layout=layout).lines[-1]


def ended(asker: Any) -> Any:
    """The state once nothing is being written any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = asker.get("preparing").json
        if state["phase"] != "running":
            return state
        time.sleep(0.02)
    pytest.fail("it never ended")


def prepared(asker: Any, path: Path, words: list[str], given_up: str = "") -> Any:
    seen = looked(asker, path)
    planned = asker.post("plan", look=seen["look"], words=words)
    assert planned.status == 200, planned.json
    begun = asker.post("begin", look=seen["look"], typed=seen["id"][-4:], given_up=given_up)
    assert begun.status == 200, begun.json
    return ended(asker)


@pytest.mark.slow
def test_the_card_is_as_the_command_leaves_it(viewing, empty, tmp_path, monkeypatch):
    monkeypatch.setattr("miniscope_xr.tools.flash.prepare.new_session", lambda: b"s" * 16)
    monkeypatch.setattr("miniscope_xr.tools.flash.prepare.time", SimpleNamespace(time=lambda: 1.8e9))
    monkeypatch.setattr("miniscope_xr.tools.flash.prepare.id_to_leave", lambda *known: b"i" * 8)
    before = empty.read_bytes()
    state = prepared(viewing(), empty, SETTINGS)
    assert state["phase"] == "done", state
    assert "take the card out" in state["said"]
    (folder,) = (tmp_path / "home" / "backups").glob("*/*")
    assert journal.load(folder).finished
    by_the_page = empty.read_bytes()
    with empty.open("r+b") as file:  # the same file: the id of an image is that of the file
        file.write(before)
    card = looked(viewing(), empty)["id"]
    words = ["prepare", str(empty), "--image", "--yes", "--card", card, "--backup-dir", str(tmp_path / "b")]
    assert main([*words, *SETTINGS]) == 0
    assert by_the_page == empty.read_bytes() != before


def test_the_page_is_told_what_is_on_it_and_what_would_be_written(viewing, empty):
    asker = viewing()
    seen = looked(asker, empty)
    assert seen["layout"] == "v4-wirefree"
    assert seen["lost"] == seen["recording"] == ""
    gain = next(each for each in seen["settings"] if each["name"] == "gain")
    assert [meaning for _, meaning in gain["choices"]] == ["1x", "2x", "3.5x"]
    length = next(each for each in seen["settings"] if each["name"] == "record_length")
    assert (length["units"], length["choices"]) == ("s", None)
    plan = asker.post("plan", look=seen["look"], words=SETTINGS).json
    assert next(row for row in plan["settings"] if row["name"] == "gain")["new"] == "1 (1x)"
    assert "planned 4 s" in plan["plan"]
    assert any("write settings: sector 1022" in line for line in plan["changes"])
    assert empty.read_bytes().count(0) > (12 << 20) - 512  # nothing is written by looking


@pytest.mark.slow
def test_what_the_command_refuses_is_refused(viewing, empty, tmp_path):
    asker = viewing()
    text = tmp_path / "letter.txt"
    text.write_text("Dear lab,\n" * 500)
    numbers = tmp_path / "numbers.bin"
    numbers.write_bytes(bytes(600_000) + b"\x07\x01" * 5000)
    strangers = ((numbers, "unknown"), (text, "text"), (tmp_path / "absent.img", "there is no file"), (tmp_path, ""))
    for path, said in strangers:
        answer = asker.post("look", path=str(path), image=True, layout="v4-wirefree")
        assert "error" in answer.lines[-1]
        assert said in answer.lines[-1]["error"].lower()
    assert "--image" in asker.post("look", path=str(empty)).lines[-1]["error"]
    seen = looked(asker, empty)
    for words in (["gain=9"], ["record_length=99h"], ["nonsense=1"], ["gain"]):
        assert asker.post("plan", look=seen["look"], words=words).status == 422


@pytest.mark.slow
def test_a_recording_is_lost_only_by_its_id(viewing, make_card):
    path = Path(make_card(frames=20)[0])
    before = path.read_bytes()
    asker = viewing()
    seen = looked(asker, path)
    assert seen["recording"]
    asker.post("plan", look=seen["look"], words=["record_length=1"])
    typed = seen["id"][-4:]
    for given_up in ("", "00000000", typed):
        answer = asker.post("begin", look=seen["look"], typed=typed, given_up=given_up)
        assert answer.status == 422
        assert seen["recording"] in answer.json["error"]
    assert asker.post("begin", look=seen["look"], typed="zzzz", given_up=seen["recording"]).status == 422
    assert path.read_bytes() == before
    assert asker.post("begin", look=seen["look"], typed=typed, given_up=seen["recording"]).status == 200
    assert ended(asker)["phase"] == "done"
    assert looked(asker, path)["lost"] == ""


def test_nothing_is_written_before_it_was_said_what(viewing, empty):
    asker = viewing()
    seen = looked(asker, empty)
    assert asker.post("begin", look=seen["look"], typed=seen["id"][-4:]).status == 422
    assert asker.post("begin", look=seen["look"] + 1, typed=seen["id"][-4:]).status == 422


@pytest.mark.slow
def test_what_changed_since_it_was_shown_is_not_written(viewing, empty):
    asker = viewing()
    seen = looked(asker, empty)
    asker.post("plan", look=seen["look"], words=SETTINGS)
    with empty.open("r+b") as file:
        file.seek(1024 * 512)
        file.write(b"somebody else's")
    asker.post("begin", look=seen["look"], typed=seen["id"][-4:])
    state = ended(asker)
    assert state["phase"] == "failed"
    assert "changed since it was shown" in state["said"]


@pytest.fixture
def slow_writes(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Writing begins (the first event) and goes on when the second one is set."""
    begun, go_on = threading.Event(), threading.Event()
    run = jobs.run

    def wait(*args: Any, **options: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        run(*args, **options)

    monkeypatch.setattr(jobs, "run", wait)
    return begun, go_on


@pytest.mark.slow
def test_two_clicks_and_two_pages_write_once(viewing, empty, slow_writes):
    begun, go_on = slow_writes
    asker = viewing()
    first, second = looked(asker, empty), looked(asker, empty)
    for seen in (first, second):
        asker.post("plan", look=seen["look"], words=SETTINGS)
    typed = first["id"][-4:]
    assert asker.post("begin", look=first["look"], typed=typed).status == 200
    assert begun.wait(30)
    assert asker.post("begin", look=first["look"], typed=typed).status == 422
    refused = asker.post("begin", look=second["look"], typed=typed)
    assert "already" in refused.json["error"]
    assert asker.get("preparing").json["phase"] == "running"  # what a page that is loaded again is told
    go_on.set()
    assert ended(asker)["phase"] == "done"
    asker.post("begin", look=second["look"], typed=typed)
    assert "changed since it was shown" in ended(asker)["said"]


@pytest.mark.slow
def test_stopped_it_says_how_the_card_is(viewing, empty, slow_writes):
    begun, go_on = slow_writes
    before = empty.read_bytes()
    asker = viewing()
    seen = looked(asker, empty)
    asker.post("plan", look=seen["look"], words=SETTINGS)
    asker.post("begin", look=seen["look"], typed=seen["id"][-4:])
    assert begun.wait(30)
    asker.post("stop")
    go_on.set()
    state = ended(asker)
    assert state["phase"] == "failed"
    assert "The card was not changed." in state["said"]
    assert empty.read_bytes() == before
    again = looked(viewing(), empty)["said"]  # also where the first server was killed
    assert f"`miniscope-xr resume {empty}` finishes it" in again[-1]


@pytest.mark.slow
def test_two_servers_write_one_after_the_other(viewing, empty, slow_writes):
    begun, go_on = slow_writes
    askers = viewing(), viewing()
    seen = [looked(asker, empty) for asker in askers]
    for asker, one in zip(askers, seen, strict=True):
        asker.post("plan", look=one["look"], words=SETTINGS)
        assert asker.post("begin", look=one["look"], typed=one["id"][-4:]).status == 200
        assert begun.wait(30)
    go_on.set()
    first, second = (ended(asker) for asker in askers)
    assert sorted((first["phase"], second["phase"])) == ["done", "failed"]
    refused = first if first["phase"] == "failed" else second
    assert any(words in refused["said"] for words in ("changed", "another program", "another copy of this tool"))


@pytest.mark.slow
def test_a_server_that_ends_leaves_a_card_whose_state_is_known(empty, slow_writes, tmp_path):
    from miniscope_xr.tools.view import Viewer

    from .conftest import Asker

    begun, go_on = slow_writes
    with Viewer(tmp_path) as viewer:
        asker = Asker(viewer)
        seen = looked(asker, empty)
        asker.post("plan", look=seen["look"], words=SETTINGS)
        asker.post("begin", look=seen["look"], typed=seen["id"][-4:])
        assert begun.wait(30)
        threading.Timer(0.2, go_on.set).start()
    assert "interrupted" in viewer.last_words
    assert "not changed" in viewer.last_words
    assert not viewer.answers.busy


def test_what_prepares_a_card_is_posted(viewing):
    asker = viewing()
    for name in ("look", "plan", "begin", "stop", "preset"):
        assert asker.get(name, look=1, path="/dev/sdz").status == 404
        assert asker.raw("POST", f"/wrong/{name}", b"{}", Content_Type="application/json").status == 403
        other = asker.raw(
            "POST", f"{asker.path}{name}", b"{}", Content_Type="application/json", Origin="http://evil.example"
        )
        assert other.status == 403


def test_presets_are_kept_by_name(viewing, tmp_path):
    asker = viewing()
    kept = asker.post("preset", name="  dim \x1b[2J", layout="v4-wirefree", words=["gain=2", "led=5"]).json["presets"]
    (name,) = kept
    assert name.startswith("dim")
    assert "\x1b" not in name
    assert asker.get("cards").json["presets"] == kept
    assert presets.load()[name] == presets.Preset("v4-wirefree", ("gain=2", "led=5"))
    assert asker.post("preset", name=name, layout="v4-wirefree", words=[]).json["presets"] == {}
    assert asker.post("preset", name=" ", layout="v4-wirefree", words=["gain=2"]).status == 422
    presets.file().write_text("[1, 2")
    answer = asker.get("cards")
    assert answer.status == 422
    assert "presets.json" in answer.json["error"]


def test_disks_of_this_computer_are_not_offered(viewing, monkeypatch):
    from miniscope_xr.tools.flash.disks.base import Disk

    card = Disk("/dev/sdb", "disk", "usb", 32 << 30, removable=True, cid="abcd1234")
    mounted = Disk("/dev/sdc", "disk", "usb", 32 << 30, removable=True, cid="cdef", mounts=(("/dev/sdc1", "/media/x"),))
    system = Disk("/dev/sda", "disk", "sata", 1 << 40, mounts=(("/dev/sda1", "/"),))
    monkeypatch.setattr(preparing, "present", lambda: iter((card, mounted, system)))
    cards = viewing().get("cards").json["cards"]
    assert [(each["path"], bool(each["no"])) for each in cards] == [("/dev/sdb", False), ("/dev/sdc", True)]
    assert "/media/x" in cards[1]["no"]
