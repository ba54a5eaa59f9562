"""A terminal that remembers: what a person saw, and what is left on it at the end."""

from __future__ import annotations

import io
import re


class Screen(io.StringIO):
    """Stands for stdout and stderr of one terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def left(self) -> list[str]:
        """What stands on it in the end, line by line: a carriage return goes back, and what follows overwrites."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown: list[str] = []
            for part in line.split("\r"):
                shown[: len(part)] = part
            lines.append("".join(shown).rstrip())
        return lines

    def bars(self) -> set[tuple[str, str]]:
        """Name and unit of every progress bar that was drawn: ``("video.avi", "frame")``."""
        drawn = re.findall(r"\r([^\r\n]{1,60}?): +\d+%\|[^\r\n]*?[\d?](?:[kMG]?)([A-Za-z]+)/s\]", self.getvalue())
        swift = re.findall(r"\r([^\r\n]{1,60}?): +\d+%\|[^\r\n]*?s/([A-Za-z]+)\]", self.getvalue())
        return {(name, unit.lstrip("kMG") or unit) for name, unit in drawn + swift}
