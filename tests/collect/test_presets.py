"""Settings and exports kept by name: one readable file, for the command line and the page."""

from __future__ import annotations

import json

import pytest

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.collect.exports import parse, wanted
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.presets import ExportPreset, Preset
from miniscope_xr.tools.simulate import blank


def test_kept_shown_and_removed(tool):
    assert tool("preset", "save", "dim", "--layout", "v4-wirefree", "gain=2x", "led=5").code == 0
    assert tool("preset", "save", "dandi", "to=nwb", "species=Mus musculus", "fps=nominal").code == 0
    assert presets.load_all() == {
        "dim": Preset("v4-wirefree", ("gain=2x", "led=5")),
        "dandi": ExportPreset("nwb", ("species=Mus musculus", "fps=nominal")),
    }
    assert json.loads(presets.file().read_text())["dim"] == {"layout": "v4-wirefree", "words": ["gain=2x", "led=5"]}
    listed = tool("preset", "list").out
    assert "dim: settings of v4-wirefree: gain=2x led=5" in listed
    assert "dandi: export to nwb" in listed
    assert str(presets.file()) in listed
    assert "  led=5" in tool("preset", "show", "dim").out
    assert json.loads(tool("preset", "show", "dandi", "--json").out)["dandi"]["export"] == "nwb"
    assert tool("preset", "remove", "dim").code == 0
    assert list(presets.load_all()) == ["dandi"]
    assert tool("preset", "remove", "dim").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gian=2x"], "gain"),
        (["gain=9x"], "gain"),
        ([], "nothing to keep"),
        (["to=nbw"], "did you mean 'nwb'"),
        (["to=nwb", "speces=Mus musculus"], "did you mean 'species'"),
        (["to=hdf5", "species=Mus musculus"], "cannot hold it"),
        (["to=nwb", "sex=male"], "one of M, F, U"),
        (["to=nwb", "fps=fast"], "fps=fast"),
        (["to=nwb", "gaps=maybe"], "skip or fill"),
        (["to=nwb", "animal=m1"], "is no option"),
    ],
)
def test_what_would_not_do_is_not_kept(tool, words, said):
    done = tool("preset", "save", "x", *words)
    assert done.code == 2
    assert said in done.err
    assert presets.load_all() == {}


def test_a_preset_is_of_one_kind(tool):
    tool("preset", "save", "x", "gain=2x")
    assert "other kind" in tool("preset", "save", "x", "to=nwb").err
    assert tool("preset", "save", "nwb", "to=nwb").code == 2
    with pytest.raises(OptionError, match="did you mean 'x'"):
        presets.settings_preset("xx")
    tool("preset", "save", "out", "to=tiff")
    with pytest.raises(OptionError, match="one of an export"):
        presets.settings_preset("out")


def test_those_of_an_earlier_version_are_found(own_home):
    old = own_home / "presets.json"
    old.write_text('{"old": {"layout": "v4-wirefree", "words": ["gain=2"]}}')
    assert presets.load() == {"old": Preset("v4-wirefree", ("gain=2",))}
    presets.keep("new", "", ["led=3"])
    assert set(json.loads(presets.file().read_text())) == {"old", "new"}
    assert old.exists()


def test_prepare_with_a_preset(tool, tmp_path):
    card = blank("v4-wirefree").write(tmp_path / "card.img")
    with card.open("r+b") as file:
        file.truncate(64 << 20)
    tool("preset", "save", "dim", "--layout", "v4-wirefree", "gain=2x", "led=5", "record_length=5")
    done = tool(
        "prepare", card, "--preset", "dim", "led=7", "--image", "--yes", "--card", identify(str(card)).card_id, "--json"
    )  # fmt: skip
    assert done.code == 0, done.err
    settings = json.loads(done.out)["settings"]
    assert (settings["gain"], settings["led"], settings["record_length"]) == (2, 7, 5)
    missing = tool("prepare", card, "--preset", "dimm", "--image")
    assert missing.code == 2
    assert "did you mean 'dim'" in missing.err


def test_exports_by_a_word(tool):
    tool("preset", "save", "mine", "to=.ome.tif", "fps=20", "gaps=fill")
    one, other = wanted(["mine", "hdf5"])
    assert (one.to, one.ending, dict(one.opening), dict(one.options)) == (
        "tiff", "-mine.ome.tif", {"gaps": "fill"}, {"fps": 20.0},
    )  # fmt: skip
    assert other.ending == ".h5"
    assert parse("miniscope-daq", ()).ending == "-miniscope-daq"
    with pytest.raises(OptionError, match="did you mean 'mine'"):
        wanted(["mien"])
