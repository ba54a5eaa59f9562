"""Programs of the system on our files, from an environment of numpy alone: ffmpeg, GStreamer, GNU Octave, ImageJ."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from common import FOLDER, TRUTH, NotHereError, check, main

VIDEOS = ("grey.avi", "ffv1.avi", "matroska.mkv", "odd.avi")
RAW = FOLDER / "raw.bin"
IMAGEJ = "/usr/share/java/ij.jar"


def run(*words: str | Path) -> str:
    """Run a program; what it printed."""
    if shutil.which(str(words[0])) is None:
        raise NotHereError(f"{words[0]} is not on the PATH")
    RAW.unlink(missing_ok=True)
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-300:]
    return done.stdout


def known(*words: str, behind: str = "") -> str:
    """Version of a program, as it prints it ``behind`` its name."""
    try:
        found = re.search(rf"(?<={behind})\d+(\.\d+)+", run(*words))
    except (NotHereError, AssertionError):
        return "?"
    return found[0] if found else "?"


def known_jar() -> str:
    """Version of ImageJ, by the name of its file."""
    found = re.search(r"ij-(.+)\.jar", os.path.realpath(IMAGEJ))
    return found[1] if found else "?"


def same_raw(name: str, row: int = 1) -> None:
    """Assert that the raw pixels a program wrote are those of the card; rows are padded to a multiple of ``row``."""
    wanted = TRUTH["video"][:, :, 1:-1] if name.startswith("odd") else TRUTH["video"]
    count, height, width = wanted.shape
    found: Any = np.fromfile(RAW, np.uint8).reshape(count, height, -(-width // row) * row)[:, :, :width]
    assert (found == wanted).all(), f"{(found != wanted).any(axis=(1, 2)).sum()} frames of {name} differ"


@check("ffmpeg", "decode GREY and FFV1, AVI and Matroska, and rows of 302 pixels", known("ffmpeg", "-version"))
def ffmpeg() -> str:
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-fps_mode", "passthrough"]
    for name in VIDEOS:
        run("ffmpeg", "-v", "error", "-i", FOLDER / name, *raw, RAW)
        same_raw(name)
    return "pixels exact"


@check("GStreamer", "decodebin of the same videos", known("gst-launch-1.0", "--version", behind="GStreamer "))
def gstreamer() -> str:
    for name in VIDEOS:
        words = f"filesrc location={FOLDER / name} ! decodebin ! videoconvert ! video/x-raw,format=GRAY8"
        run("gst-launch-1.0", "-q", *words.split(), "!", "filesink", f"location={RAW}")
        same_raw(name, row=4)
    return "pixels exact"


@check("GNU Octave", "load -hdf5 of the HDF5 export", known("octave-cli", "--version"))
def octave() -> str:
    said = run(
        "octave-cli", "--eval",
        f'a = load("-hdf5", "{FOLDER / "a.h5"}"); f = fopen("{RAW}", "w"); fwrite(f, a.mov, "uint8"); fclose(f); '
        "printf(\'%s %s %d\', class(a.mov), class(a.headers.complete), numel(a.headers.frame_num))",
    )  # fmt: skip
    same_raw("a.h5")
    assert said == f"uint8 uint8 {len(TRUTH['frame_num'])}", said
    return "pixels exact, as (x, y, frame); headers are numbers"


def imagej_macro(text: str) -> str:
    """Run a macro of ImageJ, which needs a display."""
    if not Path(IMAGEJ).exists():
        raise NotHereError("ImageJ is not here (apt install imagej)")
    macro = FOLDER / "macro.ijm"
    macro.write_text(text, encoding="utf-8")
    display = [] if os.environ.get("DISPLAY") else ["xvfb-run", "-a"]
    return run(*display, "java", "-Xmx3g", "-cp", IMAGEJ, "ij.ImageJ", "-batch", macro)


@check("ImageJ", "File > Open of the TIFF export", known_jar())
def imagej_tiff() -> str:
    said = imagej_macro(f'''open("{FOLDER / "a.tif"}"); Stack.getDimensions(w, h, c, z, f);
        print(w + " " + h + " " + c + " " + z + " " + f + " " + Stack.getFrameInterval());
        saveAs("Raw Data", "{RAW}"); ''')
    RAW.with_suffix(".raw").exists() and RAW.with_suffix(".raw").replace(RAW)
    rest = said.split()[2:]
    assert (rest[0], rest[1], int(rest[2])) == ("1", "1", len(TRUTH["video"])), said
    assert abs(1 / float(rest[3]) - float(TRUTH["fps"])) < 0.1, said
    same_raw("a.tif")
    return f"pixels exact, {rest[2]} frames on the time axis, frame interval {rest[3]} s"


@check("ImageJ", "File > Import > AVI of GREY, and of rows of 302 pixels", known_jar())
def imagej_avi() -> str:
    for name in ("grey.avi", "odd.avi"):
        imagej_macro(f'run("AVI...", "open={FOLDER / name}"); saveAs("Raw Data", "{RAW}");')
        RAW.with_suffix(".raw").exists() and RAW.with_suffix(".raw").replace(RAW)
        same_raw(name)
    return "pixels exact"


if __name__ == "__main__":
    main()
