"""``archive --cluster``: a scheduler and workers in processes of their own, one of them killed, one added."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.engine import dataset
from miniscope_xr.errors import CardNotFoundError, OptionError, OutputError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.export import archive_store as store_module
from miniscope_xr.tools.export import cluster as cluster_module
from miniscope_xr.tools.export.archive import archive
from miniscope_xr.tools.stream.outputs import watched

distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
pytest.importorskip("zarr", reason="needs zarr")

pytestmark = pytest.mark.slow

SMALL = {"width": 64, "height": 1000}
START = 90  # seconds in which a process is there


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        """Start the scheduler, and wait until it answers."""
        self._start("dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-show", "--dashboard-address", ":0")
        self._wait(self.file.exists)
        gc.collect()  # clients that tests before let fail: see cluster._nothing_collected
        with distributed.Client(scheduler_file=str(self.file), set_as_default=False) as client:
            self.address = str(client.scheduler.address)

    def _start(self, what: str, *words: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        command = [*before, sys.executable, "-m", f"distributed.cli.{what}", *words, "--scheduler-file", str(self.file)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        quiet = subprocess.DEVNULL
        self.processes.append(subprocess.Popen(command, cwd=self.folder, env=env, stdout=quiet, stderr=quiet))
        return self.processes[-1]

    def worker(self, name: str, blind: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a worker, without its nanny, which would start it again; with nothing in the folder ``blind``."""
        words = ["--no-nanny", "--nthreads", "1", "--name", name, "--host", "127.0.0.1", "--dashboard-address", ":0"]
        before = (
            () if blind is None else ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{blind}" && exec "$@"', "-")
        )
        return self._start("dask_worker", *words, "--local-directory", str(self.folder), before=before)

    @staticmethod
    def _wait(there: Callable[[], bool]) -> None:
        until = time.monotonic() + START
        while not there():
            assert time.monotonic() < until
            time.sleep(0.05)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait(timeout=20)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster")
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture
def blocks_of_ten_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 5 * 64_000)
    monkeypatch.setattr(store_module, "_CHUNKS", 2)
    monkeypatch.setattr(cluster_module, "_PATIENCE", START)


def files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_a_worker_is_killed_and_one_added(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, tmp_path: Path
) -> None:
    card, _ = make_card(frames=300, **SMALL)
    other, _ = make_card(frames=25, seed=9, **SMALL)
    archive([card, other], tmp_path / "here.zarr", workers=1, progress=False)
    first = cluster.worker("first")
    killed_at: list[tuple[int, int]] = []

    def see(what: str, done: int, total: int) -> None:
        if done and not killed_at:
            killed_at.append((done, total))
            first.kill()
            cluster.worker("second")

    with watched(see):
        written = archive([card, other], tmp_path / "there.zarr", cluster=cluster.address)
    ((done, total),) = killed_at
    assert done < total == 325
    assert written == 325
    assert first.poll() is not None
    assert files(tmp_path / "there.zarr") == files(tmp_path / "here.zarr")
    assert archive([card, other], tmp_path / "there.zarr", cluster=cluster.address) == 0


def test_what_another_run_left_goes_on_there(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _ = make_card(frames=60, **SMALL)
    archive([card], tmp_path / "whole.zarr", workers=1, progress=False)

    class Enough(Exception):
        pass

    def see(what: str, done: int, total: int) -> None:
        if done >= 20:
            raise Enough

    with pytest.raises(Enough), watched(see):
        archive([card], tmp_path / "a.zarr", workers=1)
    cluster.worker("only")
    monkeypatch.chdir(tmp_path)
    assert main(["archive", card.name, "a.zarr", "--cluster", cluster.address]) == 0
    assert files(tmp_path / "a.zarr") == files(tmp_path / "whole.zarr")


def test_a_path_that_means_another_card_to_a_worker(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _ = make_card(frames=20, **SMALL)
    other, _ = make_card(frames=20, seed=3, **SMALL)
    cluster.worker("only")
    real = store_module.plan_groups

    def planned(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        return found._replace(blocks=[block._replace(card=str(other)) for block in found.blocks])

    monkeypatch.setattr("miniscope_xr.tools.export.archive.plan_groups", planned)
    with pytest.raises(OSError, match="holds another card"):
        archive([card], tmp_path / "a.zarr", cluster=cluster.address)


@pytest.fixture
def views() -> None:
    """Processes may see other disks than this one."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a process sees other disks for root on Linux only")


def test_a_worker_that_finds_neither_card_nor_store(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, views: None, tmp_path: Path
) -> None:
    """It is named before anything is made; what one that comes later fails at is written by the next run."""
    card, _ = make_card(frames=300, **SMALL)
    archive([card], tmp_path / "here.zarr", workers=1, progress=False)
    folder, there = tmp_path / "seen", tmp_path / "there" / "a.zarr"
    folder.mkdir()
    card = card.rename(folder / card.name)
    blind = cluster.worker("blind", folder)
    with pytest.raises(CardNotFoundError, match=r"worker tcp://\S+ cannot read it .*the same paths as this computer"):
        archive([card], there, cluster=cluster.address)
    assert not there.parent.exists()
    end(blind)
    there.parent.mkdir()
    other = cluster.worker("other", there.parent)
    with pytest.raises(OutputError, match=r"worker tcp://\S+ does not find this store"):
        archive([card], there, cluster=cluster.address)
    assert not there.exists()
    end(other)
    first = cluster.worker("first")

    def see(what: str, done: int, total: int) -> None:
        if done and first.poll() is None:
            first.kill()
            cluster.worker("late and blind", folder)

    with watched(see), pytest.raises(CardNotFoundError, match="a worker cannot read it"):
        archive([card], there, cluster=cluster.address)
    end(cluster.processes[-1])
    cluster.worker("last")
    assert 0 < archive([card], there, cluster=cluster.address) < 300
    assert files(there) == files(tmp_path / "here.zarr")


def end(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    worker.wait(timeout=START)


def test_collect_has_the_archive_written_there(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, views: None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What fails there loses no copy, and is gone on with; a scheduler that does not answer is told before any card."""
    cards = [str(make_card(frames=frames, seed=frames, **SMALL)[0]) for frames in (30, 25)]
    lab, store = tmp_path / "lab", tmp_path / "lab.zarr"
    words = ["collect", *cards, "into", str(lab), "--session", "s", "--date", "2026-03-14T15:09:26"]
    words += ["--name", "{session}/{card}", "--archive", str(store), "--cluster"]
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_PATIENCE", 1)
        assert main([*words, "tcp://127.0.0.1:9"]) == 5
    assert "no scheduler answers" in capsys.readouterr().err
    assert not lab.exists()
    lab.mkdir()
    blind = cluster.worker("blind", lab)
    assert main([*words, cluster.address]) == 2
    said = capsys.readouterr()
    assert "2 of 2 cards collected" in said.out
    assert "cannot read it" in said.err
    assert not store.exists()
    end(blind)
    cluster.worker("seeing")
    assert main([*words, cluster.address]) == 0
    assert f"{store}: 55 frames written" in capsys.readouterr().out
    assert main([*words, cluster.address]) == 0
    assert f"{store}: all of it is there" in capsys.readouterr().out
    archive(sorted(lab.rglob("*.img")), tmp_path / "here.zarr", workers=1, progress=False)
    assert files(store) == files(tmp_path / "here.zarr")


def test_nobody_there(make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, _ = make_card(frames=3)
    monkeypatch.setattr(cluster_module, "_PATIENCE", 1)
    with pytest.raises(OutputError, match="no scheduler answers"):
        archive([card], tmp_path / "a.zarr", cluster="tcp://127.0.0.1:9")
    with pytest.raises(OptionError, match="no address of a scheduler"):
        archive([card], tmp_path / "a.zarr", cluster="nonsense://x")
    with pytest.raises(OptionError, match="give one of them"):
        archive([card], tmp_path / "a.zarr", workers=2, cluster="tcp://127.0.0.1:9")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("stalls", [1, 100])
def test_a_computer_too_busy_to_start_distributed_in_its_time(stalls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """distributed then fails an assertion of its own; another moment may be better."""
    asked: list[str] = []

    def client(address: str, **options: Any) -> Any:
        asked.append(address)
        if len(asked) <= stalls:
            raise AssertionError
        raise OSError("connected, in this test")

    monkeypatch.setattr(distributed, "Client", client)
    said = "connected, in this test" if stalls == 1 else "too busy"
    with pytest.raises(OutputError, match=said), cluster_module.scheduler("tcp://127.0.0.1:9"):
        pass


def test_no_client_that_failed_is_collected_while_another_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would close itself then, and wait for a lock that the other one has."""
    seen: list[bool] = []

    def client(address: str, **options: Any) -> Any:
        seen.append(gc.isenabled())
        raise OSError("nobody")

    monkeypatch.setattr(distributed, "Client", client)
    with pytest.raises(OutputError, match="nobody"), cluster_module.scheduler("tcp://127.0.0.1:9"):
        pass
    assert seen == [False]
    assert gc.isenabled()


def test_a_scheduler_without_workers(
    cluster: Cluster, make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_PATIENCE", 3)
    with pytest.raises(OutputError, match="dask worker"):
        archive([make_card(frames=3)[0]], tmp_path / "a.zarr", cluster=cluster.address)
    assert not (tmp_path / "a.zarr").exists()


def test_the_scheduler_is_gone_in_the_middle(
    cluster: Cluster, make_card: Any, blocks_of_ten_frames: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and does not keep anybody waiting; the rest is written later, here, with the same bytes."""
    card, _ = make_card(frames=300, **SMALL)
    cluster.worker("only")
    with distributed.Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=START)
    monkeypatch.setattr(cluster_module, "_PATIENCE", 10)  # for the scheduler to come back

    def see(what: str, done: int, total: int) -> None:
        if done:
            cluster.processes[0].kill()

    with watched(see), pytest.raises(OutputError, match=r"scheduler is gone.*run it again"):
        archive([card], tmp_path / "there.zarr", cluster=cluster.address)
    assert 0 < archive([card], tmp_path / "there.zarr", workers=1, progress=False) <= 300
    archive([card], tmp_path / "here.zarr", workers=1, progress=False)
    assert files(tmp_path / "there.zarr") == files(tmp_path / "here.zarr")
