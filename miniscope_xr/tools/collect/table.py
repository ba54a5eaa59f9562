"""A small table of what is known of each card: CSV as a spreadsheet saves it, or YAML.

The column ``card`` names a card by its id (what ``info`` and ``list`` show) or by its path; every other column is told
of it, whatever it is called::

    card,animal,session,date,cage
    a1b2c3d4e5f60718,m1,day 3,2026-03-14,
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from miniscope_xr.errors import CardNotFoundError, OptionError, plain
from miniscope_xr.source.windows import real_path
from miniscope_xr.tools.collect.about import SETTINGS, About, checked

_MOST_BYTES = 4 << 20
KEY = "card"


class CardTable:
    """What is told of each card.

    Parameters
    ----------
    path
        The file; ``.yaml`` and ``.yml`` are YAML, anything else is CSV (with ``,``, ``;`` or tabs).

    Raises
    ------
    OptionError
        It is no such table; says in which row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise OptionError(f"{path}: a table of cards is no file of {path.stat().st_size / 1e6:.0f} MB")
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise CardNotFoundError(error.errno, "there is no such table", str(path)) from error
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise OptionError(f"{path}: cannot be read as a table: {why}") from error
        rows = _yaml(text, path) if path.suffix.lower() in (".yaml", ".yml") else _csv(text, path)
        self.rows: dict[str, About] = {}
        self._settings: dict[str, str] = {}
        for number, row in rows:
            self._add(number, row)

    def _add(self, number: int, row: Mapping[str, Any]) -> None:
        where = f"{self.path}, row {number}"
        names = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
        card = str(names.pop(KEY, "") or "").strip()
        if not card:
            raise OptionError(
                f"{where}: no card; the column `{KEY}` has the id of each, as `miniscope-xr list` shows it"
            )
        odd = [name for name in names if not name.isidentifier()]
        if odd:
            raise OptionError(f"{where}: {plain(odd[0])!r} is no name of a column; use letters, digits and _")
        if card.lower() in self.rows:
            raise OptionError(f"{where}: card {plain(card)} is named twice")
        self._settings[card.lower()] = str(names.pop(SETTINGS, "") or "")
        try:
            self.rows[card.lower()] = checked(names)
        except OptionError as error:
            raise OptionError(f"{where}: {error}") from error

    def of(self, card_id: str, path: str) -> About:
        """Return what is told of a card; nothing where the table does not name it."""
        return dict(self.rows.get(self._key(card_id, path), {}))

    def settings_of(self, card_id: str, path: str) -> str:
        """Return the NAME=VALUE words of a card's next recording; empty where the table has none."""
        return self._settings.get(self._key(card_id, path), "")

    def _key(self, card_id: str, path: str) -> str:
        keys = [key.lower() for key in (card_id, path, real_path(path), os.path.basename(path))]  # noqa: PTH119
        return next((key for key in keys if key in self.rows), "")

    def names_id(self, card_id: str) -> bool:
        """Whether a card is named by its id: whoever wrote that had this card in hand."""
        return card_id.lower() in self.rows


def _csv(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), strict=True)
    if KEY not in [str(name).strip().lower() for name in reader.fieldnames or ()]:
        raise OptionError(f"{path}: the first row names the columns, and one of them is `{KEY}`")
    found = []
    try:
        for row in reader:
            if row.get(None):
                raise OptionError(f"{path}, row {reader.line_num}: more values than columns; put text with , in quotes")
            if any((value or "").strip() for value in row.values()):
                found.append((reader.line_num, row))
    except csv.Error as error:
        raise OptionError(f"{path}, row {reader.line_num}: {error}") from error
    return found


def _yaml(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if isinstance(found, dict):
        found = [{KEY: card, **(row if isinstance(row, dict) else {"": row})} for card, row in found.items()]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise OptionError(
            f"{path}: expected what is told of each card below its id, for example `a1b2: {{animal: m1}}`"
        )
    return list(enumerate(found, 1))
