"""`pip install` needs no compiler: every dependency has a wheel for the systems and processors that labs have."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT: dict[str, Any] = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"test", "docs"})
SYSTEMS = {
    "Windows": ["win_amd64"],
    "macOS on Apple's processors": ["macosx_14_0_arm64", "macosx_11_0_arm64"],
    "macOS on Intel's processors": [f"macosx_{n}_x86_64" for n in ("14_0", "13_0", "11_0", "10_15", "10_13", "10_9")],
    "Linux": [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17, 12, 5)] + ["manylinux2014_x86_64"],
}


PYTHONS = [PROJECT["requires-python"].removeprefix(">="), "3.14"]
"""The lowest that is supported, and the newest for which the libraries have wheels."""


def wanted() -> list[str]:
    """Every requirement of the package and of the extras that users install."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in optional[extra])]
    return [line for line in lines if not line.startswith("miniscope-xr[")]


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_dependency_has_a_wheel(system: str, python: str, tmp_path: Path) -> None:
    platforms = [word for name in SYSTEMS[system] for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-input", "--quiet"]
    command += ["--retries", "1", "--timeout", "15", "--disable-pip-version-check", "--only-binary=:all:"]
    command += ["--target", str(tmp_path), "--report", str(tmp_path / "report.json"), *platforms]
    command += ["--python-version", python]
    try:
        done = subprocess.run([*command, *wanted()], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index is too slow")
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    if any(
        said in done.stderr for said in ("NewConnectionError", "Failed to establish", "timed out", "ConnectTimeout")
    ):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    found = [one["download_info"]["url"] for one in json.loads((tmp_path / "report.json").read_text())["install"]]
    assert all(url.partition("#")[0].endswith(".whl") for url in found)
    names = {url.rpartition("/")[2].split("-")[0].lower() for url in found}
    assert {"numpy", "xarray", "h5py", "pynwb"} <= names
