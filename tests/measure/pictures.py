"""Make the pictures of `docs/viewing.md` again, with today's page (all but that of a notebook).

    python tests/measure/pictures.py [docs]

The card is simulated: the same one every time. Look at what was made before it is kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr.tools.cli.read import filmed
from miniscope_xr.tools.simulate import Stall, calcium_scene, simulate
from miniscope_xr.tools.view import Viewer
from tests.view.browser import browser

CELLS = ((65, 141), (223, 128), (164, 164))  # bright ones of the scene
_CELL = """
const panel = document.querySelector(".panel");
const inputs = [...panel.querySelectorAll(".shapes li:last-child input")];
[arguments[0], arguments[1], 5].forEach((value, k) => {
  inputs[k].value = value;
  inputs[k].dispatchEvent(new Event("change"));
});
"""
_FIELD = """
const [name, value] = arguments;
const field = document.querySelector(name);
field.value = value;
for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
"""


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "the page never came so far"
        time.sleep(0.05)


def keep(driver: Any, path: Path, selector: str) -> None:
    """A picture of a part of the page, all of it."""
    wide, around = driver.execute_script("return [window.innerWidth, window.outerHeight - window.innerHeight]")
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    part = driver.find_element("css selector", selector)
    for _ in range(4):  # a taller window has a larger picture
        tall = min(int(part.rect["height"]), 2000)
        driver.set_window_size(wide, tall + around)
        time.sleep(0.7)  # it draws its canvases anew
    driver.execute_script("window.scrollTo(0, 0)")
    part.screenshot(str(path))


def look(driver: Any, theme: str) -> None:
    """Three cells, in the middle of the film."""
    driver.execute_script(
        "document.documentElement.dataset.theme === arguments[0] || document.querySelector('#theme').click()", theme
    )
    until(
        lambda: (
            driver.find_element("css selector", ".panel .legend").text
            and "looking" not in driver.find_element("css selector", ".findings").text
        )
    )
    for x, y in CELLS:
        driver.find_element("css selector", ".panel .add").click()
        driver.execute_script(_CELL, x, y)
    driver.find_element("css selector", ".panel .dff").click()
    until(lambda: driver.find_element("css selector", ".panel .save").is_enabled())
    driver.execute_script(_FIELD, ".panel .row", 700)
    until(lambda: "frame 700" in driver.find_element("css selector", ".where").text)
    driver.execute_script("document.activeElement.blur()")


def prepare(driver: Any, card: Path) -> None:
    """The wizard, up to the summary."""
    driver.find_element("css selector", "#prepare > summary").click()
    driver.execute_script("document.querySelector('#start').open = false")
    driver.execute_script(_FIELD, "#prepare .pick [name='path']", str(card))
    driver.find_element("css selector", "#prepare .pick button[type='submit']").click()
    until(lambda: driver.find_element("css selector", "#prepare .card").is_displayed())
    for name, value in {"gain": "2", "led": "12", "ewl": "120", "record_length": "2"}.items():
        driver.execute_script(_FIELD, f"#prepare [name='set-{name}']", value)
    driver.find_element("css selector", "#prepare .choose button[type='submit']").click()
    until(lambda: driver.find_element("css selector", "#prepare .confirm").is_displayed())


def main() -> None:
    """Make them, in a folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    with ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        card = made / "card.img"
        with filmed(calcium_scene(304, 304, 3), 1200) as camera:
            events = [Stall(16_000, 420), Stall(41_000, 700)]
            simulate(
                "v4-wirefree", frames=1200, camera=camera, settings={"gain": 2, "led": 12, "ewl": 120}, events=events
            ).write(card)
        driver = stack.enter_context(browser(made))
        for name, width, theme in (("viewing.png", 1280, "light"), ("viewing-phone.png", 390, "dark")):
            with Viewer(made) as viewer:
                viewer.open(str(card))
                driver.set_window_size(width, 1000)
                driver.get(viewer.url)
                until(lambda: driver.find_elements("css selector", ".where"))
                look(driver, theme)
                keep(driver, folder / name, "body")
        with Viewer(made) as viewer:
            driver.set_window_size(1100, 1000)
            driver.get(viewer.url)
            until(lambda: driver.find_elements("css selector", "#found li"))
            prepare(driver, card)
            keep(driver, folder / "wizard.png", "body")
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        print(json.dumps(complaints))


if __name__ == "__main__":
    main()
