"""Names of files from a template: safe everywhere, told apart, and inside the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.collect.names import fields_of, name_of, refuse_same, safe


@given(st.text())
def test_every_name_is_one_that_every_system_takes(text):
    name = safe(text)
    assert name
    assert not set(name) & set('<>:"/\\|?*')
    assert name.isprintable()
    assert name == name.strip()
    assert name[-1] not in ". "
    assert name[0] not in ".-"
    assert name.split(".")[0].lower() not in ("con", "prn", "aux", "nul", "com1", "lpt9")
    assert len(name.encode()) <= 155
    assert safe(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("m1", "m1"), ("m1: left/right?", "m1_ left_right_"), ("..", "__"), ("nul.txt", "_nul.txt"), ("Ärger", "Ärger"),
     ("a.", "a_"), ("-rf", "_rf"), ("", "_"), ("日本", "日本")],
)  # fmt: skip
def test_safe(text, name):
    assert safe(text) == name


@pytest.mark.parametrize(
    "template",
    ["../{animal}", "/{animal}", "{animal}/../x", "{animal}//x", "c:/{animal}", "{animal}\\x", "{animal", "plain", "",
     "{animal.x}", "{animal!r}", "{animal:>9}", "{}", "{animal}/."],
)  # fmt: skip
def test_templates_that_are_refused(template):
    with pytest.raises(OptionError):
        fields_of(template)


def test_a_template_filled_in():
    assert fields_of("{animal}/{date}/{animal}-{card}") == ["animal", "date", "card"]
    values = {"animal": "../m/1", "date": "2026-03-14T15:09:26", "card": "ab"}
    assert str(name_of("{animal}/{date}/x {card}", values)) == "__._m_1/2026-03-14/x ab".replace("__._", "_._")


def test_two_of_one_name():
    with pytest.raises(OptionError, match=r"/dev/sdb and /dev/sdc"):
        refuse_same({"/dev/sdb": Path("a/S1"), "/dev/sdc": Path("a/s1")})
    refuse_same({"/dev/sdb": Path("a/S1"), "/dev/sdc": Path("b/s1")})
