"""Edges of a remote that another device hears too: they cost interrupts, and the clock with them, as a seam seems to.

An edge puts the frame clock behind by some ms. So does an older recording that began earlier, and often nothing else
tells the two apart: what is behind is then in doubt, and not returned.
"""

from __future__ import annotations

from miniscope_xr.index.breaks import Breaks
from miniscope_xr.index.clock import edges_in
from miniscope_xr.index.runs import Header, Run


class Edges(Breaks):
    """Says where edges of a remote, too, would make what looks like the beginning of an older recording."""

    def perhaps_edges(self, runs: list[Run], end: tuple[int, int]) -> list[str]:
        """What to say of buffers behind an end that only lost interrupts, too, would put off the clock and its frames.

        They follow on the card and in their counts, or behind a hole, and nothing else tells them from this
        recording's.
        """
        (number, i), run = end, runs[end[0]]
        before, k = (run, i - 1) if i else (runs[number - 1], runs[number - 1].count - 1)
        last, behind = self._first_there(before, range(k, -1, -1)), self._first_there(run, range(i, run.count))
        a, b = self.headers.at(before.sector_of(last)), self.headers.at(run.sector_of(behind))
        if a is None or b is None or not self._same_state(a, b) or before.sector_of(last) >= run.sector_of(behind):
            return []
        if not self.headers.framing.build.remote_edge[1]:
            return []
        if last < k or behind > i or run.sector > before.end_sector:  # a hole
            told = self._loses_over(runs, a, b)
        elif i:
            told = self._one_edge(run, i, a, b)
        else:
            told = self._loses(runs, number, a, b) and not self._frame_was_over(runs[:number], a, b)
        near = range(behind, min(behind + 2 * max(self.ring, 1), run.count))
        if not told or any(self.link(run, n) is False for n in near):
            return []
        first, final = run.frame_of(behind), max(r.last_frame for r in runs[number:])
        return [
            f"whether this recording ended in front of frame {first} is in doubt: an older one begins there, or a "
            f"remote of another device was pressed; frames {first} to {final} are not returned; until={final} returns "
            "them"
        ]

    def _first_there(self, run: Run, buffers: range) -> int:
        """The first of some buffers that is on the card, or the first one."""
        there = (n for n in buffers if run.matches(n, self.headers.at(run.sector_of(n))))
        return next(there, buffers[0])

    def _one_edge(self, run: Run, i: int, a: Header, b: Header) -> bool:
        """Whether the clock loses as many ms in front of a frame as one edge costs; within one it costs buffers too.

        Where no whole frame stands in front of buffer ``b``, the clock behind it says when ``a`` was to come.
        """
        step = self._step(run, i)
        learnt = self._clock_of(run).learnt(lambda k: self._stamps(run, k)) if step is None else None
        if learnt is not None:
            took = learnt.period * (b.frame - a.frame) + float(learnt.offsets[b.index] - learnt.offsets[a.index])
            step = b.time - a.time - took
        lost = -(step or 0.0) / self.ticks
        edge = self.headers.framing.build.remote_edge
        if run.count - i < len(run.cut):  # in the last frame what else one or two cost need not have come to the card
            return 0 < lost <= 2 * edge[1]
        return not run.index_of(i) and edges_in(lost, edge) == 1

    def _loses(self, runs: list[Run], number: int, a: Header, b: Header) -> bool:
        """Whether buffer ``b`` follows buffer ``a`` in its counts, and comes not later than it would without edges."""
        follows = (b.count, b.written, b.dropped) == (a.count + 1, a.written + 1, a.dropped)
        longest = max((r for r in runs[: number + 1] if self._regular(r)), key=lambda r: r.count, default=None)
        times = self._clock(longest, True) if longest is not None else []
        period = (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0]) if len(times) > 1 else 0.0
        return follows and b.time - a.time <= period * max(b.frame - a.frame, 1)

    def _loses_over(self, runs: list[Run], a: Header, b: Header) -> bool:
        """Whether the clock loses as many ms from buffer ``a`` to ``b``, over a hole, as one or two edges cost."""
        like = max((r for r in runs if self._regular(r)), key=lambda r: r.count, default=None)
        clock = self._clock_of(like).learnt(lambda k: self._stamps(like, k)) if like is not None else None
        if clock is None or max(a.index, b.index) >= len(clock.offsets) or b.count <= a.count:
            return False
        took = clock.period * (b.frame - a.frame) + float(clock.offsets[b.index] - clock.offsets[a.index])
        lost = (took - (b.time - a.time)) / self.ticks
        return edges_in(lost, self.headers.framing.build.remote_edge, spread=1) > 0
