"""Killed anywhere and run again: the same bytes as undisturbed."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from miniscope_xr.tools.simulate import Stall, simulate

from ..conftest import SMALL
from .conftest import MOMENT
from .test_collect import content

FILES = ["--export", "tiff", "--export", "hdf5"]
PAGES = ["--report"]
NAMES = ["files", "pages", "folders"]
FOLDERS = ["--export", "zarr"]


class Child:
    """The process in whose forks the commands run."""

    def __init__(self, home: Path) -> None:
        root = Path(__file__).parents[2]
        home.mkdir()
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "HOME": str(home), "XDG_DATA_HOME": str(home)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.collect.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=env, cwd=home,
        )  # fmt: skip

    def __call__(self, words: list[object], kill_at: int = 0) -> tuple[int, int]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([[str(word) for word in words], kill_at]) + "\n")
        self.process.stdin.flush()
        code, moments = json.loads(self.process.stdout.readline())
        return code, moments

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills forks")
@pytest.mark.parametrize(
    ("outputs", "kills"), [(FILES, 34), (PAGES, 8), (FOLDERS, 8)], ids=["files", "pages", "folders"]
)
def test_killed_at_fifty_moments_and_run_again(tmp_path, outputs, kills):
    for library in ("PIL", "h5py", "tifffile", "zarr"):
        pytest.importorskip(library)
    cards = [
        simulate(frames=6, seed=1, **SMALL).write(tmp_path / "one.img"),
        simulate(frames=20, seed=2, events=[Stall(400, 400)], **SMALL).write(tmp_path / "two.img"),
    ]
    into, expected = tmp_path / "lab", tmp_path / "undisturbed"
    words = ["collect", *cards, "into", into, "--name", "{session}/{card}", "--session", "s", "--date", MOMENT]
    words += ["--notes", "as it was", *outputs]
    child = Child(tmp_path / "home")
    try:
        for _ in range(2):  # the second one imports nothing
            shutil.rmtree(into, ignore_errors=True)
            code, moments = child(words)
            assert code == 7  # one card stalled
        into.rename(expected)
        wanted = content(expected)
        assert len([name for name in wanted if name.endswith(".img")]) == 2
        assert moments > 2 * kills
        chosen = random.Random(20260314)
        for at in sorted(chosen.sample(range(1, moments), kills)):
            moment = at
            while child(words, moment)[0] != -9:  # threads do not go the same way each time: a late one never came
                shutil.rmtree(into)
                moment = moment * 3 // 4
                assert moment, f"moment {at} of {moments} and none before it came"
            if at % 3 == 0:  # and killed again while it goes on, if it goes on for that long
                child(words, chosen.randrange(1, moments // 2))
            again, _ = child(words)
            assert again == 7, f"killed at moment {at} of {moments}"
            found = content(into)
            assert set(found) == set(wanted), f"killed at moment {at} of {moments}"
            assert [name for name in wanted if found[name] != wanted[name]] == [], f"killed at moment {at} of {moments}"
            shutil.rmtree(into)
    finally:
        child.close()
