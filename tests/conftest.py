"""The card factory and the rules every test keeps."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xarray as xr
from hypothesis import settings

from miniscope_xr.source.local import Device
from miniscope_xr.tools.simulate import SimulatedCard, simulate
from tests.cards.expected_failures import EXPECTED_FAILURES
from tests.flash import loops

# The same examples every time, however slow the machine; `python tests/measure/draw.py` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("draw", deadline=None, print_blob=True)
settings.load_profile("same")

# A shell's background, and nohup, have signals ignored, and what is started inherits that: tests send these signals.
for _name, _handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
    _number = getattr(signal, _name, None)  # Windows has no SIGHUP
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

pytest.register_assert_rewrite("tests.flash.life")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "cards"
SMALL = {"width": 64, "height": 1000}  # 64,000 bytes: four buffers a frame, a quarter of the pixels of a real one


def real_cards() -> ModuleType | None:
    """The module that rebuilds card images written by the real firmware code, where it is present."""
    if not (SHARED / "cards.py").exists():
        return None
    sys.path.insert(0, str(SHARED))
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        import cards
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(str(SHARED))
    return cards


def real_names(recorded: bool = True) -> list[Any]:
    """Parameters: the names of the real cards, or one that skips with the reason."""
    cards = real_cards()
    if cards is None:
        return [pytest.param("none", marks=pytest.mark.skip("../shared/cards, the real firmware's cards, is not here"))]
    return [name for name in cards.names() if bool(cards.truth(name)["frames"]) is recorded]


def _expected_failure(item: pytest.Item) -> bool:
    """Whether tests/cards/expected_failures.py lists a test with this card."""
    call = getattr(item, "callspec", None)
    if call is None:
        return False
    rest = [part for part in call.id.split("-") if part not in EXPECTED_FAILURES]
    named = [test for part in call.id.split("-") for test in EXPECTED_FAILURES.get(part, ())]
    function = item.name.partition("[")[0]
    return function in named or f"{function}[{'-'.join(rest)}]" in named


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the expected failures; strictly, so that one that passes has to leave the list."""
    for item in items:
        if _expected_failure(item):
            item.add_marker(pytest.mark.xfail(strict=True, reason="tests/cards/expected_failures.py"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each kind of skip and expected failure, not one for each test."""
    kinds: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        kinds[f"skipped: {said.removeprefix('Skipped: ')}"] += 1
    for report in terminalreporter.stats.get("xfailed", ()):
        kinds[f"expected to fail: {report.wasxfail}"] += 1
    if kinds:
        terminalreporter.section("not passed, and why")
    for kind, number in sorted(kinds.items()):
        terminalreporter.line(f"{number:5} {kind}")


@pytest.fixture(scope="session")
def real_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a real card's image once a session; skips where the cards are not present."""
    cards = real_cards()
    folder = tmp_path_factory.mktemp("real")

    def write(name: str) -> Path:
        if cards is None:
            pytest.skip("../shared/cards, the real firmware's cards, is not here")
        path = folder / f"{name}.img"
        if not path.exists():
            path.write_bytes(cards.image(name))
            path.chmod(0o444)
        return path

    return write


@pytest.fixture
def make_card(tmp_path: Path) -> Callable[..., tuple[Path, SimulatedCard]]:
    """The card factory: ``path, card = make_card(frames=..., events=[...])``."""
    made = 0

    def make(*args: Any, **options: Any) -> tuple[Path, SimulatedCard]:
        nonlocal made
        card = simulate(*args, **options)
        made += 1
        return card.write(tmp_path / f"card{made}.img"), card

    return make


@pytest.fixture(scope="session")
def clean_card(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedCard]:
    """A clean v4 card of 60 frames, shared by tests that only read."""
    card = simulate(frames=60, seed=5)
    return card.write(tmp_path_factory.mktemp("clean") / "clean.img"), card


@pytest.fixture
def open_card() -> Iterator[Callable[..., xr.Dataset]]:
    """``xr.open_dataset(..., engine="miniscope")`` whose datasets are closed after the test."""
    opened: list[xr.Dataset] = []

    def open_dataset(path: Path | str, **options: Any) -> xr.Dataset:
        ds = xr.open_dataset(path, engine="miniscope", **options)
        opened.append(ds)
        return ds

    yield open_dataset
    for ds in opened:
        ds.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every (offset, bytes) that is read from a card or an image."""
    seen: list[tuple[int, int]] = []
    here = threading.local()  # one call may end in another: without preadv a readv is a read

    def counted(name: str, places: Callable[[Any, Any], list[tuple[int, int]]]) -> None:
        real = getattr(Device, name)

        def call(self: Device, at: Any, what: Any) -> Any:
            if getattr(here, "within", False):
                return real(self, at, what)
            seen.extend(places(at, what))
            here.within = True
            try:
                return real(self, at, what)
            finally:
                here.within = False

        monkeypatch.setattr(Device, name, call)

    counted("read", lambda offset, length: [(offset, length)])
    counted("readv", lambda offset, buffers: [(offset, sum(len(b) for b in buffers))])
    counted("gather", lambda offsets, length: [(offset, length) for offset in offsets])
    return seen


def _open_files() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("/dev/loop") or target.endswith((".img", ".avi", ".nc", ".csv")):
            found.add(f"{fd.name}:{target}")
    return found


@pytest.fixture(autouse=True)
def no_file_left_open() -> Iterator[None]:
    """Fail a test that leaves a card, image or output open."""
    if not Path("/proc/self/fd").exists():
        yield
        return
    before = _open_files()
    yield
    if _open_files() - before:
        gc.collect()
    assert not _open_files() - before, "files left open by this test"


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Attach an image to a loop device; skips loudly where that needs rights we do not have."""
    attached: list[str] = []

    def attach(image: Path, *options: str) -> str:
        if os.name != "posix" or sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("needs root on Linux for a loop device")
        try:
            attached.append(loops.attach(*options, image))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs loop devices: {error}")
        return attached[-1]

    yield attach
    for device in attached:
        loops.detach(device)
