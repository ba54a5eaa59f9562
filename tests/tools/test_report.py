"""The report page: says what is true of the card, needs nothing else, works in a browser."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.errors import BlankCardError, OptionError, OutputExistsError
from miniscope_xr.tools.cli import write as export_commands
from miniscope_xr.tools.simulate import (
    FailedWrite,
    PowerLoss,
    RecordAgain,
    SimulatedCard,
    Stall,
    blank,
    simulate,
)

pytest.importorskip("PIL", reason="needs Pillow: pip install 'miniscope-xr[report]'")

from miniscope_xr.tools.report import write_report
from miniscope_xr.tools.report.charts import chart, timeline
from miniscope_xr.tools.report.collect import LostTime, clock
from miniscope_xr.tools.stream.gaps import Gap
from miniscope_xr.tools.stream.outputs import watched

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


@pytest.fixture(scope="module")
def gap_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedCard]:
    folder = tmp_path_factory.mktemp("report")
    card = simulate(frames=40, events=[Stall(400, 500)], settings={"led": 17})
    write_report(card.write(folder / "gap.img"), folder / "gap.html")
    return folder / "gap.html", card


class Outside(HTMLParser):
    """Collects everything a page would fetch, and checks that its tags are closed."""

    void = frozenset({"meta", "img", "input", "br", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void and not (self.open and self.open[-1] == "svg"):
            self.open.append(tag)
        self.images += tag == "img"
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action") and not (value or "").startswith("data:image/"):
                self.fetched.append(f"{tag} {name}={value}")
            assert tag != "img" or name != "alt" or value, "a picture without words"

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


class TestPage:
    @pytest.mark.slow
    def test_needs_no_other_file(self, gap_page: tuple[Path, SimulatedCard]) -> None:
        text = gap_page[0].read_text(encoding="utf-8")
        page = Outside()
        page.feed(text)
        assert page.fetched == []
        assert page.open == []
        assert page.images >= 3 + 12 + 1
        assert not re.search(r"url\(|@import|https?://", text)

    def test_says_what_is_missing(self, gap_page: tuple[Path, SimulatedCard]) -> None:
        text = gap_page[0].read_text(encoding="utf-8")
        numbers = gap_page[1].expected()[0]
        lost = int(numbers[-1]) + 1 - len(numbers)
        assert lost > 0
        assert f"{lost} of {numbers[-1] + 1} frames are missing" in text
        missing = sorted(set(range(int(numbers[-1]) + 1)) - set(numbers.tolist()))
        assert f"{missing[0]} to " in text
        assert "<td>led</td><td>17</td>" in text

    @pytest.mark.slow
    def test_says_that_nothing_is_missing(self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        write_report(clean_card[0], tmp_path / "a.html")
        assert "No frame is missing: 60 in a row" in (tmp_path / "a.html").read_text(encoding="utf-8")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("events", "frames", "headline"),
        [
            ([FailedWrite(52, 2)], 60, "No frame is missing, but 1 of 60 lack buffers."),
            ([FailedWrite(52, 12)], 500, "No frame is missing, but at least "),
            ([PowerLoss(buffer=150)], 60, "All 30 frames are numbered in a row, but look at this:"),
            ([Stall(500, 400)], 60, "frames are missing, and "),
        ],
    )
    def test_the_headline_fits_what_is_in_it(self, events: Any, frames: int, headline: str, tmp_path: Path) -> None:
        path = simulate(frames=frames, events=events).write(tmp_path / "a.img")
        write_report(path, tmp_path / "a.html")
        assert headline in (tmp_path / "a.html").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_a_recording_that_ends_within_a_frame_is_in_a_row(self, tmp_path: Path) -> None:
        path = simulate(seconds=1).write(tmp_path / "a.img")
        write_report(path, tmp_path / "a.html")
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        assert "No frame is missing: 20 in a row, the last one cut short by the end." in text

    @pytest.mark.slow
    def test_shows_what_is_known_of_the_session(self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        write_report(clean_card[0], tmp_path / "a.html", date="2026-03-14", animal="m<7>", notes="left CA1")
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        for shown in ("<dd>2026-03-14</dd>", "<dd>m&lt;7&gt;</dd>", "<dd>left CA1</dd>"):
            assert shown in text
        write_report(clean_card[0], tmp_path / "b.html")
        assert "Animal" not in (tmp_path / "b.html").read_text(encoding="utf-8")

    def test_pictures_have_a_scale_in_pixels(self, gap_page: tuple[Path, SimulatedCard]) -> None:
        text = gap_page[0].read_text(encoding="utf-8")
        assert re.search(r'<span style="width:[\d.]+%"></span>\d+ px', text)

    def test_a_step_over_a_gap_is_as_long_as_it_was(self, gap_page: tuple[Path, SimulatedCard]) -> None:
        steps = re.search(r"Time from frame to frame, \d+ to (\d+) ms", gap_page[0].read_text(encoding="utf-8"))
        assert steps
        assert int(steps[1]) >= 100, "two frame times at least: a frame is missing in between"

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["daq-wirefree", "v3-wirefree"])
    def test_other_devices(self, name: str, tmp_path: Path) -> None:
        path = simulate(name, frames=5).write(tmp_path / "a.img")
        write_report(path, tmp_path / "a.html")
        assert name in (tmp_path / "a.html").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_a_clock_that_starts_at_power_on_does_not_make_it_longer(self, tmp_path: Path) -> None:
        path = simulate("daq-wirefree", frames=20, start_offset_ms=3000).write(tmp_path / "a.img")
        write_report(path, tmp_path / "a.html")
        length = re.search(r"<dt>Length</dt><dd>([\d.]+) s</dd>", (tmp_path / "a.html").read_text(encoding="utf-8"))
        assert length
        assert float(length[1]) == pytest.approx(19 / 20, abs=0.11)

    @pytest.mark.slow
    def test_every_recording_of_a_card(self, tmp_path: Path) -> None:
        path = simulate(frames=10, events=[RecordAgain(frames=8)]).write(tmp_path / "a.img")
        write_report(path, tmp_path / "a.html")
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        assert "<h2>Recording 0</h2>" in text
        assert "<h2>Recording 1</h2>" in text

    def test_names_are_text_not_html(self, tmp_path: Path) -> None:
        name = "a<b>&c.img" if os.name == "posix" else "a&c.img"  # Windows keeps < and > out of names
        path = simulate(frames=5).write(tmp_path / name)
        write_report(path, tmp_path / "a.html")
        escaped = {"a<b>&c.img": "a&lt;b&gt;&amp;c.img", "a&c.img": "a&amp;c.img"}[name]
        assert f"<h1>{escaped}</h1>" in (tmp_path / "a.html").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_pictures_of_a_part(self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        """A stretch of time, a crop, dF/F; what is said of the card is still of all of it."""
        part: Any = {"time": "0.5s:1s", "crop": (10, 10, 40, 32), "bin": 2, "dff": True}
        write_report(clean_card[0], tmp_path / "part.html", **part)
        text = (tmp_path / "part.html").read_text(encoding="utf-8")
        assert "dF/F: black -10 %, white 50 % above rest" in text
        assert 'width="20" height="16"' in text
        labels = json.loads(re.search(r'"labels": (\[.*?\])', text)[1])  # type: ignore[index]
        assert len(labels) == 10
        assert labels[0].endswith(", 0.5 s")
        with pytest.raises(OptionError, match="selects none"):
            write_report(clean_card[0], tmp_path / "none.html", time="1h:2h")
        assert not (tmp_path / "none.html").exists()

    def test_an_existing_page_is_kept(self, clean_card: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        (tmp_path / "a.html").write_text("mine")
        with pytest.raises(OutputExistsError):
            write_report(clean_card[0], tmp_path / "a.html")
        assert (tmp_path / "a.html").read_text() == "mine"

    def test_a_blank_card_is_no_page(self, tmp_path: Path) -> None:
        path = blank().write(tmp_path / "a.img")
        with pytest.raises(BlankCardError):
            write_report(path, tmp_path / "a.html")
        assert not (tmp_path / "a.html").exists()


class TestCharts:
    def test_a_gap_is_where_it_was(self) -> None:
        drawn = timeline([LostTime(25.0, 50.0, Gap(500, 500, 500, 999))], 100.0)
        assert 'x="250.0" y="0" width="250.0"' in drawn
        assert "500 lost (500 to 999)" in drawn

    def test_a_short_gap_can_still_be_seen(self) -> None:
        width = re.search(
            r'class="gap" x="[\d.]+" y="0" width="([\d.]+)"', timeline([LostTime(10, 10.05, Gap(1, 1, 1, 1))], 3600.0)
        )
        assert width
        assert float(width[1]) >= 2

    def test_no_spike_is_lost_in_thinning(self) -> None:
        values = np.zeros(100_000)
        values[54_321] = 9
        drawn = chart("a", "V", np.arange(100_000.0), values, 1e5, (0.0, 10.0))
        assert " 10.0" in drawn  # nine tenths up, from the top
        assert len(drawn) < 40_000

    def test_missing_values_leave_a_hole(self) -> None:
        values = np.array([1.0, 2.0, np.nan, 2.0, 1.0])
        assert chart("a", "V", np.arange(5.0), values, 4.0).count("M") == 2

    @pytest.mark.parametrize(("seconds", "text"), [(3.44, "3.4 s"), (125, "2:05"), (3723.4, "1:02:03")])
    def test_times(self, seconds: float, text: str) -> None:
        assert clock(seconds) == text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
class TestBrowser:
    def dom(self, page: Path, script: str, width: int) -> str:
        """What a script finds in the page, as the browser laid it out in a frame of this width."""
        inner, outer = page.with_name(f"inner_{width}.html"), page.with_name(f"outer_{width}.html")
        probe = f"<script>function tell(t){{parent.postMessage(t,'*')}}setTimeout(function(){{{script}}},900)</script>"
        inner.write_text(page.read_text(encoding="utf-8").replace("</body>", probe + "</body>"), encoding="utf-8")
        # a window of a browser is never as narrow as a phone, a frame is
        frame = f"<iframe src='{inner.name}' width={width} height=900 style='border:0'></iframe>"
        outer.write_text(f"<title></title>{frame}<script>onmessage=e=>document.title=e.data</script>")
        done = subprocess.run(
            [str(CHROMIUM), *FLAGS, "--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom",
             outer.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        found = re.search(r"<title>(.*?)</title>", done.stdout)
        assert found, done.stderr[-2000:]
        return found[1]

    @pytest.mark.slow
    @pytest.mark.parametrize("width", [390, 1280])
    def test_nothing_is_wider_than_the_screen(self, gap_page: tuple[Path, SimulatedCard], width: int) -> None:
        script = "tell(document.documentElement.scrollWidth + ' ' + window.innerWidth)"
        wide, screen = map(int, self.dom(gap_page[0], script, width).split())
        assert wide <= screen == width

    @pytest.mark.slow
    def test_the_film_plays_and_stops(self, gap_page: tuple[Path, SimulatedCard]) -> None:
        script = (
            "var p=document.querySelector('.player'),b=p.querySelector('button'),o=p.querySelector('output');"
            "var first=o.value;b.click();setTimeout(function(){var then=o.value;b.click();"
            "tell([first!==then,b.textContent,then].join('|'));},500);"
        )
        moved, key, label = self.dom(gap_page[0], script, 1280).split("|")
        assert moved == "true"
        assert key == "Play"
        assert label.startswith("frame ")

    @pytest.mark.slow
    def test_dark_and_light_differ(self, gap_page: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        from PIL import Image

        corners = []
        for scheme in (0, 1):
            shot = tmp_path / f"{scheme}.png"
            subprocess.run(
                [str(CHROMIUM), *FLAGS, f"--blink-settings=preferredColorScheme={scheme}", "--window-size=800,600",
                 f"--screenshot={shot}", gap_page[0].as_uri()],
                capture_output=True, timeout=120, check=True,
            )  # fmt: skip
            with Image.open(shot) as image:
                corners.append(sum(image.convert("RGB").getpixel((3, 3))))
        assert corners[0] < 150
        assert corners[1] > 600


class TestCommands:
    @pytest.fixture
    def run(self) -> Callable[..., int]:
        parser = argparse.ArgumentParser()
        export_commands.register(parser.add_subparsers(dest="command"))

        def run(*argv: object) -> int:
            args = parser.parse_args([str(a) for a in argv])
            return int(args.func(args))

        return run

    @pytest.mark.slow
    def test_report(
        self, run: Callable[..., int], clean_card: tuple[Path, SimulatedCard], tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert run("report", clean_card[0], tmp_path / "a.html") == 0
        assert "a.html" in capsys.readouterr().out
        with pytest.raises(OptionError, match=r"ends in \.html"):
            run("report", clean_card[0], tmp_path / "a.pdf")

    def test_video(
        self, run: Callable[..., int], clean_card: tuple[Path, SimulatedCard], tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        pytest.importorskip("cv2")
        assert run("video", clean_card[0], tmp_path / "a.avi", "--frames", "5:9", "--codec", "ffv1") == 0
        assert "20 frames/s" in capsys.readouterr().out
        assert len((tmp_path / "a_timeStamps.csv").read_text().splitlines()) == 5
        assert run("video", clean_card[0], tmp_path / "a.avi", "--force", "--quiet", "--fps", "nominal") == 0
        assert capsys.readouterr().out == ""

    def test_export(self, run: Callable[..., int], clean_card: tuple[Path, SimulatedCard], tmp_path: Path) -> None:
        pytest.importorskip("h5py")
        assert run("export", clean_card[0], tmp_path / "a.h5", "--frames", ":4") == 0
        assert (tmp_path / "a.h5").exists()

    @pytest.mark.parametrize("words", [("--frames", "5"), ("--fps", "fast"), ("--frames", "a:b")])
    def test_wrong_words(self, run: Callable[..., int], words: tuple[str, str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            run("video", "card.img", "a.avi", *words)
        assert stopped.value.code == 2


class Enough(Exception):
    """Whoever watches wants it to end."""


@pytest.mark.slow
def test_whoever_watches_can_end_it_at_every_kind_of_step(tmp_path: Path) -> None:
    """What has no bar tells of itself too: a person who wants it to end waits for no film and no fit."""
    card = simulate(frames=12).write(tmp_path / "card.img")
    seen: list[tuple[str, int]] = []
    with watched(lambda what, done, total: seen.append((what, done))):
        write_report(card, tmp_path / "whole.html")
    assert ("film", 12) in seen
    kinds = dict.fromkeys(what for what, _ in seen)
    assert set(kinds) >= {"report", "pictures", "quality", "film"}
    assert sum(what == "quality" for what, _ in seen) > 4  # the reference and the findings are steps of their own
    last = {what: max(k for k, step in enumerate(seen) if step[0] == what) for what in kinds}
    for at in last.values():
        looks = itertools.count()

        def see(what: str, done: int, total: int, at: int = at, looks: itertools.count[int] = looks) -> None:
            if next(looks) == at:
                raise Enough

        with pytest.raises(Enough), watched(see):
            write_report(card, tmp_path / "ended.html")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["card.img", "whole.html"]
