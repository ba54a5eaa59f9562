"""The page in a real browser: every control does what it says, in both themes, from a phone's width, by keyboard alone.

Needs Chromium with its driver (Debian: chromium, chromium-driver) and selenium; skips where they are not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.tools.simulate import RecordAgain, Stall

from .browser import USABLE, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not USABLE, reason="no chromium, chromedriver or selenium: the page of `view` is not tried in a browser"
    ),
]
AXE = os.environ.get("AXE_CORE", "")  # path of axe.min.js, where somebody has it
WAIT = 60.0


class Page:
    """The viewer's page in a browser, looked at and touched as a person does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def part(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def parts(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def click(self, selector: str) -> None:
        part = self.part(selector)
        self.until(part.is_displayed, f"{selector} is not shown")
        self.run("arguments[0].scrollIntoView({block: 'center'})", part)
        part.click()

    def choose(self, selector: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        there = f'{selector} option[value="{value}"]'
        self.until(lambda: self.parts(there), f"{there} never came")
        Select(self.part(selector)).select_by_value(value)

    def write(self, selector: str, value: Any) -> None:
        """Type a value into a field and leave it."""
        from selenium.webdriver.common.keys import Keys

        part = self.part(selector)
        self.until(part.is_displayed, f"{selector} is not shown")  # what was opened by a click is drawn a moment later
        part.send_keys(Keys.CONTROL, "a")
        part.send_keys(str(value), Keys.TAB)

    def keys(self, *keys: str) -> None:
        self.part(".picture").send_keys(*keys)

    def until(self, true: Callable[[], Any], said: str) -> Any:
        """Wait until something is so; fail with what the page says if it never is."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            time.sleep(0.03)
        pytest.fail(f"{said}; the page says: {self.where!r}, {self.said!r}")

    @property
    def where(self) -> str:
        return " ".join(part.text for part in self.parts(".where")[:1])

    @property
    def said(self) -> str:
        return " ".join(part.text for part in self.parts(".said, #start-said, #prepare .told"))

    @property
    def row(self) -> int:
        return int(self.where.partition("frame ")[2].partition(" ")[0] or -1)

    def at(self, row: int) -> None:
        """Wait for a row to be shown."""
        self.until(lambda: f"frame {row} of " in self.where, f"row {row} never came")

    def grey(self) -> np.ndarray[Any, Any]:
        """Red values of the picture's pixels."""
        width, height = self.run("const c = document.querySelector('.picture'); return [c.width, c.height]")
        values = self.run(
            "const c = document.querySelector('.picture'); "
            "const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
            "return Array.from(data.filter((_, k) => k % 4 === 0))"
        )
        return np.array(values, np.uint8).reshape(height, width)

    def drawn(self, selector: str) -> bool:
        """Whether there is anything on a canvas."""
        return bool(
            self.run(
                "const c = document.querySelector(arguments[0]); "
                "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)",
                selector,
            )
        )

    def drag(self, start: tuple[float, float], by: tuple[float, float], selector: str = ".picture") -> None:
        """Drag on an element, from pixels right and down of its upper left corner."""
        from selenium.webdriver import ActionChains

        part = self.part(selector)
        self.until(part.is_displayed, f"{selector} is not shown")
        self.run("arguments[0].scrollIntoView({block: 'center'})", part)
        size = part.size
        chain = ActionChains(self.driver, duration=20)
        chain.move_to_element_with_offset(part, start[0] - size["width"] / 2, start[1] - size["height"] / 2)
        chain.click_and_hold().move_by_offset(*by).release().perform()

    def under(self, by: tuple[int, int]) -> tuple[int, int, float]:
        """Pixel and value that are told where the pointer is so far from the middle of the picture."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=20).move_to_element_with_offset(self.part(".picture"), *by).perform()
        said = self.until(lambda: self.part(".pixel").text, "no pixel")
        place, _, value = said.partition(": ")
        x, y = (int(part.split()[-1]) for part in place.split(","))
        return x, y, float(value)

    def is_accessible(self, part: str = "body") -> None:
        """Assert that axe-core finds nothing, where it is there (see AXE_CORE)."""
        if AXE:
            self.run(Path(AXE).read_text(encoding="utf-8"))
            script = "axe.run(arguments[0]).then(r => arguments[1](r.violations))"
            found = self.driver.execute_async_script(script, part)
            assert [(v["id"], [(n["target"], n["failureSummary"]) for n in v["nodes"]]) for v in found] == []

    def complaints(self) -> list[str]:
        """What the browser complained of, but for errors a test asked for."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(driver: Any, viewing: Any) -> Iterator[Callable[..., Page]]:
    """Open the page: ``page(path)`` waits for the first picture."""

    def opened(*cards: Path, width: int = 1280) -> Page:
        driver.set_window_size(width, 1000)
        driver.get(viewing(*cards).url)
        page = Page(driver)
        if cards:
            page.until(lambda: page.parts(".where"), "no panel came")
            page.at(0)
        return page

    yield opened
    driver.get("about:blank")
    driver.get_log("browser")


@pytest.fixture
def lossy(make_card: Any) -> Path:
    """A recording of 100 frames that lost some."""
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    return Path(path)


def as_it_is(page: Page) -> None:
    """Contrast from 0 to 255: what is drawn is what is on the card."""
    page.write(".low", 0)
    page.write(".high", 255)


def test_the_first_picture_is_the_first_frame(page, lossy, open_card):
    shown = page(lossy)
    as_it_is(shown)
    np.testing.assert_array_equal(shown.grey(), open_card(lossy).video[0].values)
    assert "0:00.0" in shown.where
    assert not shown.complaints()


def test_buttons_keys_and_the_field_go_to_a_frame(page, lossy, open_card):
    from selenium.webdriver.common.keys import Keys

    shown = page(lossy)
    as_it_is(shown)
    last = open_card(lossy).sizes["frame"] - 1
    shown.click(".on")
    shown.at(1)
    shown.keys(Keys.ARROW_RIGHT)
    shown.at(2)
    shown.keys(Keys.ARROW_LEFT)
    shown.at(1)
    shown.keys(Keys.END)
    shown.at(last)
    shown.keys(Keys.HOME)
    shown.at(0)
    shown.write(".row", 33)
    shown.at(33)
    np.testing.assert_array_equal(shown.grey(), open_card(lossy).video[33].values)
    shown.click(".back")
    shown.at(32)
    shown.write(".row", 5000)
    shown.at(last)


def test_the_film_plays_to_its_end_and_pauses(page, lossy, open_card):
    shown = page(lossy)
    shown.choose(".speed", "10")
    shown.click(".play")
    assert shown.part(".play").get_attribute("aria-label") == "pause"
    last = open_card(lossy).sizes["frame"] - 1
    shown.at(last)
    shown.until(lambda: shown.part(".play").get_attribute("aria-label") == "play", "it never stopped")
    shown.keys(" ")  # from the end it begins again
    shown.until(lambda: 0 <= shown.row < last, "it never began again")
    shown.keys(" ")
    shown.until(lambda: shown.part(".play").get_attribute("aria-label") == "play", "it did not pause")
    at = shown.row
    time.sleep(0.3)
    assert shown.row == at


def test_the_line_is_scrubbed(page, lossy, open_card):
    shown = page(lossy)
    count = open_card(lossy).sizes["frame"]
    line = shown.part(".line")
    width = line.size["width"]
    shown.drag((2, 50), (width / 2, 0), ".line")
    shown.until(lambda: abs(shown.row - count / 2) <= 2, "the middle never came")
    assert int(line.get_attribute("aria-valuenow")) == shown.row
    shown.until(lambda: "frames lost" in shown.part(".panel .legend").text, "no word of lost frames")
    assert "buffers" in shown.part(".panel .legend").text


def test_a_frame_that_lacks_buffers_says_so(page, lossy, open_card):
    shown = page(lossy)
    row = int(np.flatnonzero(~open_card(lossy).complete.values)[0])
    shown.until(lambda: shown.parts(".findings .link"), "no finding with a frame")
    assert "never reached the card" in shown.part(".findings").text
    shown.click(".findings .link")
    shown.at(row)
    assert "lacks buffers" in shown.where


def test_contrast_colours_zoom_and_grid(page, lossy, open_card):
    shown = page(lossy)
    assert shown.part(".auto").is_selected()
    assert shown.grey().max() == 255  # by itself
    as_it_is(shown)
    assert not shown.part(".auto").is_selected()
    shown.choose(".colours", "grey, inverted")
    np.testing.assert_array_equal(shown.grey(), 255 - open_card(lossy).video[0].values)
    shown.choose(".colours", "viridis")
    assert shown.grey().max() != 255
    wide = shown.part(".picture").size["width"]
    shown.click(".larger")
    assert shown.part(".picture").size["width"] > wide
    shown.click(".fit")
    assert shown.part(".picture").size["width"] == wide
    assert not shown.drawn(".marks")
    shown.click(".grid")
    assert shown.drawn(".marks")


def test_the_pixel_under_the_pointer_is_told(page, lossy, open_card):
    x, y, value = page(lossy).under((3, 3))
    assert value == open_card(lossy).video[0].values[y, x]


@pytest.mark.parametrize("kind", ["mean", "max", "std", "peak"])
def test_projections_are_drawn(page, lossy, kind):
    shown = page(lossy)
    before = shown.grey()
    shown.choose(".kind", kind)
    shown.until(lambda: shown.where.endswith("frames") and "so far" not in shown.where, "no projection")
    assert (shown.grey() != before).any()
    shown.choose(".kind", "film")
    shown.at(0)


@pytest.mark.parametrize("how", ["click", "key"])
def test_the_film_is_shown_as_its_change(page, lossy, open_card, how):
    """The numbers under the pointer are xarray's, the contrast is that of ``video --dff``."""
    shown, ds = page(lossy), open_card(lossy)
    if how == "click":
        shown.click(".change")
    else:
        shown.keys("d")
    shown.until(lambda: shown.where.endswith(", dF/F"), "it was not shown")
    shown.write(".row", 30)
    shown.at(30)
    rest = rested(ds)
    change = (ds.video[30].values - rest) / np.maximum(rest, 5)
    for by in ((3, 3), (-90, 50), (120, -100)):
        x, y, said = shown.under(by)
        assert said == pytest.approx(float(change[y, x]), abs=0.0051)
    assert [float(shown.part(f".{end}").get_attribute("value")) for end in ("low", "high")] == [-0.1, 0.5]
    grey = np.clip(np.round((change + 0.1) / 0.6 * 255), 0, 255)
    np.testing.assert_allclose(shown.grey(), grey, atol=1)
    before = shown.row
    shown.keys("d")
    shown.until(lambda: "dF/F" not in shown.where, "the film did not come back")
    assert shown.row == before
    assert float(shown.part(".high").get_attribute("value")) > 1


def test_a_cell_is_drawn_measured_and_saved(page, lossy, open_card):
    shown = page(lossy)
    zoom = shown.part(".picture").size["width"] / 304
    shown.drag((100 * zoom, 120 * zoom), (8 * zoom, 0))
    shown.until(lambda: shown.part(".save").is_enabled(), "the trace never ended")
    x, y, r = (int(field.get_attribute("value")) for field in shown.parts(".shapes input"))
    assert abs(x - 100) <= 1
    assert abs(y - 120) <= 1
    assert abs(r - 8) <= 1
    shown.click(".dff")
    assert shown.drawn(".traces")
    saved = Path(shown.driver.downloads) / "traces.csv"
    saved.unlink(missing_ok=True)
    shown.click(".save")
    shown.until(saved.exists, "nothing was saved")
    rows = [line.split(",") for line in saved.read_text().splitlines()]
    assert rows[0] == ["frame", "cell 1", "cell 1 dF/F"]
    values = np.array([float(row[1]) if row[1] else np.nan for row in rows[1:]])
    ys, xs = np.mgrid[:304, :304]
    inside = (xs - x) ** 2 + (ys - y) ** 2 <= r**2
    video = open_card(lossy, partial="nan").video.values
    np.testing.assert_allclose(values, [frame[inside].mean(dtype=np.float64) for frame in video])
    known = np.sort(values[np.isfinite(values)])
    rest = known[int(0.2 * (len(known) - 1))]
    changes = np.array([float(row[2]) if row[2] else np.nan for row in rows[1:]])
    np.testing.assert_allclose(changes, (values - rest) / rest)


def test_cells_are_made_changed_and_removed_by_keyboard(page, lossy):
    from selenium.webdriver.common.keys import Keys

    shown = page(lossy)
    for tool in ("circle", "box"):
        shown.choose(".tool", tool)
        shown.part(".add").send_keys(Keys.ENTER)
    assert len(shown.parts(".shapes li")) == 2
    shown.until(lambda: shown.part(".save").is_enabled(), "the traces never ended")
    shown.write(".shapes li:first-child input", 40)
    shown.until(lambda: shown.part(".save").is_enabled(), "the changed trace never ended")
    shown.part(".shapes li button").send_keys(Keys.ENTER)
    assert len(shown.parts(".shapes li")) == 1


def test_a_second_recording_is_chosen(page, make_card, open_card):
    path, _ = make_card(frames=20, events=[RecordAgain(12)])
    shown = page(path)
    shown.choose(".recording", "1")
    shown.until(lambda: "of 12 " in shown.where, "the second recording never came")
    as_it_is(shown)
    np.testing.assert_array_equal(shown.grey(), open_card(path, recording=1).video[0].values)


@pytest.mark.parametrize("layout", ["v3-wirefree", "daq-wirefree"])
def test_pictures_of_other_sizes(page, make_card, open_card, layout):
    path, _ = make_card(layout, frames=12)
    shown = page(path)
    as_it_is(shown)
    np.testing.assert_array_equal(shown.grey(), open_card(path).video[0].values)


def test_a_card_is_opened_in_the_page_and_two_stand_beside_each_other(page, make_card, tmp_path):
    first, _ = make_card(frames=10)
    second, _ = make_card(frames=12, seed=2)
    shown = page()
    shown.until(lambda: len(shown.parts("#found button")) == 2, "the images of the folder are not offered")
    shown.write("#path", "nowhere.img")
    shown.click("#open-form button")
    shown.until(lambda: "nowhere.img" in shown.part("#start-said").text, "no word of the wrong name")
    shown.click("#found li:first-child button")
    shown.until(lambda: len(shown.parts(".panel")) == 1, "the first card did not open")
    shown.click("#start summary")
    shown.write("#path", second)
    shown.click("#open-form button")
    shown.until(lambda: len(shown.parts(".panel")) == 2, "the second card did not open")
    assert {panel.get_attribute("aria-label") for panel in shown.parts(".panel")} == {str(first), str(second)}


@pytest.mark.parametrize("kind", ["text/uri-list", "text/plain"])
def test_a_path_that_is_dropped_is_opened(page, clean_card, kind):
    shown = page()
    shown.until(lambda: shown.parts("#found li"), "the page was never whole")
    text = clean_card[0].as_uri() if kind == "text/uri-list" else str(clean_card[0])
    shown.run(
        "const data = new DataTransfer(); data.setData(arguments[0], arguments[1]); "
        "document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }))",
        kind,
        text,
    )
    shown.until(lambda: shown.parts(".where"), "no panel came")
    shown.at(0)


def test_cells_are_written_as_netcdf(page, lossy, tmp_path):
    shown = page(lossy)
    shown.click(".add")
    shown.until(lambda: shown.part(".keep").is_enabled(), "the trace never ended")
    shown.click(".keep")
    shown.until(lambda: "written: " in shown.part(".progress").text, "it was never written")
    with xr.open_dataset(tmp_path / f"{lossy.stem}-cells.nc") as made:
        assert made.F.shape == (1, 92)


def test_a_card_swapped_while_one_looks_is_told(page, lossy, make_card):
    shown = page(lossy)
    time.sleep(0.5)  # what was fetched ahead is the old card's, and was
    os.truncate(lossy, 600_000)
    shown.write(".row", 90)
    shown.until(lambda: "open it again" in shown.said, "no word of it")


def test_warnings_stand_above_the_film(page, make_card, open_card):
    path, card = make_card(frames=40)
    os.truncate(path, len(card.data) - 500_000)
    shown = page(path)
    warnings = open_card(path).attrs.get("warnings", [])
    assert [item.text for item in shown.parts(".warnings li")] == [" ".join(str(w).split()) for w in warnings]
    assert "truncated" in shown.part(".facts").text


def rested(ds: xr.Dataset) -> np.ndarray[Any, Any]:
    """The picture at rest: the 20th percentile of 100 whole frames from all over a recording."""
    rows = np.unique(np.linspace(0, ds.sizes["frame"] - 1, 100).astype(int))
    whole = rows[ds.complete.values[rows]]
    return np.percentile(ds.video.values[whole], 20, axis=0)


def in_theme(page: Page, theme: str) -> None:
    while page.run("return document.documentElement.dataset.theme") != theme:
        page.click("#theme")


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390), ("light", 640), ("dark", 320)],
)
def test_both_themes_and_widths(page, lossy, theme, width):
    """A phone, a screen, and a screen at 200 % and 400 %."""
    shown = page(lossy, width=width)
    in_theme(shown, theme)
    ground = shown.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground[3:].replace("(", "[").replace(")", "]"))) > 380) == (theme == "light")
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    shown.click(".add")
    shown.until(lambda: shown.part(".save").is_enabled(), "the trace never ended")
    assert shown.run("return document.documentElement.scrollWidth <= window.innerWidth")
    shown.is_accessible()


def test_every_control_has_a_name(page, lossy):
    shown = page(lossy)
    shown.click(".add")
    shown.click("#start summary")
    for control in shown.parts("button, input, select, canvas:not([aria-hidden])"):
        if not control.is_displayed():
            continue
        assert control.accessible_name, control.get_attribute("outerHTML")


def test_a_page_that_is_closed_ends_its_server(driver, viewing, clean_card):
    asker = viewing(clean_card[0])
    driver.get(asker.url)
    page = Page(driver)
    page.until(lambda: page.parts(".where"), "no panel came")
    driver.refresh()  # a page that is loaded again keeps its server
    page.until(lambda: page.parts(".where"), "no panel came again")
    assert asker.get("start").status == 200
    driver.get("about:blank")
    page_gone = asker.viewer._server.pages.gone
    end = time.monotonic() + WAIT
    while not page_gone(0.2):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_file_is_written(page, lossy, open_card, tmp_path):
    shown = page(lossy)
    shown.click(".files summary")
    shown.choose(".write [name=kind]", "netcdf")
    shown.write(".write [name=start]", 10)
    shown.write(".write [name=stop]", 19)
    assert shown.part(".write [name=path]").get_attribute("value") == f"{lossy.stem}.nc"
    shown.click(".write [name=go]")
    shown.until(lambda: shown.part(".written").text.startswith("written: "), "it was never written")
    with xr.open_dataset(tmp_path / f"{lossy.stem}.nc") as made:
        np.testing.assert_array_equal(made.video.values, open_card(lossy).video[10:20].values)
    shown.click(".write [name=go]")
    shown.until(lambda: "exists already" in shown.part(".written").text, "what is there was not kept")
    assert not shown.complaints()


@pytest.mark.usefixtures("slowly")
def test_writing_is_ended_by_its_button(page, lossy, tmp_path):
    shown = page(lossy)
    shown.click(".files summary")
    shown.choose(".write [name=kind]", "netcdf")
    shown.click(".write [name=go]")
    shown.until(lambda: shown.part(".write progress").get_attribute("value") != "0", "no progress")
    assert not shown.part(".write [name=go]").is_enabled()
    shown.click(".write [name=cancel]")
    shown.until(lambda: "nothing of it is left" in shown.part(".written").text, "it was never ended")
    shown.until(lambda: [path.suffix for path in tmp_path.iterdir()] == [".img"], "something is left")
    assert shown.part(".write [name=go]").is_enabled()
