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
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from miniscope_xr.errors import CardNotFoundError, OptionError, parser_said, plain
from miniscope_xr.source.windows import real_path
from miniscope_xr.tools.collect.about import SETTINGS, About, checked
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.stream.tables import text_of, why_no_text

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
            text = text_of(path.read_bytes())
        except FileNotFoundError as error:
            raise CardNotFoundError(error.errno, "there is no such table", str(path)) from error
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{path}: cannot be read as a table: {why_no_text(error)}") from error
        rows = _yaml(text, path) if path.suffix.lower() in (".yaml", ".yml") else _csv(text, path)
        self.rows: dict[str, About] = {}
        self._settings: dict[str, str] = {}
        self._written: dict[str, str] = {}  # ids and paths as they were typed
        for number, row in rows:
            self._add(number, row)

    def _add(self, number: int, row: Mapping[str, Any]) -> None:
        where = f"{self.path}, row {number}"
        names: dict[str, Any] = {}
        for name, value in row.items():
            column = str(name).strip().lower()
            if column in names:
                raise OptionError(f"{where}: column {plain(column)!r} is there twice")
            if isinstance(value, (list, dict)):
                raise OptionError(f"{where}: {plain(column) or 'it'} has several values; give it one")
            names[column] = value
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
        self._written[card.lower()] = card
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
        return next(iter(self._keys(card_id, path)), "")

    def _keys(self, card_id: str, path: str) -> list[str]:
        keys = [key.lower() for key in (card_id, path, real_path(path), os.path.basename(path))]  # noqa: PTH119
        return [key for key in dict.fromkeys(keys) if key in self.rows]

    def check(self, disks: Sequence[Disk]) -> None:
        """Refuse a table in which it is not clear which row is of which of these cards.

        Raises
        ------
        OptionError
            Two rows are of one card (by its id and by its path), or one row is of two cards.
        """
        whose: dict[str, str] = {}
        for disk in disks:
            keys = self._keys(disk.card_id, disk.path)
            if len(keys) > 1:
                both = " and ".join(plain(self._written[key]) for key in keys)
                raise OptionError(f"{self.path}: {both} are one card, {disk.path}; leave one of the rows out")
            for key in keys:
                if key in whose:
                    raise OptionError(
                        f"{self.path}: row {plain(self._written[key])} is of {whose[key]} and of {disk.path} (cards of "
                        "one id are clones, files may have one name in two folders); name each by its path"
                    )
                whose[key] = disk.path

    def others(self, disks: Sequence[Disk]) -> list[str]:
        """Return the cards that have a row and are none of these, as they were typed."""
        seen = {key for disk in disks for key in self._keys(disk.card_id, disk.path)}
        return [self._written[key] for key in self.rows if key not in seen]

    def names_id(self, card_id: str) -> bool:
        """Whether a card is named by its id: whoever wrote that had this card in hand."""
        return card_id.lower() in self.rows


def _csv(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    if re.match(r"sep=.\r?\n", text):  # a line with which a spreadsheet tells another one how to read on
        text = text.partition("\n")[2]
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), strict=True)
    columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
    if KEY not in columns:
        raise OptionError(f"{path}: the first row names the columns, and one of them is `{KEY}`")
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"{path}: column {plain(twice)!r} is there twice")
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


class _Words(yaml.SafeLoader):
    """YAML as somebody means it who types ids and names: 0012 stays 0012, 1e10 stays 1e10, `no` stays no.

    Nothing is a number, a date or a truth value; a key that is there twice is an error, not the last one's.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping whose keys are texts, each there once."""
        own = [str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in own if own.count(key) > 1 and key != "<<"), None)
        if twice is not None:
            raise ValueError(f"{plain(twice)} is there twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


_Words.yaml_implicit_resolvers = {
    first: [kind for kind in kinds if kind[0] in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        found = yaml.load(text, Loader=_Words)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionError(f"{path}: no YAML: {parser_said(error)}") from error
    if isinstance(found, dict):
        found = [{KEY: card, **(row if isinstance(row, dict) else {"": row})} for card, row in found.items()]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise OptionError(
            f"{path}: expected what is told of each card below its id, for example `a1b2: {{animal: m1}}`"
        )
    return list(enumerate(found, 1))
