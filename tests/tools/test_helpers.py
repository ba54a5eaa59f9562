"""Processes that help to write an archive: they take their share once they are ready, and nobody waits for them."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from miniscope_xr.engine import dataset
from miniscope_xr.errors import OutputError
from miniscope_xr.tools.export import archive_store as store_module
from miniscope_xr.tools.export import helpers
from miniscope_xr.tools.export.archive import archive
from miniscope_xr.tools.export.archive_store import Block, write_block
from miniscope_xr.tools.stream.outputs import watched

zarr = pytest.importorskip("zarr", reason="needs zarr")
pytest.importorskip("dask.array", reason="needs dask")

pytestmark = pytest.mark.slow  # processes

SMALL = {"width": 64, "height": 1000}


@pytest.fixture(autouse=True)
def blocks_of_ten_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 5 * 64_000)
    monkeypatch.setattr(store_module, "_CHUNKS", 2)


@pytest.fixture
def slow_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is so slow that a helper is always done with something before it."""
    real = helpers.wait
    monkeypatch.setattr(helpers, "wait", lambda futures, timeout, when: real(futures, 120 if futures else 0, when))


def files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_each_block_is_written_once_here_or_by_a_helper(make_card: Any, slow_here: None, tmp_path: Path) -> None:
    card, _ = make_card(frames=95, **SMALL)
    with store_module.store_made(zarr, str(tmp_path / "a.zarr"), 2):
        blocks = store_module.plan_groups([card], str(tmp_path / "a.zarr")).blocks
        here: list[Block] = []
        frames = 0
        for item in helpers.written_here(blocks, 2):
            if isinstance(item, Future):
                frames += item.result()
            else:
                here.append(item)
                frames += write_block(item)
    assert frames == 95
    assert len(blocks) == 10
    assert blocks[0] in here, "nobody waits for a helper to begin"
    assert 1 <= len(here) < 10
    assert multiprocessing.active_children() == []


def test_helpers_change_no_byte(make_card: Any, slow_here: None, tmp_path: Path) -> None:
    cards = [make_card(frames=frames, seed=frames, **SMALL)[0] for frames in (45, 30)]
    for name, workers in (("one.zarr", 1), ("three.zarr", 3)):
        assert archive(cards, tmp_path / name, workers, progress=False) == 75
    assert files(tmp_path / "one.zarr") == files(tmp_path / "three.zarr")


@pytest.mark.parametrize("blocks", [1, 2])
def test_for_a_block_or_two_nobody_is_called(
    make_card: Any, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "ProcessPoolExecutor", None)
    card, _ = make_card(frames=10 * blocks, **SMALL)
    assert archive([card], tmp_path / "a.zarr", 8, progress=False) == 10 * blocks


def test_nobody_waits_for_a_helper_that_is_not_ready(
    make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy computer: here it would sleep for an hour first."""
    monkeypatch.setattr(helpers, "_ready", functools.partial(time.sleep, 3600))
    card, _ = make_card(frames=40, **SMALL)
    assert archive([card], tmp_path / "a.zarr", 3, progress=False) == 40
    assert multiprocessing.active_children() == []


def test_who_leaves_leaves_no_helper_behind(make_card: Any, slow_here: None, tmp_path: Path) -> None:
    """Ctrl+C does not wait for the blocks that others write; they are written by the next run."""
    card, _ = make_card(frames=100, **SMALL)
    archive([card], tmp_path / "here.zarr", 1, progress=False)

    def see(what: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with watched(see), pytest.raises(KeyboardInterrupt):
        archive([card], tmp_path / "a.zarr", 2)
    assert multiprocessing.active_children() == []
    assert 0 < archive([card], tmp_path / "a.zarr", 1, progress=False) < 100
    assert files(tmp_path / "a.zarr") == files(tmp_path / "here.zarr")


def _ended_while_it_writes(block: Block) -> None:
    """In a process of its own, which ends where Zarr would put what it wrote in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: os._exit(9))
        write_block(block)


def test_nothing_is_left_of_a_write_that_was_cut_off(make_card: Any, tmp_path: Path) -> None:
    """As of a helper that Ctrl+C ends, or the system: its file without a place is gone once the archive is complete."""
    card, _ = make_card(frames=20, **SMALL)
    archive([card], tmp_path / "whole.zarr", 1, progress=False)
    store = tmp_path / "a.zarr"
    with store_module.store_made(zarr, str(store), 2):
        block = store_module.plan_groups([card], str(store)).blocks[0]
    ended = multiprocessing.get_context("spawn").Process(target=_ended_while_it_writes, args=(block,))
    ended.start()
    ended.join()
    if ended.exitcode == 0:
        pytest.skip("this version of Zarr writes into its files' places")
    assert list(store.rglob("*.partial"))
    assert archive([card], store, 1, progress=False) == 20
    assert files(store) == files(tmp_path / "whole.zarr")


def test_a_helper_that_the_system_ends_loses_nothing_for_good(
    make_card: Any, open_card: Callable[..., xr.Dataset], slow_here: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What it had in hand is said to be missing, the rest is written; the next run writes what is missing."""
    card, _ = make_card(frames=100, **SMALL)
    store = tmp_path / "a.zarr"
    real = helpers._handed_out

    def handed_out(*args: Any) -> Any:
        given = real(*args)
        if given:
            for child in multiprocessing.active_children():
                child.kill()
        return given

    with monkeypatch.context() as patch:
        patch.setattr(helpers, "_handed_out", handed_out)
        with pytest.raises(OutputError, match=r"ended by the system.*fewer workers"):
            archive([card], store, 2, progress=False)
    missing = archive([card], store, 1, progress=False)
    assert 0 < missing <= 20
    (group,) = [path.parent for path in store.glob("*/recording_0/.zgroup")]
    with xr.open_zarr(group, chunks=None, consolidated=False) as back:
        assert (back["video"].values == open_card(card)["video"].values).all()
