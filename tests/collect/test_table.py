"""Tables of cards as labs type them: what is meant is read, what cannot be meant is refused with its row."""

from __future__ import annotations

import pytest

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.collect.table import CardTable
from miniscope_xr.tools.flash.disks.base import Disk

from .test_collect import TOLD


def disk(path: str = "/dev/sdx", card_id: str = "ab12") -> Disk:
    return Disk(path=path, kind="disk", bus="usb", size=1 << 30, cid=card_id)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("spreadsheet.csv", "card;animal\r\nAB12;Mäuschen\r\n".encode("utf-8-sig")),
        ("unicode.txt", "card\tanimal\nAB12\tMäuschen\n".encode("utf-16")),
        ("sep.csv", "sep=;\r\ncard;animal\r\nab12;Mäuschen\r\n".encode()),
        ("quoted.csv", '"Card","Animal"\n"ab12","Mäuschen"\n\n,\n'.encode()),
        ("by id.yaml", "AB12: {animal: Mäuschen}".encode()),
        ("list.yml", "- card: ab12\n  animal: Mäuschen\n".encode()),
    ],
)
def test_one_animal_however_it_is_written(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert CardTable(tmp_path / name).of("ab12", "/dev/sdx") == {"animal": "Mäuschen"}


def test_yaml_takes_ids_and_words_as_they_are_typed(tmp_path):
    path = tmp_path / "day.yaml"
    path.write_text(
        "0012: {animal: 007, notes: no, date: 2026-03-14 15:09:26}\n1e10: {animal: ~}\n12345678: {cage: 1_0}"
    )
    table = CardTable(path)
    assert table.of("0012", "") == {"animal": "007", "notes": "no", "date": "2026-03-14T15:09:26"}
    assert table.of("1e10", "") == {}
    assert table.of("12345678", "") == {"cage": "1_0"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "ab12: {animal: m1}\nab12: {animal: m2}\n", "ab12 is there twice"),
        ("a.yaml", "ab12: {animal: m1, animal: m2}\n", "animal is there twice"),
        ("a.yaml", "ab12: {animal: m1, Animal: m2}\n", "'animal' is there twice"),
        ("a.yaml", "ab12: {animal: [m1, m2]}\n", "several values"),
        ("a.yaml", "ab12: [m1]\n", "several values"),
        ("a.yaml", "ab12: !!python/object/apply:os.getcwd []\n", "no YAML"),
        ("a.csv", "card,animal,animal\nab12,m1,m2\n", "'animal' is there twice"),
    ],
)
def test_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match=said):
        CardTable(tmp_path / name)


def test_another_encoding_says_how_to_save_it(tmp_path):
    (tmp_path / "a.csv").write_bytes("card;animal\nab12;Mäuschen\n".encode("cp1252"))
    with pytest.raises(OptionError, match="CSV UTF-8"):
        CardTable(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("typed", "date"),
    [
        ("29.11.2026", "2026-11-29"), ("29.11.26", "2026-11-29"), ("11/29/26", "2026-11-29"),
        ("29/11/2026", "2026-11-29"), ("3/14/2026", "2026-03-14"),
        ("29.11.2026 15:09", "2026-11-29T15:09:00"), ("11/29/2026 3:09:26 PM", "2026-11-29T15:09:26"),
        ("4/4/2026", "2026-04-04"), ("12/31/2026 12:00 AM", "2026-12-31T00:00:00"),
    ],
)  # fmt: skip
def test_dates_as_a_spreadsheet_shows_them(tmp_path, typed, date):
    (tmp_path / "a.csv").write_text(f"card;date\nab12;{typed}\n")
    assert CardTable(tmp_path / "a.csv").of("ab12", "") == {"date": date}


@pytest.mark.parametrize("typed", ["3/4/2026", "31.11.2026", "29.13.2026", "11/29", "29.11.2026 25:00"])
def test_a_date_that_is_none_or_could_be_two_is_refused_with_its_row(tmp_path, typed):
    (tmp_path / "a.csv").write_text(f"card;date\nab12;{typed}\n")
    with pytest.raises(OptionError, match=r"row 2: date=.*expected a day such as 2026-03-14"):
        CardTable(tmp_path / "a.csv")


def test_whose_row_it_is_has_to_be_clear(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("card,animal\nab12,m1\n/dev/sdx,m2\n")
    with pytest.raises(OptionError, match="ab12 and /dev/sdx are one card"):
        CardTable(path).check([disk()])
    path.write_text("card,animal\nab12,m1\n/dev/sdq,m2\n")
    with pytest.raises(OptionError, match=r"is of /dev/sdx and of /dev/sdy"):
        CardTable(path).check([disk(), disk("/dev/sdy")])
    CardTable(path).check([disk(), disk("/dev/sdy", "cd34")])
    assert CardTable(path).others([disk()]) == ["/dev/sdq"]


def test_a_row_of_a_card_that_is_not_there_is_told(day, tool, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("card,animal\nCD34,m1\n")
    done = tool("collect", *day(1), tmp_path / "lab", *TOLD, "--table", path)
    assert done.code == 0, done.err
    assert f"note: CD34 has a row in {path} and is none of these cards" in done.out
