"""What was told of a card is kept beside its copy, and in everything made of it."""

from __future__ import annotations

import json

import pytest
import xarray as xr

from miniscope_xr.engine import sidecar
from miniscope_xr.errors import CardNotFoundError, OptionError
from miniscope_xr.tools.collect.about import date_of
from miniscope_xr.tools.collect.record import Sidecar
from miniscope_xr.tools.collect.table import CardTable
from miniscope_xr.tools.export import export
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.report import write_report

from .conftest import MOMENT

ABOUT = {"animal": "m1", "cage": "7b", "date": MOMENT, "experimenter": "Doe, Jane", "notes": "sleepy", "session": "s1"}


@pytest.fixture
def copy(day, tool, tmp_path):
    (card,) = day(1)
    table = tmp_path / "day.yaml"
    table.write_text(
        f"{identify(str(card)).card_id}: {{animal: m1, cage: 7b, session: s1, date: {MOMENT}, notes: sleepy}}\n"
    )
    done = tool("collect", card, "into", tmp_path / "lab", "--table", table, "--experimenter", "Doe, Jane")
    assert done.code == 0, done.err
    return tmp_path / "lab" / "m1" / "2026-03-14" / "s1.img"


def test_every_dataset_has_it(copy, recwarn):
    with xr.open_dataset(copy, engine="miniscope") as ds:
        assert {name: ds.attrs[name] for name in ABOUT} == ABOUT
        assert ds.isel(frame=slice(3)).attrs["animal"] == "m1"
    with xr.open_dataset(copy, engine="miniscope", group="buffers") as ds:
        assert ds.attrs["session"] == "s1"
    with xr.open_datatree(copy, engine="miniscope") as tree:
        assert tree.attrs["animal"] == tree["recording_0"].attrs["animal"] == "m1"
    assert not recwarn.list


def test_what_a_dataset_says_of_itself_stays(copy):
    beside = sidecar.beside(copy)
    told = json.loads(beside.read_text())
    told["about"] |= {"gain": "99", "animal": "m2"}
    beside.write_text(json.dumps(told))
    with xr.open_dataset(copy, engine="miniscope") as ds:
        assert ds.attrs["gain"] != "99"
        assert ds.attrs["animal"] == "m2"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"about": {"animal": "m9"}}', '{"miniscope-xr": 1}', "\x00\xff", "9" * 5000]
)
def test_a_file_of_somebody_elses_says_nothing(copy, text, recwarn):
    sidecar.beside(copy).write_text(text, encoding="latin-1")
    with xr.open_dataset(copy, engine="miniscope") as ds:
        assert "animal" not in ds.attrs
    assert not recwarn.list


def test_a_url_has_no_file_beside_it():
    assert sidecar.told("https://example.org/card.img") == {}
    assert sidecar.told("/nowhere/at/all.img") == {}


@pytest.mark.slow
def test_nwb_has_it(copy, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_miniscope")
    with xr.open_dataset(copy, engine="miniscope") as ds:
        export(ds, tmp_path / "a.nwb", progress=False)
        export(ds, tmp_path / "b.nwb", animal="other", progress=False)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        file = io.read()
        assert file.subject.subject_id == "m1"
        assert file.session_id == "s1"
        assert file.experimenter == ("Doe, Jane",)
        assert file.session_start_time.replace(tzinfo=None).isoformat() == MOMENT
        assert "sleepy" in file.notes
        assert "animal" not in file.devices["Miniscope"].description
    with pynwb.NWBHDF5IO(tmp_path / "b.nwb", "r") as io:
        assert io.read().subject.subject_id == "other"


@pytest.mark.slow
def test_a_daq_folder_has_it(copy, tmp_path):
    pytest.importorskip("cv2", exc_type=ImportError)
    with xr.open_dataset(copy, engine="miniscope") as ds:
        out = export(ds, tmp_path / "daq", "miniscope-daq", progress=False)
    assert out.parts[-2:] == ("2026_03_14", "15_09_26")
    said = json.loads((out / "metaData.json").read_text())
    assert said["animalName"] == "m1"
    assert "animal" not in json.loads((out / "Miniscope" / "metaData.json").read_text())["cardSettings"]
    assert "0,sleepy" in (out / "notes.csv").read_text()


SLOW = [pytest.param(to, name, marks=pytest.mark.slow) for to, name in (("netcdf", "a.nc"), ("minian", "a"))]


@pytest.mark.parametrize(("to", "name"), [("zarr", "a.zarr"), ("hdf5", "a.h5"), *SLOW])
def test_arrays_have_it(copy, tmp_path, to, name):
    pytest.importorskip({"netcdf": "h5netcdf", "hdf5": "h5py"}.get(to, "zarr"))
    with xr.open_dataset(copy, engine="miniscope") as ds:
        out = export(ds, tmp_path / name, to, progress=False)
    if to == "hdf5":
        import h5py

        with h5py.File(out) as file:
            assert {key: file.attrs[key] for key in ABOUT} == ABOUT
    elif to == "netcdf":
        with xr.open_dataset(out, engine="h5netcdf", decode_timedelta=True) as ds:
            assert {key: ds.attrs[key] for key in ABOUT} == ABOUT
    else:
        text = "".join(p.read_text() for p in out.rglob("*") if p.name in ("zarr.json", ".zattrs"))
        assert all(f'"{value}"' in text for value in ABOUT.values())


@pytest.mark.slow
def test_a_report_shows_it(copy, tmp_path):
    pytest.importorskip("PIL")
    write_report(copy, tmp_path / "a.html", progress=False)
    page = (tmp_path / "a.html").read_text()
    for value in ABOUT.values():
        assert value in page
    settings = page[page.index("Settings on the card") :]
    assert "sleepy" not in settings


def test_of_a_day_alone_the_time_is_not_made_up(day, tool, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    done = tool("collect", *day(1), tmp_path / "lab", "--name", "x{card}", "--date", "2026-03-14", "--export", "tiff")
    assert done.code == 0
    (stack,) = (tmp_path / "lab").rglob("*.tif")
    with tifffile.TiffFile(stack) as file:
        info = json.loads(file.imagej_metadata["Info"])
    assert info["start"].startswith("2026-03-14T00:00:00")
    assert "time of day is not known" in info["start_source"]


def test_told_before_it_is_not_asked_again(copy, day, tool, tmp_path):
    card = tmp_path / "card0.img"
    done = tool("collect", card, tmp_path / "lab")
    assert done.code == 0
    assert json.loads(sidecar.beside(copy).read_text())["about"] == ABOUT


def test_asked_for_once_on_a_terminal(day, tool, tmp_path, monkeypatch):
    from miniscope_xr.tools.cli import collect

    answers = {"animal": iter(["m1", "m2"]), "date": iter(["3/4/26", MOMENT, ""]), "session": iter(["a", "a"])}
    asked = []

    def ask(question):
        asked.append(question)
        return next(answers[question.split()[0]])

    monkeypatch.setattr(collect, "terminal", lambda: ask)
    done = tool("collect", *day(2), tmp_path / "lab")
    assert done.code == 0
    assert "expected a day such as" in done.err
    assert asked[-2].endswith(f"[{MOMENT}]: ") or asked[-1].endswith(f"[{MOMENT}]: ")
    assert {p.relative_to(tmp_path / "lab").as_posix() for p in (tmp_path / "lab").rglob("*.img")} == {
        "m1/2026-03-14/a.img", "m2/2026-03-14/a.img",
    }  # fmt: skip


CSV = "Card;animal;session;Date\nAB12;m1;a;2026-03-14\n;;;\ncard1.img;m2;b;today\n"


def test_tables(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("\ufeff" + CSV, encoding="utf-8")
    table = CardTable(path)
    assert table.of("ab12", "/dev/sdb")["animal"] == "m1"
    assert table.of("zz", "/cards/card1.img")["session"] == "b"
    assert table.of("zz", "/dev/sdc") == {}
    assert table.names_id("AB12")
    assert not table.names_id("/cards/card1.img")
    listed = tmp_path / "day.yml"
    listed.write_text("- {card: ab12, animal: m1, date: 2026-03-14}\n")
    assert CardTable(listed).of("ab12", "")["date"] == "2026-03-14"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "animal,session\nm1,a\n", "one of them is `card`"),
        ("a.csv", "card,animal\n,m1\n", "row 2: no card"),
        ("a.csv", "card,animal\nx,m1\nX,m2\n", "named twice"),
        ("a.csv", "card,animal\nx,m1,2\n", "more values than columns"),
        ("a.csv", "card,date\nx,3/4/2026\n", "row 2: date="),
        ("a.csv", "card,sex\nx,male\n", "one of M, F, U"),
        ("a.csv", "card,the animal\nx,m1\n", "no name of a column"),
        ("a.csv", "", "one of them is `card`"),
        ("a.yaml", "{", "no YAML"),
        ("a.yaml", "plain", "below its id"),
        ("a.yaml", "- 1", "below its id"),
        ("a.yaml", "ab: m1", "no name of a column"),
    ],
)
def test_tables_that_are_none(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match=said):
        CardTable(tmp_path / name)


def test_no_table_at_all(tmp_path):
    with pytest.raises(CardNotFoundError, match="no such table"):
        CardTable(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"card\xff\xfe")
    with pytest.raises(OptionError, match="no text in UTF-8"):
        CardTable(tmp_path / "a.csv")


def test_dates():
    assert date_of("2026-03-14") == "2026-03-14"
    assert date_of("20260314") == "2026-03-14"
    assert date_of(" 2026-03-14 15:09 ") == "2026-03-14T15:09:00"
    assert date_of("2026-03-14T15:09:26+01:00") == "2026-03-14T15:09:26+01:00"
    for text in ("3/4/2026", "yesterday", "", "2026-02-30"):
        with pytest.raises(OptionError, match="2026-03-14"):
            date_of(text)


def test_what_a_kill_left_of_an_output_and_its_table_is_taken_away(tmp_path):
    record = Sidecar(tmp_path / "card.img", making=["card.tif"])
    other = tmp_path / ".other_headers-0d97d6dc.part.csv"
    left = [tmp_path / f".card{name}" for name in ("-0d97d6dc.part.tif", "_headers-0d97d6dc.part.csv")]
    for file in (other, *left):
        file.touch()
    record.tidy()
    assert list(tmp_path.iterdir()) == [other]
