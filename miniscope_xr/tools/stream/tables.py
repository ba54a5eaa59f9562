"""Small tables as spreadsheets and recording programs save them: any separator, decimal commas, dates of any country.

What has two meanings is refused and not guessed: ``3/4/2026``, or ``0,5`` where nobody knows whether it is one column.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from miniscope_xr.errors import OptionError

_SEPARATORS = (";", "\t", ",")
_VALUE = re.compile(r"[+-]?[.\d]")  # how a number or a date begins
_COMMA = re.compile(r"[+-]?\d+,\d+")
_DATE = re.compile(
    r"(?P<first>\d{1,4})(?P<mark>[./])(?P<second>\d{1,2})(?P=mark)(?P<third>\d{4}|\d{2})"
    r"(?:[ T,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<seconds>\d{2})(?:[.,](?P<part>\d{1,6}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
)
_THOUSANDTHS = re.compile(r"(?<![a-z])m(s|sec)(?![a-z])")


@dataclass(frozen=True)
class Table:
    """Rows of a table, and the heading above them (empty where there is none)."""

    rows: list[list[str]]
    """Cells as text; numbers have a decimal point."""
    heading: list[str]
    """Names of the columns."""

    def in_ms(self, column: int) -> bool:
        """Whether the heading of a column says that it is in ms."""
        return column < len(self.heading) and bool(_THOUSANDTHS.search(self.heading[column].lower()))


def text_of(data: bytes) -> str:
    """Decode a file: UTF-8, or UTF-16 where it says so, as a spreadsheet's "Unicode text" does."""
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def why_no_text(error: Exception) -> str:
    """Say why a file is no table, and what to do."""
    return getattr(error, "strerror", None) or "it is no text in UTF-8; save it again as 'CSV UTF-8'"


def read_table(path: Path, columns: int) -> Table:
    """Read a table that has a number or a date in front of each row; what else is above them is a heading.

    Parameters
    ----------
    path
        The file: columns separated by ``;``, tabs or ``,``.
    columns
        That every row needs.

    Raises
    ------
    OptionError
        It is no such table; says in which row.
    """
    lines = _lines(path)
    above = next((k for k, line in enumerate(lines) if _VALUE.match(line.lstrip(' "'))), len(lines))
    if above == len(lines):
        raise OptionError(f"{path}: no row with times")
    mark = _separator(lines[above:])
    if mark == "," and columns == 1 and _is_one_column(path, lines, above):
        mark = ";"
    cells = [[cell.strip() for cell in next(csv.reader([line], delimiter=mark))] for line in lines]
    heading, rows = cells[above - 1] if above else [], cells[above:]
    for number, row in enumerate(rows, above + 1):
        if len(row) < columns:
            raise OptionError(f"{path}, row {number}: {len(row)} columns, expected {columns}")
        if mark == ",":
            _refuse_commas(path, number, row, heading)
    return Table([[_number(cell) for cell in row] for row in rows], heading)


def _lines(path: Path) -> list[str]:
    """The lines of a file in which something stands that is no remark."""
    try:
        text = text_of(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as a table: {why_no_text(error)}") from error
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "sep="))]


def _refuse_commas(path: Path, number: int, row: list[str], heading: list[str]) -> None:
    """Refuse a row with more values than there are headings: numbers in it have a decimal comma."""
    if len(row) > len(heading) > 1 and any(row[len(heading) :]):
        raise OptionError(
            f"{path}, row {number}: {len(row)} values below {len(heading)} headings; where numbers have a decimal "
            "comma, save the table with ; between its columns"
        )


def _separator(rows: list[str]) -> str:
    """What is in every row that has a value."""
    known = [row for row in rows if _VALUE.match(row.lstrip(' "'))]
    return next((mark for mark in _SEPARATORS if all(mark in row for row in known)), ",")


def _is_one_column(path: Path, lines: list[str], above: int) -> bool:
    """Whether ``0,5`` is one number in all rows; two columns are as good where no heading tells."""
    if not all(_COMMA.fullmatch(line.strip()) for line in lines[above:]):
        return False
    if above:
        return "," not in lines[above - 1]
    if {line.strip().rpartition(",")[2] for line in lines} <= {"0", "1"}:  # time and level
        return False
    raise OptionError(
        f"{path}: {lines[0].strip()!r} is one number with a decimal comma, or two columns: write a heading above, or a "
        "decimal point"
    )


def _number(cell: str) -> str:
    return cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell


def moment_of(text: str) -> datetime:
    """Return the date and time of a text: ISO 8601, 29.11.2026, or 11/29/2026 where it can be only one.

    Raises
    ------
    ValueError
        It is none, or could be two days.

    Examples
    --------
    >>> moment_of("29.11.26 15:09")
    datetime.datetime(2026, 11, 29, 15, 9)
    >>> moment_of("11/29/2026 3:09:26 PM")
    datetime.datetime(2026, 11, 29, 15, 9, 26)
    """
    text = text.strip()
    found = _DATE.fullmatch(text)
    if found is None:
        return datetime.fromisoformat(text)
    first, middle, third = (int(found[name]) for name in ("first", "second", "third"))
    if len(found["first"]) > 2:  # 2026/3/14
        year, month, day = first, middle, third
    else:
        year = third + 2000 if third < 100 else third
        month, day = (middle, first) if found["mark"] == "." or first > 12 else (first, middle)
        if found["mark"] == "/" and first != middle and max(first, middle) <= 12:
            raise ValueError(f"{text!r} is one day in one country and another in the next")
    date = datetime(year, month, day)
    hour, minute, second, part = (found[name] or "0" for name in ("hour", "minute", "seconds", "part"))
    afternoon = found["half"] is not None and found["half"][0] in "pP"
    hours = int(hour) % 12 + 12 * afternoon if found["half"] else int(hour)
    return date.replace(
        hour=hours, minute=int(minute), second=int(second), microsecond=int(part.ljust(6, "0"))
    )  # fmt: skip
