"""DataJoint's elements on the Miniscope-DAQ folder, in a MariaDB server that this script starts and ends.

The scope by element-miniscope, the behaviour camera by the camera tables of element-deeplabcut; lab, animal and session
by DataJoint's own elements too. Both are asked again from the database and held against what is on the card.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import FOLDER, TRUTH, check, main, same_pixels, session

USER, WORD = "reader", "of our exports"
START = 120  # s for the server to be there
FILMED = 1800


@contextmanager
def server() -> Iterator[int]:
    """Run a server of our own on a free port of this computer; nothing of it is left."""
    program = "/usr/sbin/mariadbd"
    with tempfile.TemporaryDirectory(prefix="datajoint-") as place, socket.socket() as free:
        data = Path(place, "data")
        user = [f"--user={'root' if os.geteuid() == 0 else os.environ['USER']}"]
        made = ["mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"]
        subprocess.run([*made, "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        grant = Path(place, "grant.sql")
        grant.write_text(
            f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{WORD}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'127.0.0.1';\n",
            encoding="ascii",
        )
        words = [program, "--no-defaults", *user, f"--datadir={data}", f"--init-file={grant}", f"--port={port}"]
        words += ["--bind-address=127.0.0.1", f"--socket={place}/socket", "--skip-name-resolve"]
        with Path(place, "log").open("wb") as log:
            running = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            until = time.monotonic() + START
            while not answers(port):
                assert running.poll() is None, Path(place, "log").read_text(errors="replace")[-500:]
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.2)
            yield port
        finally:
            running.terminate()
            running.wait(timeout=START)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


@cache
def tables() -> Any:
    """The elements, activated as DataJoint's own workflow does it, with one session of one animal in them."""
    import datajoint as dj
    from element_animal import subject
    from element_deeplabcut import train
    from element_deeplabcut.readers.dlc_reader import model  # first, since the two import each other
    from element_lab import lab
    from element_miniscope import miniscope
    from element_session import session_with_id

    linked = types.ModuleType("linked")
    link: Any = linked
    lab.activate("reader_lab")
    link.Source, link.Lab, link.Protocol, link.User = lab.Source, lab.Lab, lab.Protocol, lab.User
    link.Project, link.Experimenter, link.Device = lab.Project, lab.User, lab.Device
    subject.activate("reader_subject", linking_module=linked)
    link.Subject = subject.Subject
    session_with_id.activate("reader_session", linking_module=linked)
    link.Session = session_with_id.Session
    schema = dj.Schema("reader_places")

    @schema
    class AnatomicalLocation(dj.Manual):  # a workflow's own table
        definition = "region : varchar(24)"

    link.AnatomicalLocation = AnatomicalLocation
    link.get_miniscope_root_data_dir = lambda: [str(FOLDER)]
    link.get_dlc_root_data_dir = lambda: [str(FOLDER)]
    link.get_session_directory = lambda key: (session_with_id.SessionDirectory & key).fetch1("session_dir")
    miniscope.activate("reader_miniscope", linking_module=linked)
    train.activate("reader_train", linking_module=linked)
    link.train = train
    model.activate("reader_model", linking_module=linked)

    key = {"subject": "m1", "session_id": 1}
    subject.Subject.insert1(
        {"subject": "m1", "sex": "M", "subject_birth_date": "2025-12-14", "subject_description": "simulated"}
    )
    session_with_id.Session.insert1({**key, "session_datetime": "2026-03-14 15:09:26"})
    scope = (session("both") / "Miniscope").relative_to(FOLDER)
    session_with_id.SessionDirectory.insert1({**key, "session_dir": scope.as_posix()})
    lab.Device.insert([("scope", "miniscope", ""), ("BehavCam", "video", "")])
    return miniscope, model, {**key, "recording_id": 0}


def frames(paths: list[Path]) -> Any:
    """All pictures of the files the database names, in the order of their numbers."""
    import cv2

    found = []
    for path in sorted(paths, key=lambda path: int(path.stem)):
        video = cv2.VideoCapture(str(path))
        while True:
            there, picture = video.read()
            if not there:
                break
            found.append(picture)
        video.release()
    return np.stack(found)


@check("element-miniscope", "RecordingInfo.populate() of the folder with both cameras")
def scope() -> str:
    miniscope, _, key = tables()
    software = {"device": "scope", "acq_software": "Miniscope-DAQ-V4"}
    miniscope.Recording.insert1({**key, **software})
    miniscope.RecordingInfo.populate(suppress_errors=False)
    found = (miniscope.RecordingInfo & key).fetch1()
    count, height, width = TRUTH["video"].shape
    assert (found["nframes"], found["px_height"], found["px_width"]) == (count, height, width), found
    assert found["fps"] == round(float(TRUTH["fps"])), found["fps"]
    stamps = found["time_stamps"]
    np.testing.assert_array_equal(stamps[:, 0], np.arange(count))
    np.testing.assert_allclose(stamps[:, 1] / 1000, TRUTH["time"] + 0.5, atol=0.0011)
    np.testing.assert_array_equal(stamps[:, 3], TRUTH["frame_num"])
    written = json.loads((session("both") / "Miniscope" / "metaData.json").read_text())
    assert (found["gain"], found["led_power"]) == (written["gain"], written["led0"]), found
    paths = [FOLDER / name for name in (miniscope.RecordingInfo.File & key).fetch("file_path")]
    same_pixels(frames(paths)[..., 0])
    return (
        f"in the database: {count} time stamps, frame numbers, size, gain {found['gain']:g} and LED "
        f"{found['led_power']:g} exact; pixels of the {len(paths)} files it names exact"
    )


@check("element-deeplabcut", "its camera tables, RecordingInfo.populate() of the behaviour camera beside the scope")
def camera() -> str:
    import cv2

    _, model, key = tables()
    folder = session("both") / "BehavCam"
    model.VideoRecording.insert1({**key, "device": "BehavCam"})
    videos = sorted(folder.glob("*.avi"), key=lambda path: int(path.stem))
    model.VideoRecording.File.insert(
        {**key, "file_id": k, "file_path": path.relative_to(FOLDER).as_posix()} for k, path in enumerate(videos)
    )
    model.RecordingInfo.populate(suppress_errors=False)
    found = (model.RecordingInfo & key).fetch1()
    assert (found["nframes"], found["px_height"], found["px_width"], found["fps"]) == (FILMED, 120, 160, 30), found
    stamps = np.loadtxt(folder / "timeStamps.csv", delimiter=",", skiprows=1)
    assert len(stamps) == found["nframes"]
    np.testing.assert_allclose(stamps[:, 1] / 1000, np.arange(FILMED) / 30, atol=0.0011)
    named = (model.VideoRecording.File & key).fetch("file_path")
    filmed = cv2.VideoCapture(str(FOLDER / "BehavCam" / "0.avi"))
    for picture in frames([FOLDER / name for name in named]):
        there, wanted = filmed.read()
        assert there
        assert (picture == wanted).all()
    return f"in the database: {FILMED} frames at 30 frames/s, size exact; a time stamp each; pixels as they were filmed"


if __name__ == "__main__":
    with server() as port:
        import datajoint

        datajoint.config.update({"database.host": "127.0.0.1", "database.port": port, "safemode": False})
        datajoint.config.update({"database.user": USER, "database.password": WORD, "database.use_tls": False})
        datajoint.config["enable_python_native_blobs"] = True
        main()
