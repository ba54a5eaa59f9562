"""roiextractors and neuroconv on the Miniscope-DAQ folder; pynwb and nwbinspector on the NWB file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels, session


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
    from nwbinspector import Importance, inspect_nwbfile

    found = list(inspect_nwbfile(nwbfile_path=str(FOLDER / "session.nwb")))
    warned = [m.message for m in found if m.importance.value > Importance.BEST_PRACTICE_SUGGESTION.value]
    assert not warned, warned
    return f"nothing critical, no violation, no warning; {len(found)} suggestions"


@check("dandi", "organize, then validate the NWB export that was told of its session")
def dandi() -> str:
    place = FOLDER / "dandiset"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    about = "identifier: DANDI:000027\nname: a session\ndescription: one recording of a wire-free Miniscope\n"
    (place / "dandiset.yaml").write_text(about, encoding="utf-8")
    program = str(Path(sys.executable).with_name("dandi"))
    for words in (["organize", "-d", place, "-f", "copy", FOLDER / "session.nwb"], ["validate", place]):
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (file,) = place.rglob("*.nwb")
    return f"{file.name}, exit code 0: {done.stdout.strip().splitlines()[0]}"


if __name__ == "__main__":
    main()
