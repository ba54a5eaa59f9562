"""The wizard in a real browser: from the reader to "take it out now", on an image and on a loop device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from miniscope_xr.tools.flash import jobs
from tests.flash.loops import loop, needs_loops

from .test_page import Page, driver, page, pytestmark  # noqa: F401 - the browser, and when there is none
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
