"""The wizard in a real browser: from the reader to "take it out now", on an image and on a loop device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash import jobs
from tests.flash.fakes import Fault
from tests.flash.loops import loop, needs_loops
from tests.flash.test_fuse import FuseDisk, has_fuse

from .test_page import Page, driver, in_theme, page, pytestmark  # noqa: F401 - the browser, and when there is none
from .test_preparing import empty, own_home, slow_writes  # noqa: F401


def begin(shown: Page, path: Path | str) -> None:
    """Open the wizard and look at a card."""
    if not shown.part("#prepare").get_attribute("open"):
        shown.click("#prepare > summary")
    shown.write("#prepare [name='path']", path)
    shown.click("#prepare .pick button[type='submit']")
    shown.until(lambda: shown.part("#prepare .card").is_displayed(), "nothing was shown of the card")


def told(shown: Page) -> str:
    return str(shown.part("#prepare .told").text)


def go_on(shown: Page) -> None:
    shown.click("#prepare .choose button[type='submit']")
    shown.until(lambda: shown.part("#prepare .confirm").is_displayed() or told(shown), "no summary came")


def confirm(shown: Page, given_up: str = "") -> None:
    if given_up:
        shown.write("#prepare [name='given_up']", given_up)
    shown.write("#prepare [name='typed']", shown.part("#prepare .id").text[-4:])
    shown.click("#prepare .confirm button[type='submit']")


def saying(shown: Page) -> str:
    return str(shown.part("#prepare .saying").text)


@pytest.mark.parametrize("width", [1280, 390])
def test_from_the_card_to_take_it_out(page: Any, empty: Path, width: int) -> None:  # noqa: F811
    shown = page(width=width)
    begin(shown, empty)
    shown.choose("#prepare [name='set-gain']", "4")
    shown.write("#prepare [name='set-record_length']", "4s")
    go_on(shown)
    rows = [row.text for row in shown.parts("#prepare tr.changed")]
    assert any(row.startswith("gain") and row.endswith("4 (3.5x)") for row in rows)
    assert not shown.part("#prepare .give-up").is_displayed()
    wide = shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page is wider than the window"
    confirm(shown)
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")
    shown.click("#prepare .next")
    begin(shown, empty)  # the next card, with the same settings
    assert shown.part("#prepare [name='set-record_length']").get_attribute("value") in ("4", "4s")
    assert shown.complaints() == []


def test_a_recording_is_given_up_by_its_id_alone(page: Any, make_card: Any) -> None:  # noqa: F811
    path = Path(make_card(frames=20)[0])
    before = path.read_bytes()
    shown = page()
    begin(shown, path)
    shown.write("#prepare [name='set-record_length']", "1")
    go_on(shown)
    recording = shown.part("#prepare .give-up-id").text
    assert recording in shown.part("#prepare .lost").text
    confirm(shown, "00000000")
    shown.until(lambda: recording in told(shown), "it was not refused")
    assert path.read_bytes() == before
    with xr.open_dataset(path, engine="miniscope") as ds:
        assert ds.sizes["frame"] == 20
    confirm(shown, recording)
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")


def test_what_is_refused_is_said(page: Any, empty: Path, tmp_path: Path) -> None:  # noqa: F811
    text = tmp_path / "letter.txt"
    text.write_text("Dear lab,\n" * 500)
    shown = page()
    shown.click("#prepare > summary")
    shown.write("#prepare [name='path']", text)
    shown.click("#prepare .pick button[type='submit']")
    shown.until(lambda: "text" in told(shown), "it was not refused")
    assert not shown.part("#prepare .card").is_displayed()
    begin(shown, empty)
    shown.write("#prepare [name='set-record_length']", "99h")
    go_on(shown)
    assert "do not fit" in told(shown)
    assert not shown.part("#prepare .confirm").is_displayed()


def test_a_page_loaded_again_in_the_middle_shows_how_it_goes(
    page: Any,  # noqa: F811
    driver: Any,  # noqa: F811
    empty: Path,  # noqa: F811
    slow_writes: Any,  # noqa: F811
) -> None:
    begun, on = slow_writes
    shown = page()
    begin(shown, empty)
    go_on(shown)
    confirm(shown)
    assert begun.wait(30)
    driver.refresh()
    shown.until(lambda: shown.parts("#prepare .saying") and "leave the card in" in saying(shown), "it shows nothing")
    driver.get("about:blank")
    driver.back()
    shown.until(lambda: shown.parts("#prepare .saying") and "leave the card in" in saying(shown), "nothing after back")
    assert not shown.part("#prepare .pick").is_displayed()
    on.set()
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")


def test_a_double_click_writes_once(page: Any, empty: Path, monkeypatch: Any) -> None:  # noqa: F811
    from selenium.webdriver import ActionChains

    runs: list[float] = []
    run = jobs.run

    def counted(*args: Any, **options: Any) -> None:
        runs.append(time.monotonic())
        run(*args, **options)

    monkeypatch.setattr(jobs, "run", counted)
    shown = page()
    begin(shown, empty)
    go_on(shown)
    shown.write("#prepare [name='typed']", shown.part("#prepare .id").text[-4:])
    button = shown.part("#prepare .confirm button[type='submit']")
    shown.run("arguments[0].scrollIntoView({block: 'center'})", button)
    ActionChains(shown.driver).double_click(button).perform()
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")
    assert len(runs) == 1


@needs_loops
def test_a_loop_device(page: Any, empty: Path) -> None:  # noqa: F811
    with loop(empty) as device:
        shown = page()
        begin(shown, device)
        go_on(shown)
        confirm(shown)
        shown.until(lambda: "take the card out" in saying(shown), "it was never done")
    assert empty.read_bytes()[1022 * 512 : 1022 * 512 + 16] != bytes(16)


# -- every view, for everybody ---------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_view_is_accessible_and_fits(
    page: Any,  # noqa: F811
    make_card: Any,
    slow_writes: Any,  # noqa: F811
    theme: str,
    width: int,
) -> None:
    begun, on = slow_writes
    path = Path(make_card(frames=20)[0])
    shown = page(width=width)
    in_theme(shown, theme)

    def looks_right() -> None:
        shown.is_accessible()
        assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
        for control in shown.parts("button, input, select, progress"):
            if control.is_displayed():
                assert control.accessible_name, control.get_attribute("outerHTML")

    looks_right()
    shown.click("#prepare > summary")
    shown.until(lambda: shown.parts("#prepare .cards li"), "no word of the readers")
    looks_right()
    begin(shown, path)
    shown.write("#prepare [name='set-record_length']", "1")
    looks_right()
    go_on(shown)
    looks_right()
    confirm(shown, "00000000")
    shown.until(lambda: told(shown), "it was not refused")
    looks_right()
    confirm(shown, shown.part("#prepare .give-up-id").text)
    assert begun.wait(30)
    shown.until(lambda: "leave the card in" in saying(shown), "no word of the writing")
    looks_right()
    shown.click("#prepare .stop")
    on.set()
    shown.until(lambda: shown.part("#prepare .state").get_attribute("data-phase") == "failed", "it was not stopped")
    looks_right()
    shown.click("#prepare .next")
    begin(shown, path)
    go_on(shown)
    confirm(shown, shown.part("#prepare .give-up-id").text)
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")
    looks_right()


def test_by_keyboard_alone(page: Any, empty: Path) -> None:  # noqa: F811
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    shown = page()

    def press(*keys: str) -> None:
        ActionChains(shown.driver, duration=20).send_keys(*keys).perform()

    def tab_to(selector: str) -> None:
        for _ in range(80):
            if shown.run("return document.activeElement?.matches(arguments[0])", selector):
                return
            press(Keys.TAB)
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#prepare > summary")
    press(Keys.ENTER)
    tab_to("#prepare .pick [name='path']")
    press(str(empty), Keys.ENTER)
    shown.until(lambda: shown.part("#prepare .card").is_displayed(), "nothing was shown of the card")
    tab_to("#prepare [name='set-record_length']")
    ActionChains(shown.driver, duration=20).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    press("4", Keys.ENTER)
    shown.until(lambda: shown.part("#prepare .confirm").is_displayed(), "no summary came")
    assert shown.run("return document.activeElement.name") == "typed"
    press(shown.part("#prepare .id").text[-4:], Keys.ENTER)
    shown.until(lambda: "take the card out" in saying(shown), "it was never done")
    shown.until(lambda: shown.run("return document.activeElement.className") == "next", "the next step has no focus")
    press(Keys.ENTER)
    shown.until(lambda: shown.part("#prepare .pick").is_displayed(), "no next card")


def test_a_preset_is_kept_chosen_and_forgotten(page: Any, empty: Path) -> None:  # noqa: F811
    shown = page()
    begin(shown, empty)
    shown.choose("#prepare [name='set-gain']", "4")
    shown.write("#prepare [name='set-record_length']", "7")
    shown.write("#prepare [name='called']", "dim cells")
    shown.click("#prepare [name='keep']")
    shown.until(lambda: "dim cells" in shown.part("#prepare [name='preset']").text, "it was not kept")
    shown.driver.refresh()
    shown.until(lambda: shown.parts("#prepare"), "the page did not come again")
    begin(shown, empty)
    assert shown.part("#prepare [name='set-record_length']").get_attribute("value") != "7"
    shown.choose("#prepare [name='preset']", "dim cells")
    assert shown.part("#prepare [name='set-record_length']").get_attribute("value") == "7"
    assert shown.part("#prepare [name='set-gain']").get_attribute("value") == "4"
    shown.click("#prepare [name='forget']")
    shown.until(lambda: "dim cells" not in shown.part("#prepare [name='preset']").text, "it was not forgotten")


def test_two_pages_at_once_write_once(
    page: Any,  # noqa: F811
    driver: Any,  # noqa: F811
    empty: Path,  # noqa: F811
    slow_writes: Any,  # noqa: F811
) -> None:
    begun, on = slow_writes
    shown = page()
    first = driver.current_window_handle
    begin(shown, empty)
    go_on(shown)
    address = driver.current_url
    driver.switch_to.new_window("tab")
    try:
        second = driver.current_window_handle
        driver.get(address)
        begin(shown, empty)
        go_on(shown)
        driver.switch_to.window(first)
        confirm(shown)
        assert begun.wait(30)
        driver.switch_to.window(second)
        confirm(shown)
        shown.until(lambda: "being written already" in told(shown), "the second page was not refused")
        driver.refresh()
        shown.until(lambda: shown.parts("#prepare .saying") and "leave the card in" in saying(shown), "no progress")
        on.set()
        shown.until(lambda: "take the card out" in saying(shown), "the second page never said so")
        driver.close()
    finally:
        on.set()
        driver.switch_to.window(first)
    shown.until(lambda: "take the card out" in saying(shown), "the first page never said so")


def ended(page: Any) -> str:  # noqa: F811
    """How the writing of a card ended; empty before it did."""
    phase = page.part("#prepare .state").get_attribute("data-phase")
    return phase if phase in ("done", "failed") else ""


# -- real block devices ----------------------------------------------------------------------------------


@needs_loops
@pytest.mark.skipif(not has_fuse(), reason="needs /dev/fuse, libfuse and mfusepy")
@pytest.mark.parametrize("when", ["first", "middle", "last"])
def test_a_card_pulled_while_it_is_written(
    page: Any,  # noqa: F811
    empty: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    before = empty.read_bytes()
    (tmp_path / "disk").mkdir()
    disk = FuseDisk(tmp_path / "disk", before)
    try:
        shown = page()
        begin(shown, disk.device)
        go_on(shown)
        disk.arm(before, Fault(-1, ""))
        confirm(shown)
        shown.until(lambda: "take the card out" in saying(shown), "it was never done")
        whole = disk.dump()
        writes = sum(what == "write" for what, _, _ in disk.log())
        at = {"first": 0, "middle": writes // 2, "last": writes - 1}[when]
        how = "done"
        while how == "done":  # a kernel does not join the same writes each time: the last one may never have come
            shown.click("#prepare .next")
            disk.arm(before, Fault(-1, ""))
            begin(shown, disk.device)
            go_on(shown)
            card = shown.part("#prepare .id").text
            disk.arm(before, Fault(at, "unplugged", of="write"))
            shown.run("document.querySelector('#prepare .state').dataset.phase = ''")  # that of the card before
            confirm(shown)
            how = shown.until(lambda: ended(shown), "it never ended")
            at -= 1
        assert how == "failed"
        said = saying(shown)
        assert "take the card out now" not in said
        assert shown.part("#prepare .next").is_displayed()

        left = disk.dump()
        backups = tmp_path / "home" / "backups"
        assert "not changed" in said or "resume" in said
        if "resume" not in said:
            assert left == before
            return
        disk.arm(left, Fault(-1, ""))
        words = ["resume", disk.device, "--image", "--yes", "--backup-dir", str(backups), "--card"]
        if main([*words, card]) != 0:  # it has its new id already, which is told
            card = capsys.readouterr().err.partition("it is ")[2].partition(".")[0]
            assert main([*words, card]) == 0
        finished = disk.dump()
        assert finished[: 1022 * 512] == whole[: 1022 * 512]
        assert finished[1024 * 512 :] in (whole[1024 * 512 :], before[1024 * 512 :])
    finally:
        disk.close()
