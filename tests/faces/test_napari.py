"""napari opens a card by itself: the manifest is one it accepts, and the layers are the Dataset's."""

from __future__ import annotations

import subprocess
import sys
import warnings
from fnmatch import fnmatch
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from miniscope_xr.tools.simulate import RecordAgain, Stall
from miniscope_xr.tools.view import napari as napari_reader


def read(path: Path | list[Path]) -> list[tuple]:
    given = [str(one) for one in path] if isinstance(path, list) else str(path)
    found = napari_reader.reader(given)
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a doubt about a card, which one test looks at
        return found(given)


@pytest.mark.skipif(not find_spec("npe2"), reason="no npe2 (pip install npe2): napari's manifest is not validated")
def test_the_manifest_leads_to_the_reader(clean_card):
    """In a process of its own: importing npe2 warns, and its pytest plugin would be loaded for every test."""
    script = (
        "import sys\n"
        "from npe2 import PluginManager, io_utils\n"
        "PluginManager.instance().discover()\n"
        "PluginManager.instance().get_manifest('miniscope-xr').validate_imports()\n"
        "layers, found = io_utils.read_get_reader([sys.argv[1]], stack=False, plugin_name='miniscope-xr')\n"
        "print(found.command, layers[0][0].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(clean_card[0])], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["miniscope-xr.read (60, 304, 304)"]


def the_manifest():
    return yaml.safe_load(resources.files("miniscope_xr").joinpath("napari.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", ["a.img", "/dev/sdb", "/dev/mmcblk0", "/dev/loop12", "/dev/disk4", "/dev/rdisk4"])
def test_a_card_is_offered_to_the_reader_by_its_name(path):
    """napari compares a path without its folders, its ending in small letters."""
    (reader,) = the_manifest()["contributions"]["readers"]
    assert any(fnmatch(Path(path).name, pattern) for pattern in reader["filename_patterns"])


def test_the_manifest_names_what_there_is():
    manifest = the_manifest()
    (command,) = manifest["contributions"]["commands"]
    (contribution,) = manifest["contributions"]["readers"]
    assert contribution["command"] == command["id"]
    module, _, name = command["python_name"].partition(":")
    assert getattr(sys.modules[module], name) is napari_reader.reader
    (entry,) = metadata.entry_points(group="napari.manifest", name="miniscope-xr")
    assert entry.value == "miniscope_xr:napari.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree", "daq-wirefree"])
def test_a_layer_is_the_recording_with_its_gaps_black(make_card, open_card, layout):
    path, _ = make_card(layout, frames=40, events=[Stall(600, 300)])
    ((data, _, kind),) = read(path)
    ds = open_card(path, gaps="fill")
    assert kind == "image"
    assert (data.shape, data.dtype) == (ds.video.shape, np.uint8)
    np.testing.assert_array_equal(np.asarray(data[7]), ds.video[7].values)
    np.testing.assert_array_equal(np.asarray(data), ds.video.values)


def test_the_slider_tells_the_cards_time(make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    ((data, about, _),) = read(path)
    seconds = open_card(path, gaps="fill").time.values / np.timedelta64(1, "s")
    shown = np.arange(len(data)) * about["scale"][0]
    assert np.abs(shown - (seconds - seconds[0])).max() < 0.025  # half a frame
    assert about["scale"][1:] == (1, 1)
    assert (about["axis_labels"][0], about["units"][0]) == ("time", "second")


def test_every_recording_is_a_layer(make_card):
    path, _ = make_card(frames=20, events=[RecordAgain(frames=30)])
    assert [(about["name"], len(data)) for data, about, _ in read(path)] == [
        (f"{path.name}, recording 0", 20), (f"{path.name}, recording 1", 30),
    ]  # fmt: skip


def test_several_cards(make_card):
    paths = [make_card(frames=frames)[0] for frames in (5, 9)]
    assert [len(data) for data, _, _ in read(paths)] == [5, 9]


def test_doubts_are_shown(make_card, open_card):
    path, _ = make_card("v3-wirefree", frames=40)
    (text,) = open_card(path).attrs["warnings"]
    with pytest.warns(UserWarning, match=f"^{path.name}: ") as shown:
        ((_, about, _),) = napari_reader.layers(str(path))
    assert str(shown[0].message) == f"{path.name}: {text}"
    assert about["metadata"]["warnings"] == [text]


def test_contrast_is_of_whole_frames(make_card, open_card):
    path, _ = make_card(frames=100, events=[Stall(1500, 400)])
    ((_, about, _),) = read(path)
    video = open_card(path).video
    low, high = about["contrast_limits"]
    assert video.min() <= low < high <= video.max()


def test_what_is_no_card_is_left_to_others(tmp_path, clean_card):
    text = tmp_path / "a.img"
    text.write_text("no card")
    assert napari_reader.reader(str(text)) is None
    assert napari_reader.reader([str(clean_card[0]), str(text)]) is None
    assert napari_reader.reader(str(tmp_path / "absent.img")) is None


@pytest.mark.slow
def test_nothing_of_napari_is_imported(clean_card):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from miniscope_xr.tools.view.napari import reader; "
         f"reader({str(clean_card[0])!r})({str(clean_card[0])!r}); "
         "print([m for m in sys.modules if m.startswith(('napari', 'npe2', 'qtpy', 'vispy'))])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not find_spec("napari"), reason="no napari (pip install napari): a card is not opened in it")
def test_napari_shows_it(make_card, open_card):
    """In a process of its own, without a window: the model behind napari's viewer takes the layers."""
    path, _ = make_card(frames=60, events=[Stall(600, 300), RecordAgain(frames=20)])
    script = (
        "import sys, numpy as np\n"
        "from npe2 import PluginManager\n"
        "from napari.components import ViewerModel\n"
        "PluginManager.instance().discover()\n"
        "viewer = ViewerModel()\n"
        "first, second = viewer.open(sys.argv[1], plugin='miniscope-xr')\n"
        "viewer.dims.set_current_step(0, 9)\n"
        "shown = np.asarray(first.data[viewer.dims.current_step[0]])\n"
        "print(first.data.shape, len(second.data), first.units[0], int(shown.sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    video = open_card(path, recording=0, gaps="fill").video
    assert done.stdout.split("\n")[-2] == f"{video.shape} 20 second {int(video[9].sum())}"
