"""roiextractors and neuroconv on the Miniscope-DAQ folder; pynwb and nwbinspector on the NWB file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels, session

ABOUT = "identifier: DANDI:000027\nname: a session\ndescription: one recording of a wire-free Miniscope\n"


@check("roiextractors", "MiniscopeImagingExtractor(folder)")
def extractor() -> str:
    from roiextractors import MiniscopeImagingExtractor

    found = MiniscopeImagingExtractor(folder_path=str(session() / "Miniscope"))
    same_pixels(found.get_series())
    rate = found.get_sampling_frequency()
    times = found.get_timestamps() if hasattr(found, "get_timestamps") else found.get_native_timestamps()
    np.testing.assert_allclose(times, TRUTH["time"], atol=0.0011)
    return f"pixels and time stamps exact, {rate:.3f} frames/s"


@check("neuroconv", "MiniscopeImagingInterface to NWB")
def interface() -> str:
    from neuroconv.datainterfaces import MiniscopeImagingInterface
    from pynwb import NWBHDF5IO

    made = MiniscopeImagingInterface(folder_path=str(session() / "Miniscope"))
    metadata = made.get_metadata()
    metadata["NWBFile"]["session_start_time"] = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
    path = FOLDER / "neuroconv.nwb"
    path.unlink(missing_ok=True)
    made.run_conversion(nwbfile_path=str(path), metadata=metadata)
    with NWBHDF5IO(str(path), "r") as io:
        (series,) = [s for s in io.read().acquisition.values() if s.neurodata_type == "OnePhotonSeries"]
        same_pixels(series.data[...].transpose(0, 2, 1))
        return f"pixels exact; device {series.imaging_plane.device.name}"


@check("neuroconv", "MiniscopeConverter(folder with both cameras, its userConfig.json) to NWB")
def converter() -> str:
    from neuroconv.converters import MiniscopeConverter
    from pynwb import NWBHDF5IO

    made = MiniscopeConverter(str(session("both")), str(session("both") / "userConfig.json"))
    path = FOLDER / "converted.nwb"
    made.run_conversion(nwbfile_path=str(path), metadata=made.get_metadata(), overwrite=True)
    with NWBHDF5IO(str(path), "r") as io:
        file = io.read()
        (scope,) = [s for s in file.acquisition.values() if s.neurodata_type == "OnePhotonSeries"]
        (camera,) = [s for s in file.acquisition.values() if s.neurodata_type == "ImageSeries"]
        same_pixels(scope.data[...].transpose(0, 2, 1))
        np.testing.assert_allclose(scope.timestamps[...], TRUTH["time"] + 0.5, atol=0.0011)
        np.testing.assert_allclose(camera.timestamps[...], np.arange(1800) / 30, atol=0.0011)
        device = scope.imaging_plane.device
        assert (device.neurodata_type, device.frameRate, device.gain) == ("Miniscope", "20FPS", "1")
    return "pixels exact; both cameras' time stamps exact, one zero; device Miniscope with its settings"


@check("neuroconv", "MiniscopeBehaviorInterface(folder with both cameras) to NWB")
def behaviour() -> str:
    from neuroconv.datainterfaces import MiniscopeBehaviorInterface
    from pynwb import NWBHDF5IO

    made = MiniscopeBehaviorInterface(folder_path=str(session("both").parent))
    metadata = made.get_metadata()
    metadata["NWBFile"]["session_start_time"] = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
    path = FOLDER / "behaviour.nwb"
    made.run_conversion(nwbfile_path=str(path), metadata=metadata, overwrite=True)
    with NWBHDF5IO(str(path), "r") as io:
        (series,) = io.read().acquisition.values()
        np.testing.assert_allclose(series.timestamps[...], np.arange(1800) / 30, atol=0.0011)
    return "1800 time stamps exact"


@check("pynwb", "validate() and read the NWB export with both cameras")
def validate_both() -> str:
    import pynwb

    path = str(FOLDER / "both.nwb")
    problems = pynwb.validate(path=path)
    assert not problems, problems
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        same_pixels(file.acquisition["OnePhotonSeries"].data[...].transpose(0, 2, 1))
        (camera,) = [s for s in file.acquisition.values() if type(s).__name__ == "ImageSeries"]
        (there,) = camera.external_file[:]
        assert (FOLDER / there).exists(), there
        apart = file.acquisition["OnePhotonSeries"].timestamps[0] - camera.timestamps[0] - TRUTH["time"][0]
        np.testing.assert_allclose(apart, 0.5, atol=0.0011)
    return "no error; pixels exact; the behaviour video by its name, both on one clock"


@check("pynwb", "validate() and read the NWB export")
def validate() -> str:
    import pynwb

    problems = pynwb.validate(path=str(FOLDER / "a.nwb"))
    assert not problems, problems
    with pynwb.NWBHDF5IO(str(FOLDER / "a.nwb"), "r") as io:
        file = io.read()
        series = file.acquisition["OnePhotonSeries"]
        same_pixels(series.data[...].transpose(0, 2, 1))
        np.testing.assert_allclose(series.timestamps[...], TRUTH["time"])
        numbers = file.acquisition["frame_headers"]["frame_num"][:]
        np.testing.assert_array_equal(numbers, TRUTH["frame_num"])
        return f"no error; pixels, times and headers exact; {len(file.intervals['lost_frames'])} gaps"


@check("pynwb", "validate() and read the NWB export of two recordings joined, with both cameras")
def validate_joined() -> str:
    import pynwb

    path = str(FOLDER / "joined.nwb")
    problems = pynwb.validate(path=path)
    assert not problems, problems
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        series = file.acquisition["OnePhotonSeries"]
        first, found = len(TRUTH["video"]), series.data[...].transpose(0, 2, 1)
        same_pixels(found[:first])
        np.testing.assert_array_equal(found[first:], TRUTH["second"])
        assert (np.diff(series.timestamps[...]) > 0).all()
        which = file.acquisition["frame_headers"]["recording"][:]
        np.testing.assert_array_equal(which, np.repeat([0, 1], [first, len(TRUTH["second"])]))
    return f"no error; pixels of {first} and {len(found) - first} frames exact, time runs on, each says its recording"


@check("nwbinspector", "inspect the NWB export")
def inspect() -> str:
    from nwbinspector import Importance, inspect_nwbfile

    found = list(inspect_nwbfile(nwbfile_path=str(FOLDER / "a.nwb"), importance_threshold=Importance.CRITICAL))
    others = [message.message for message in found if not message.message.startswith("Subject")]
    assert not others, others
    less = list(inspect_nwbfile(nwbfile_path=str(FOLDER / "a.nwb")))
    for message in less:
        print(message.importance, message.message, file=sys.stderr)
    return f"nothing critical but the animal, which a card does not know; {len(less)} remarks in all"


@check("nwbinspector", "inspect the NWB export that was told of its session")
def inspect_told() -> str:
    return _inspected("session.nwb")


@check("nwbinspector", "inspect the NWB export with both cameras")
def inspect_both() -> str:
    return _inspected("both.nwb")


@check("nwbinspector", "inspect the NWB export of two recordings joined, with both cameras")
def inspect_joined() -> str:
    return _inspected("joined.nwb")


def _inspected(name: str) -> str:
    from nwbinspector import Importance, inspect_nwbfile

    found = list(inspect_nwbfile(nwbfile_path=str(FOLDER / name)))
    warned = [m.message for m in found if m.importance.value > Importance.BEST_PRACTICE_SUGGESTION.value]
    assert not warned, warned
    return f"nothing critical, no violation, no warning; {len(found)} suggestions"


@check("dandi", "organize, then validate the NWB export that was told of its session")
def dandi() -> str:
    return _organized("session.nwb")


@check("dandi", "organize, then validate the NWB export with both cameras")
def dandi_both() -> str:
    return _organized("both.nwb", "--update-external-file-paths", "--media-files-mode", "copy")


@check("dandi", "organize, then validate the NWB export of two recordings joined, with both cameras")
def dandi_joined() -> str:
    return _organized("joined.nwb", "--update-external-file-paths", "--media-files-mode", "copy")


@check("dandi", "validate the NWB export of a card that nobody told of")
def dandi_untold() -> str:
    """Without an animal DANDI has no place for it: that, and nothing else, is what it says."""
    place = FOLDER / "untold"
    shutil.rmtree(place, ignore_errors=True)
    (place / "sub-m1").mkdir(parents=True)
    (place / "dandiset.yaml").write_text(ABOUT, encoding="utf-8")
    shutil.copyfile(FOLDER / "a.nwb", place / "sub-m1" / "sub-m1_ophys.nwb")
    program = str(Path(sys.executable).with_name("dandi"))
    words = [program, "validate", "--grouping", "none", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, file=sys.stderr)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert wrong, done.stdout
    assert all("subject" in line.lower() for line in wrong), wrong
    return "only the animal is missing, which a card does not know"


def _organized(name: str, *words_more: str) -> str:
    place = FOLDER / "dandiset"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "dandiset.yaml").write_text(ABOUT, encoding="utf-8")
    program = str(Path(sys.executable).with_name("dandi"))
    organize = ["organize", "-d", place, "-f", "copy", *words_more, FOLDER / name]
    for words in (organize, ["validate", place]):
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (file,) = place.rglob("*.nwb")
    return f"{file.name}, exit code 0: {done.stdout.strip().splitlines()[0]}"


if __name__ == "__main__":
    main()
