"""Which frames the words of a dataset name: a doubt about one frame says nothing of another.

whether this recording ended in frame 7 is in doubt: ... up to frame 9 ...      names 7 to 9
of one of frames 3, 8                                                            names 3 and 8
the frame clock changes at frame 12: ... an older recording from there on       names 12 and all behind it
"""

from __future__ import annotations

import re
from collections.abc import Iterable

A_WORD = re.compile(r"doubt|older|another recording|missing|overwritten|hole|cannot be told|never reached|power went")
DOUBT = re.compile(r"doubt|a slow card, or an older recording")
CAVEAT = re.compile(r"not excluded|to exclude")  # of a whole recording in which nothing tells
_ONE = r"(?:frames?|until=) ?(\d+)"
_FRAMES = re.compile(rf"{_ONE}((?:(?:, | to | and | or )(?:\d+))*)")
_OPEN = re.compile(r"from there on|leaves it out|may be with frame|from frame \d+ on, (?!and is not returned)")
_SPAN = re.compile(r"up to frame|between frames")
ENDLESS = 1 << 40


def spans(said: str) -> list[range]:
    """Frames that one sentence names.

    >>> spans("what lies there is in doubt: one of frames 3, 8 to 9")
    [range(3, 4), range(8, 10)]
    """
    found: list[range] = []
    for first, more in _FRAMES.findall(said):
        found.append(range(int(first), int(first) + 1))
        for how, number in re.findall(r"(, | to | and | or )(\d+)", more):
            start = found.pop().start if how == " to " else int(number)
            found.append(range(start, int(number) + 1))
    if found and _SPAN.search(said):
        found = [range(min(r.start for r in found), max(r.stop for r in found))]
    if found and _OPEN.search(said):
        found = [range(min(r.start for r in found), ENDLESS)]
    return found


def names(frame: int, warnings: Iterable[str]) -> bool:
    """Whether a word of some warnings says something of a frame."""
    return any(frame in r for said in warnings if A_WORD.search(said) for r in spans(said))
