"""Several processes, many cards, one store; what is killed goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from miniscope_xr.engine import dataset
from miniscope_xr.errors import BlankCardError, OptionError, OutputError, OutputExistsError
from miniscope_xr.layout import load_layout
from miniscope_xr.tools.export import archive_store as store_module
from miniscope_xr.tools.export.archive import archive
from miniscope_xr.tools.simulate import RecordAgain, SimulatedCard, Stall, blank

from ..small_disk import grow, small_disk

distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
zarr = pytest.importorskip("zarr", reason="needs zarr")

pytestmark = pytest.mark.slow  # clusters and processes

Open = Callable[..., xr.Dataset]
Make = Callable[..., tuple[Path, SimulatedCard]]
SMALL = {"width": 64, "height": 1000}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes on this machine."""
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as local, distributed.Client(local) as client:
        yield client


@pytest.fixture
def cards(make_card: Make) -> list[tuple[Path, SimulatedCard]]:
    """Cards that differ in length, pixels and drops."""
    events: list[list[Any]] = [[], [Stall(buffer=60, ms=900)], []]
    return [make_card(frames=n, seed=n, events=e, **SMALL) for n, e in zip((30, 45, 20), events, strict=True)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of ten frames in two chunks."""
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 5 * 64_000)
    monkeypatch.setattr(store_module, "_CHUNKS", 2)
    return 10


def _merged(paths: list[Any]) -> xr.Dataset:
    return xr.open_mfdataset(
        paths, engine="miniscope", chunks={}, combine="nested", concat_dim="frame",
        coords="different", compat="equals", join="outer", combine_attrs="drop_conflicts",
    )  # fmt: skip


def test_many_cards_through_a_cluster(
    cluster: Any, cards: list[tuple[Path, SimulatedCard]], small_blocks: int, tmp_path: Path
) -> None:
    with _merged([path for path, _ in cards]) as ds:
        expected = [card.expected() for _, card in cards]
        ds.drop_encoding().chunk(frame=16).to_zarr(tmp_path / "lab.zarr", zarr_format=2)
    with xr.open_zarr(tmp_path / "lab.zarr", chunks=None) as back:
        assert (back["video"].values == np.concatenate([video for _, video, _ in expected])).all()
        assert (back["frame_num"].values == np.concatenate([numbers for numbers, _, _ in expected])).all()
        assert (back["buffers_present"].values == np.concatenate([present for _, _, present in expected])).all()


def test_loop_devices_through_a_cluster(
    cluster: Any, cards: list[tuple[Path, SimulatedCard]], small_blocks: int, loop_device: Callable[..., str]
) -> None:
    devices = [loop_device(path, "--read-only") for path, _ in cards[:2]]
    with _merged(devices) as ds:
        expected = np.concatenate([card.expected()[1] for _, card in cards[:2]])
        assert (ds["video"].data.compute() == expected).all()
        assert ds["time"].data.name != ds["ewl"].data.name
    cluster.run(lambda: __import__("gc").collect())


def test_two_cards_in_one_reader_share_no_names(
    cards: list[tuple[Path, SimulatedCard]], open_card: Open, tmp_path: Path
) -> None:
    reader = tmp_path / "reader.img"
    names: list[set[str]] = []
    for path, _ in cards[::2]:
        reader.write_bytes(path.read_bytes())
        os.utime(reader, (0, 0))  # a device node's time says nothing about the card in it
        ds = open_card(reader, chunks={})
        names.append({v.data.name for name, v in ds.variables.items() if name != "frame"})
        ds.close()
    assert len(names[0]) == len(names[1]) > 10
    assert not names[0] & names[1]


def _groups(store: Path) -> list[str]:
    with xr.open_datatree(store, engine="zarr", chunks=None) as tree:
        return [name for name in tree.groups if "recording" in name]


def _same_as_card(store: Path, group: str, card: xr.Dataset) -> None:
    with xr.open_zarr(store, group=group, chunks=None) as back:
        xr.testing.assert_identical(back.drop_attrs().load(), card.drop_attrs().load())
        assert back.attrs == card.attrs


@pytest.mark.parametrize("workers", [1, 2])
def test_archive(
    cards: list[tuple[Path, SimulatedCard]], open_card: Open, make_card: Make, tmp_path: Path, workers: int
) -> None:
    again, _ = make_card(frames=12, events=[RecordAgain(frames=9)], **SMALL)
    store = tmp_path / "lab.zarr"
    paths = [path for path, _ in cards]
    assert archive(paths, store, workers) == sum(open_card(p).sizes["frame"] for p in paths)
    assert archive([*paths, again], store, workers) == sum(open_card(again, recording=r).sizes["frame"] for r in (0, 1))
    assert archive([*paths, again], store, workers) == 0
    groups = _groups(store)
    assert len(groups) == 5
    for path in paths:
        _same_as_card(store, next(g for g in groups if path.stem in g), open_card(path))
    for number in (0, 1):
        group = next(g for g in groups if again.stem in g and g.endswith(str(number)))
        _same_as_card(store, group, open_card(again, recording=number))


def test_a_card_is_known_by_any_name(cards: list[tuple[Path, SimulatedCard]], tmp_path: Path) -> None:
    path, _ = cards[0]
    store = tmp_path / "lab.zarr"
    assert archive([path], store, 1)
    path.rename(tmp_path / "renamed.img")
    assert archive([tmp_path / "renamed.img"], store, 1) == 0
    with pytest.raises(OutputExistsError, match="other"):
        archive([tmp_path / "renamed.img"], store, 1, gaps="fill")


def test_one_bad_card_does_not_stop_the_others(
    cards: list[tuple[Path, SimulatedCard]], tmp_path: Path, open_card: Open
) -> None:
    bad = blank().write(tmp_path / "blank.img")
    with pytest.raises(BlankCardError):
        archive([bad, cards[0][0]], tmp_path / "lab.zarr", 1)
    _same_as_card(tmp_path / "lab.zarr", _groups(tmp_path / "lab.zarr")[0], open_card(cards[0][0]))
    with pytest.raises(OptionError):
        archive([], tmp_path / "lab.zarr")


def test_a_layout_given_as_a_mapping(cards: list[tuple[Path, SimulatedCard]], tmp_path: Path, open_card: Open) -> None:
    """Any form of a layout that a card can be opened with; another one is another way."""
    path, store = cards[0][0], tmp_path / "lab.zarr"
    text = (resources.files("miniscope_xr") / "layouts" / "v4-wirefree.yaml").read_text(encoding="utf-8")
    layout = yaml.safe_load(text)
    layout["builds"].append({**layout["builds"][0], "width": 64, "height": 1000})
    frames = open_card(path).sizes["frame"]
    assert archive([path], store, 2, layout=layout) == frames
    assert archive([path], store, 1, layout=load_layout(layout)) == 0
    with pytest.raises(OutputExistsError, match=r"layout=v4-wirefree \("):
        archive([path], store, 1)
    other = tmp_path / "other.zarr"
    assert archive([path], other, 1) == frames
    assert archive([path], other, 1, layout="v4-wirefree") == 0  # what was detected is what is named


def test_the_same_card_twice_in_one_call(cards: list[tuple[Path, SimulatedCard]], tmp_path: Path) -> None:
    path = cards[0][0]
    copy = tmp_path / "copy.img"
    copy.write_bytes(path.read_bytes())
    with xr.open_dataset(path, engine="miniscope") as ds:
        assert archive([path, copy, path], tmp_path / "lab.zarr", 2) == ds.sizes["frame"]


def test_flags_only_as_long_as_blocks_are_missing(
    cards: list[tuple[Path, SimulatedCard]], tmp_path: Path, small_blocks: int
) -> None:
    path, store = cards[0][0], tmp_path / "lab.zarr"
    first = store_module.plan_groups([path], str(store))
    store_module.write_block(first.blocks[0])
    with xr.open_zarr(store, group=first.groups[0], chunks=None, consolidated=False) as half:
        assert half["archived"].values.tolist() == [1, 0, 0]
    assert archive([path], store, 1) == 20
    with xr.open_zarr(store, group=first.groups[0], chunks=None) as whole:
        assert "archived" not in whole
        assert "block" not in whole.sizes
        assert not {"archive", "archived"} & set(whole.attrs)


def test_a_full_disk_is_our_error(cards: list[tuple[Path, SimulatedCard]], tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        with pytest.raises(OutputError, match="run it again"):
            archive([cards[0][0]], disk / "lab.zarr", 1)
        grow(disk, 64 << 20)
        with xr.open_dataset(cards[0][0], engine="miniscope") as ds:
            assert archive([cards[0][0]], disk / "lab.zarr", 1) == ds.sizes["frame"]


KILLED = """
    import os, sys
    from miniscope_xr.engine import dataset
    from miniscope_xr.tools.export import archive, archive_store
    dataset._CHUNK_BYTES, archive_store._CHUNKS = 5 * 64_000, 2
    left, write = int(sys.argv[3]), archive.write_block
    def killed(block):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)  # SIGKILL; Windows ends it as well
        return write(block)
    archive.write_block = killed
    archive.archive([sys.argv[1]], sys.argv[2], workers=1)
"""


@pytest.mark.parametrize("blocks", [0, 2])
def test_resumes_after_a_kill(
    cards: list[tuple[Path, SimulatedCard]], tmp_path: Path, small_blocks: int, blocks: int, open_card: Open
) -> None:
    path, _ = cards[1]
    store = tmp_path / "lab.zarr"
    run = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(store), str(blocks)]
    assert subprocess.run(run, check=False, stdin=subprocess.DEVNULL).returncode in (-9, 9)
    frames = open_card(path).sizes["frame"]
    assert archive([path], store, 1) == frames - blocks * small_blocks
    _same_as_card(store, _groups(store)[0], open_card(path))


COMMAND = """
    import sys
    from miniscope_xr.engine import dataset
    from miniscope_xr.tools.cli import main
    from miniscope_xr.tools.export import archive_store as store
    dataset._CHUNK_BYTES, store._CHUNKS = 2 * 64_000, 2
    if __name__ == "__main__":
        raise SystemExit(main(["archive", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL of a process group")
def test_the_command_goes_on_after_a_kill(make_card: Make, tmp_path: Path, open_card: Open) -> None:
    paths = [make_card(frames=n, seed=n, **SMALL)[0] for n in (150, 120)]
    frames = sum(open_card(path).sizes["frame"] for path in paths)
    store, script = tmp_path / "lab.zarr", tmp_path / "archive.py"
    script.write_text(textwrap.dedent(COMMAND))
    run = [sys.executable, str(script), *map(str, paths), str(store), "--workers", "2"]
    with subprocess.Popen(run, start_new_session=True, stdout=subprocess.DEVNULL) as first:
        # a name that goes on behind its number is of a mark that is still being written
        while first.poll() is None and not any(m.name.isdigit() for m in store.glob("*/recording_0/archived/*")):
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    said = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert "there already" in said[1]
    left = 0 if "there already" in said[0] else int(said[0].split(": ")[-1].split()[0])
    assert left <= frames - 4  # a block that was marked is not written again
    for path in paths:
        _same_as_card(store, next(g for g in _groups(store) if path.stem in g), open_card(path))
