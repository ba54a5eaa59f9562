"""Windows' clock for the Python under Wine: it goes on in steps of a 64th of a second, Wine's in far smaller ones.

Up to Python 3.12 ``time.time`` asks ``GetSystemTimeAsFileTime``, which goes with the system's timer (15.6 ms).
dask.distributed relies on it: it waits until it has read the same time several times, under Wine for ever.
"""

import sys
import time

_STEPS = 64  # a second
_fine = time.time


def _time() -> float:
    return int(_fine() * _STEPS) / _STEPS


if sys.version_info < (3, 13):
    time.time = _time
