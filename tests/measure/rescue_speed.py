"""How fast ``rescue`` reads a card, against one plain aligned read of it (in steps of 8 MiB into aligned memory).

    python -m tests.measure.rescue_speed FOLDER [--megabytes 512] [--runs 5] [--speed 90]

Two cards of that size: one full of a recording, so that all that is read is also written, and one with a recording in
its first tenth. Each is read as from a card reader (every read takes as long as at ``--speed`` MB/s) and from memory,
where it is the computer that is measured, not the card.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import time
from pathlib import Path

import numpy as np

from miniscope_xr.source.local import Device
from miniscope_xr.tools.copy import rescue as rescuing
from miniscope_xr.tools.simulate import simulate

STEP = 8 << 20


class Reader(Device):
    """A card in a reader that delivers so many bytes a second."""

    speed = 90e6

    def readv(self, offset, buffers):
        begun = time.perf_counter()
        got = super().readv(offset, buffers)
        time.sleep(max(got / self.speed - (time.perf_counter() - begun), 0))
        return got


def all_of(source):
    """Seconds of one aligned read of everything."""
    memory = mmap.mmap(-1, STEP)
    begun, at = time.perf_counter(), 0
    while n := source.readv(at, [memoryview(memory)[: source.size - at]]):
        at += n
    return time.perf_counter() - begun


def make(path, size, share):
    """Write a card whose recording fills a share of it: its frames again and again, with headers that count on."""
    card = np.frombuffer(simulate(frames=200, seed=1).data, np.uint8)
    front, body = card[: 1024 * 512], card[1024 * 512 : (1024 + 200 * 181) * 512].reshape(200, -1).copy()
    starts = np.cumsum([0, 40, 40, 40, 40]) * 512
    words = np.stack([body[:, s : s + 48].copy().view("<u4") for s in starts], axis=1)
    with path.open("wb") as out:
        out.write(front.tobytes())
        for turn in range(int(size * share) // body.nbytes):
            now = words.copy()
            now[..., 2] += 200 * turn
            now[..., 3] += 1000 * turn
            now[..., 5] += 1000 * turn
            now[..., [7, 9]] += 10_000 * turn
            for i, s in enumerate(starts):
                body[:, s : s + 48] = now[:, i].copy().view(np.uint8)
            out.write(body.tobytes())
        noise = np.random.default_rng(1).integers(0, 256, STEP, np.uint8).tobytes()
        while out.tell() < size:
            out.write(noise[: size - out.tell()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, default in (("megabytes", 512), ("runs", 5), ("speed", 90)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    Reader.speed = 1e6 * args.speed
    ends: list[float] = []
    for what, share in (("full", 1.0), ("a tenth", 0.1)):
        card, out = args.folder / "card.img", args.folder / "out.img"
        make(card, args.megabytes << 20, share)
        for where, kind in (("a reader", Reader), ("memory", Device)):
            rescuing.open_device = kind
            shares = []
            for _ in range(args.runs):
                with kind(card) as source:
                    plain = all_of(source)
                begun = time.perf_counter()
                got = rescuing.rescue(str(card), out, force=True, progress=lambda *_: ends.append(time.perf_counter()))
                shares.append(plain / (ends[-1] - begun))
                for file in args.folder.glob("out.img*"):
                    file.unlink()
            said = f"{statistics.median(shares):.2f} of a plain read at {args.megabytes / plain:.0f} MB/s"
            print(f"{what}, from {where}: {said} ({got.found} buffers in {args.megabytes} MB)")
        card.unlink()


if __name__ == "__main__":
    main()
