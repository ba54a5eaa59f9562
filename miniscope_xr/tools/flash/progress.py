"""Progress bars with time left, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from miniscope_xr.tools.flash.operation import Progress


@contextlib.contextmanager
def bars(quiet: bool = False) -> Iterator[Progress | None]:
    """Yield a progress callback that draws one bar for each thing in work; None where there is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    drawn: dict[str, Any] = {}

    def update(name: str, done: int, total: int) -> None:
        if name not in drawn:
            for bar in drawn.values():
                bar.close()
            drawn[name] = tqdm(total=total, desc=name, unit="B", unit_scale=True, leave=False)
        drawn[name].update(done - drawn[name].n)

    try:
        yield update
    finally:
        for bar in drawn.values():
            bar.close()
