"""Times miniscope-io (mio) on a card image. Run by an interpreter that has mio: ``python peer.py IMAGE WORK``.

Prints the seconds of one run as JSON. It runs in a process of its own, so its imports and memory stay there.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time


def main(image: str, work: str) -> float:
    from mio.devices.sdcard.device import SDCardDevice

    def fresh() -> SDCardDevice:
        card = SDCardDevice(image, layout="wirefree-sd-layout")
        card.logger.setLevel(logging.CRITICAL)  # a warning a frame on healthy cards is most of the time otherwise
        return card

    frames = fresh().frame_count
    start = time.perf_counter()
    if work == "open":
        fresh().frame_count
    elif work == "frames":
        with fresh() as card:
            for _ in range(frames - 1):  # the last one it cannot read
                card.read()
    elif work == "last":
        with fresh() as card:
            card.frame = frames - 2
            card.read()
    elif work == "headers":
        import pandas as pd

        with fresh() as card:
            rows = []
            for _ in range(frames - 1):
                rows += [header.model_dump(warnings=False) for header in card.read(return_header=True).headers]
            pd.DataFrame(rows)
    elif work == "grey":
        with tempfile.TemporaryDirectory() as folder:
            fresh().to_video(f"{folder}/mio.avi", fourcc="GREY", progress=False)
    else:
        raise SystemExit(f"unknown work {work!r}")
    return time.perf_counter() - start


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
