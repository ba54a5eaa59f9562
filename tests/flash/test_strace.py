"""System calls that fail, fall short, lie or never return, on a real loop device."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .harness import Scene, verdict
from .loops import loop, needs_loops

CASES = 115
CHILD = [sys.executable, "-m", "flash.child"]


def _can_trace() -> bool:
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    needs_loops,
    pytest.mark.skipif(not _can_trace(), reason="needs strace, and leave to trace"),
]


def cases(scene: Scene) -> list[tuple[str, str]]:
    """(verb, injection) for every read, write and flush of a run, with errors, short counts, lies and kills."""
    count = {kind: sum(op[0] == kind for op in scene.log) for kind in ("read", "write", "flush")}
    calls = {"read": "preadv2", "write": "pwritev2", "flush": "fsync"}
    lengths = [length for kind, _, length in scene.log if kind == "write"]
    found = []
    for kind, call in calls.items():
        for n in range(1, count[kind] + 1):
            found += [f"{call}:error=EIO:when={n}", f"{call}:signal=KILL:when={n}"]
            if kind == "write":
                found += [
                    f"{call}:retval=256:when={n}", f"{call}:retval={lengths[n - 1]}:when={n}",
                    f"{call}:error=ENOSPC:when={n}", f"{call}:error=ENODEV:when={n}+", f"{call}:error=EIO:when={n}+",
                ]  # fmt: skip
            if kind == "read":
                found += [f"{call}:retval=256:when={n}", f"{call}:error=EIO:when={n}+"]
            if kind == "flush":
                found += [f"{call}:retval=0:when={n}", f"{call}:error=EIO:when={n}+"]
    return [(scene.verb, what) for what in found]


class Child:
    """The process that forks the runs."""

    def __init__(self, scenes: dict[str, Scene], folder: Path) -> None:
        jobs = folder / "jobs"
        jobs.write_bytes(pickle.dumps({verb: scene.job for verb, scene in scenes.items()}))
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        self.process = subprocess.Popen(
            [*CHILD, str(jobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, verb: str, device: str, backups: Path, injection: str = "") -> int | None:
        """Run one job; None if it was killed."""
        self.process.stdin.write(f"{verb} {device} {backups} {int(bool(injection))}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if injection:
            self._trace(pid, device, injection)
        code = int(self.process.stdout.readline())
        return None if code < 0 else code

    def _trace(self, pid: int, device: str, injection: str) -> None:
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            time.sleep(0.002)
        command = ["strace", "-p", str(pid), "-o", "/dev/null", "-e", "trace=pwritev2,preadv2,fsync", "-P", device]
        tracer = subprocess.Popen([*command, "-e", f"inject={injection}"], stderr=subprocess.PIPE, text=True)
        assert "attached" in tracer.stderr.readline()
        os.kill(pid, signal.SIGCONT)
        tracer.stderr.close()
        self.tracer = tracer
        tracer.wait(timeout=60)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=10)


def test_every_injected_fault_leaves_a_safe_card(ram_path, monkeypatch):
    from miniscope_xr.tools.flash import operation

    monkeypatch.setattr(operation, "STEP", 64 << 10)
    scenes = {}
    for verb in ("prepare", "set"):
        (ram_path / verb).mkdir()
        scenes[verb] = Scene.make(verb, ram_path / verb)
    faults = [case for scene in scenes.values() for case in cases(scene)]
    assert len(faults) >= CASES
    faults = sorted(set(faults[:: len(faults) // CASES]) | {f for f in faults if "preadv2" not in f[1]})
    assert len(faults) >= CASES
    image = ram_path / "card.img"
    image.write_bytes(scenes["set"].start)
    child = Child(scenes, ram_path)
    wrong = {}
    codes = set()
    try:
        with loop(image) as device:
            assert child.ask("prepare", device, ram_path / "clean") == 0
            assert image.read_bytes() == scenes["prepare"].end
            for i, (verb, injection) in enumerate(faults):
                scene = scenes[verb]
                with open(image, "r+b") as file:
                    file.write(scene.start)
                backups = ram_path / str(i)
                code = child.ask(verb, device, backups, injection)
                codes.add(code)
                gone = injection.endswith("+")  # the card cannot be asked any more how it is
                found = verdict(scene, scene.job, code, image.read_bytes(), gone, backups)
                if found:
                    wrong[verb, injection] = (code, found)
    finally:
        child.close()
    assert not wrong, f"{len(wrong)} of {len(faults)}, the first: {next(iter(wrong.items()))}"
    assert codes == {0, 5, 6, None}
