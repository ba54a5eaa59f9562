"""The widget of a notebook in a real browser: a page plays the notebook, the messages go to the real widgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.tools.simulate import Stall

from .notebook import Comm, notebook
from .test_page import Page, as_it_is, driver, pytestmark  # noqa: F401 - the browser, and when there is none

comm = pytest.importorskip("comm", reason="needs ipywidgets")
pytest.importorskip("anywidget", reason="needs anywidget")


class Widget(Page):
    """One widget on the notebook's page: everything of it lies in its shadow root."""

    def __init__(self, driver: Any, number: int) -> None:  # noqa: F811
        super().__init__(driver)
        self.number = number

    @property
    def root(self) -> Any:
        return self.run("return window.widgets[arguments[0]].el.firstElementChild", self.number).shadow_root

    def part(self, selector: str) -> Any:
        return self.root.find_element("css selector", selector)

    def parts(self, selector: str) -> list[Any]:
        found: list[Any] = self.root.find_elements("css selector", selector)
        return found

    def write(self, selector: str, value: Any) -> None:
        """Type a value into a field (keys sent to an element go behind what is in it: it is in a shadow root)."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        part = self.part(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", part)
        chain = ActionChains(self.driver, duration=20).click(part)
        chain.key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(str(value), Keys.TAB).perform()

    @property
    def said(self) -> str:
        return " ".join(part.text for part in self.parts(".said"))

    def grey(self) -> np.ndarray[Any, Any]:
        width, height, values = self.run(
            "const c = arguments[0]; const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
            "return [c.width, c.height, Array.from(data.filter((_, k) => k % 4 === 0))]",
            self.part(".picture"),
        )
        return np.array(values, np.uint8).reshape(height, width)

    def drawn(self, selector: str) -> bool:
        return bool(
            self.run(
                "const c = arguments[0]; "
                "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)",
                self.part(selector),
            )
        )


@pytest.fixture
def shown(driver: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Widget]]]:  # noqa: F811
    """Show Datasets in a notebook, each as a widget; waits for the first picture of each."""
    monkeypatch.setattr(comm, "create_comm", Comm)
    made = []
    with notebook() as url:

        def show(*datasets: xr.Dataset, width: int = 1280) -> list[Widget]:
            made.extend(ds.miniscope.view() for ds in datasets)
            driver.set_window_size(width, 1000)
            driver.get(url)
            widgets = [Widget(driver, k) for k in range(len(datasets))]
            end = time.monotonic() + 20
            while driver.execute_script("return window.widgets?.length ?? 0") < len(datasets):
                assert time.monotonic() < end, driver.get_log("browser")
                time.sleep(0.05)
            for one in widgets:
                one.until(lambda one=one: one.parts(".where"), "no panel came")
                one.at(0)
            return widgets

        yield show
        driver.get("about:blank")
        driver.get_log("browser")
        for one in made:
            one.close()


@pytest.fixture
def lossy(make_card: Any, open_card: Any) -> xr.Dataset:
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    found: xr.Dataset = open_card(path)
    return found


def test_the_film_is_scrubbed_and_played(shown, lossy):
    from selenium.webdriver.common.keys import Keys

    (widget,) = shown(lossy)
    as_it_is(widget)
    np.testing.assert_array_equal(widget.grey(), lossy.video[0].values)
    widget.write(".row", 33)
    widget.at(33)
    np.testing.assert_array_equal(widget.grey(), lossy.video[33].values)
    widget.keys(Keys.ARROW_RIGHT)
    widget.at(34)
    last = lossy.sizes["frame"] - 1
    line = widget.part(".line")
    widget.drag((2, 50), (line.size["width"] / 2, 0), ".line")
    widget.until(lambda: abs(widget.row - last / 2) <= 2, "the middle never came")
    widget.choose(".speed", "10")
    widget.click(".play")
    widget.at(last)
    assert [text for text in widget.complaints() if "getImageData" not in text] == []  # what this test itself does


def test_a_cell_is_measured_and_a_finding_leads_to_its_frame(shown, lossy):
    (widget,) = shown(lossy)
    widget.click(".add")
    widget.until(lambda: widget.part(".save").is_enabled(), "the trace never ended")
    assert widget.drawn(".traces")
    widget.until(lambda: widget.parts(".findings .link"), "no finding with a frame")
    row = int(np.flatnonzero(~lossy.complete.values)[0])
    widget.click(".findings .link")
    widget.at(row)
    assert "lacks buffers" in widget.where
    widget.choose(".kind", "mean")
    widget.until(lambda: widget.where.endswith("frames") and "so far" not in widget.where, "no projection")


def test_two_widgets_are_two(shown, lossy):
    part = lossy.isel(frame=slice(50, 60), x=slice(0, 120), y=slice(20, 100))
    one, other = shown(lossy, part)
    assert "of 10 " in other.where
    as_it_is(other)
    other.write(".row", 4)
    other.at(4)
    np.testing.assert_array_equal(other.grey(), part.video[4].values)
    assert one.row == 0
    one.click(".add")
    assert one.parts(".shapes li")
    assert other.parts(".shapes li") == []


def test_real_numbers_are_drawn(shown, lossy):
    from selenium.webdriver import ActionChains

    change = (lossy.video - lossy.video.astype(float).mean("frame")).isel(frame=slice(9))
    (widget,) = shown(lossy.isel(frame=slice(9)).assign(video=change))
    assert widget.grey().max() == 255
    ActionChains(widget.driver, duration=20).move_to_element_with_offset(widget.part(".picture"), 3, 3).perform()
    said = widget.until(lambda: widget.part(".pixel").text, "no pixel")
    x, y = (int(part.split()[-1]) for part in said.partition(":")[0].split(","))
    assert float(said.rpartition(":")[2]) == pytest.approx(float(change[0, y, x]), abs=0.006)


def test_the_notebook_keeps_its_looks_and_its_keys(shown, lossy):
    (widget,) = shown(lossy)
    assert widget.run("return getComputedStyle(document.body).margin") == "20px"
    button = widget.run("return getComputedStyle(arguments[0]).backgroundColor", widget.part(".play"))
    assert button != "rgb(255, 0, 0)"
    widget.keys("a", "b", " ", " ")
    widget.write(".row", 12)
    assert widget.run("return window.pressed") == []
    host = widget.run("return window.widgets[0].el.firstElementChild.dataset.lmSuppressShortcuts")
    assert host == "true"  # JupyterLab listens before anybody else, and passes over what says so


def test_it_takes_the_notebook_s_theme(shown, lossy):
    (widget,) = shown(lossy)
    for light, ground in (("false", "16, 22, 28"), ("true", "255, 255, 255")):
        widget.run("document.body.dataset.jpThemeLight = arguments[0]", light)
        widget.until(
            lambda ground=ground: ground in widget.run(
                "return getComputedStyle(window.widgets[0].el.firstElementChild).backgroundColor"),
            f"it never became {light}",
        )  # fmt: skip


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1280, "light"), (1280, "dark")])
def test_it_fits_and_has_names(shown, lossy, width, theme):
    (widget,) = shown(lossy, width=width)
    widget.run("document.body.dataset.jpThemeLight = arguments[0]", str(theme == "light").lower())
    host = "return window.widgets[0].el.firstElementChild.dataset.theme"
    widget.until(lambda: widget.run(host) == theme, "it never took the theme")
    widget.click(".add")
    widget.until(lambda: widget.part(".save").is_enabled(), "the trace never ended")
    assert widget.run("return document.documentElement.scrollWidth <= window.innerWidth")
    for control in widget.parts("button, input, select, canvas:not([aria-hidden])"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")
    widget.is_accessible("section")


def test_a_kernel_that_says_nothing_is_told(shown, lossy, monkeypatch):
    (widget,) = shown(lossy)
    widget.until(lambda: widget.parts(".findings .link"), "no finding")
    time.sleep(1)  # what was fetched ahead has come
    # the notebook's page forgets what it is told, as one whose kernel has ended
    widget.run("window.widgets[0].model.send = () => {}; window.setTimeout_ = window.setTimeout")
    widget.run("window.setTimeout = (does, ms) => window.setTimeout_(does, ms > 5000 ? 50 : ms)")
    widget.write(".row", 99)
    widget.until(lambda: "run this cell again" in widget.said, "no word of it")


def test_a_widget_that_is_taken_away_asks_no_more(shown, lossy):
    (widget,) = shown(lossy)
    widget.click(".play")
    widget.run("window.widgets[0].end()")
    assert widget.run("return window.widgets[0].el.children.length") == 0
    assert widget.run("return window.widgets[0].model.heard.size") == 0
    time.sleep(0.3)
    sent = widget.run("return window.sent.length")
    time.sleep(0.4)
    assert widget.run("return window.sent.length") == sent


def test_writing_a_file(shown, lossy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (widget,) = shown(lossy)
    widget.click(".files summary")
    widget.choose(".write [name=kind]", "netcdf")
    widget.write(".write [name=stop]", 19)
    widget.write(".write [name=path]", "part.nc")
    widget.click(".write [name=go]")
    widget.until(lambda: widget.part(".written").text.startswith("written: "), "it was never written")
    with xr.open_dataset(tmp_path / "part.nc") as made:
        np.testing.assert_array_equal(made.video.values, lossy.video[:20].values)
