"""Builds a Windows Python with this project's test dependencies, to run under Wine on Debian.

From packages alone: Wine and a cross compiler from apt; python.org's own interpreter as the PyPI package panda3d
ships it, the C runtime as msvc-runtime ships it, and the dependencies' Windows wheels, all from pip.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
DLL = f"python{MINOR.replace('.', '')}.dll"
COMPILER = ["x86_64-w64-mingw32-gcc", "-O1"]
APT = ["wine", "wine64", "gcc-mingw-w64-x86-64"]
# C99 functions that Wine 8's ucrtbase only names; c99.c has its own as ms_<name>
_COMPLEX = [
    "cabs", "cacos", "cacosh", "carg", "casin", "casinh", "catan", "catanh", "ccos", "ccosh", "cexp", "cimag", "clog",
    "conj", "cpow", "cproj", "creal", "csin", "csinh", "csqrt", "ctan", "ctanh",
]  # fmt: skip
MISSING = {f"{name}{kind}" for name in _COMPLEX for kind in ("", "f", "l")}
MISSING.add("feholdexcept")
OURS = MISSING | {"feclearexcept", "fesetenv", "fetestexcept"}  # of one kind with feholdexcept
PATIENCE = 600  # seconds for one command
READERS = ["disks.c", "disks.h", "powershell.c"]  # the simulated card readers: built anew when they change


class CannotBuildError(Exception):
    """The packages this needs cannot be had on this machine."""


def run(*command: object, env: dict[str, str] | None = None, to_its_end: bool = False) -> str:
    """Run a command and return what it printed; ``to_its_end`` also when somebody ends us.

    Raises
    ------
    CannotBuildError
        It failed, is not there, or hangs (a download without a network).
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env,
            timeout=PATIENCE, start_new_session=to_its_end,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuildError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        raise CannotBuildError(f"{' '.join(words)}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


class Environment:
    """A Windows Python below ``home``: ``python/`` the interpreter, ``prefix/`` Wine's C: drive."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = home / "python"
        self.prefix = home / "prefix"
        self.stamp = home / "built"

    def environ(self, prefix: Path | None = None) -> dict[str, str]:
        """The environment variables a command under Wine needs; nothing of Linux' Python leaks in."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        ours = {"WINEPREFIX": str(prefix or self.prefix), "WINEDEBUG": "-all", "DISPLAY": "", "PYTHONUTF8": "0"}
        return env | ours | {"MPLBACKEND": "agg"}  # the interpreter comes without Tcl, and there is no screen

    def command(self, *words: str) -> list[str]:
        """A command line that runs ``python.exe`` with these words."""
        return ["wine", str(self.python / "python.exe"), *words]

    def recipe(self) -> str:
        """Changes when anything changes that the environment is built from."""
        ours = [HERE / name for name in ("build.py", "pe.py", "c99.c", "random.c", "launcher.c")]
        wanted = {name: _project().get(name) for name in ("dependencies", "optional-dependencies")}
        return _digest(*(file.read_bytes() for file in ours), json.dumps(wanted).encode(), sys.version.encode())

    def build(self) -> None:
        """Build it, unless the same was built before; what was built of it when somebody ended this is kept."""
        recipe = self.recipe()
        if not (self.stamp.is_file() and self.stamp.read_text().startswith(recipe)):
            shutil.rmtree(self.home, ignore_errors=True)
            self.home.mkdir(parents=True)
            self.stamp.write_text(f"{recipe}\n")
        for step in (self._system_packages, self._interpreter, self._packages, self._wine):
            done = self.stamp.read_text()
            if step.__name__ not in done.split():
                step()
                self.stamp.write_text(f"{done}{step.__name__}\n")
        self._readers()
        self._install()

    def _install(self) -> None:
        """Install this checkout, as ``pip install -e`` does (path and entry points), and the clock."""
        project = _project()
        site = self.python / "Lib" / "site-packages"
        shutil.copy(HERE / "sitecustomize.py", site)
        (site / "miniscope_xr.pth").write_text("Z:" + str(ROOT).replace("/", "\\") + "\n")
        facts = site / "miniscope_xr-0.dist-info"
        facts.mkdir(exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: miniscope-xr\nVersion: 0\n")
        lines = []
        for group, points in {"console_scripts": project["scripts"], **project["entry-points"]}.items():
            lines += [f"[{group}]", *(f"{name} = {where}" for name, where in points.items())]
        (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def _system_packages(self) -> None:
        if all(shutil.which(tool) for tool in ("wine", COMPILER[0])):
            return
        if not shutil.which("apt-get") or os.geteuid():
            raise CannotBuildError(f"needs apt packages, as root: apt-get install {' '.join(APT)}")
        run("apt-get", "update", "-qq")
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *APT, env=env, to_its_end=True)

    def _interpreter(self) -> None:
        tools, wheels = self.home / "tools", self.home / "wheels"
        for begun in (self.python, wheels):
            shutil.rmtree(begun, ignore_errors=True)
        run(sys.executable, "-m", "venv", tools)
        run(tools / "bin" / "pip", "install", "-q", "uv", "pefile")
        only = ["--platform", "win_amd64", "--python-version", MINOR, "--only-binary=:all:", "--no-deps"]
        run(tools / "bin" / "pip", "download", "-q", *only, "panda3d", "msvc-runtime", "-d", wheels)
        libraries, site = self.python / "DLLs", self.python / "Lib" / "site-packages"
        libraries.mkdir(parents=True)
        for wheel in wheels.iterdir():
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    file = Path(name)
                    runtime = wheel.name.startswith("msvc") and "Scripts" in file.parts
                    ours = file.parts[0] == "deploy_libs" and not file.name.lower().startswith(("api-ms", "vcruntime"))
                    if (runtime or ours) and file.suffix in (".dll", ".pyd"):
                        target = self.python if runtime or file.name == DLL else libraries
                        (target / file.name).write_bytes(archive.read(name))
        shutil.rmtree(wheels)
        linux = ("lib-dynload", "site-packages", "dist-packages", "test", "__pycache__", "config-*")
        unwanted = shutil.ignore_patterns(*linux)
        shutil.copytree(sysconfig.get_path("stdlib"), self.python / "Lib", ignore=unwanted, dirs_exist_ok=True)
        site.mkdir(exist_ok=True)
        names = [f'-DPYTHON_DLL=L"{DLL}"', f'-DPYTHON_DLL_A="{DLL}"']
        run(*COMPILER, "-municode", "-o", self.python / "python.exe", HERE / "launcher.c", *names)
        run(*COMPILER, "-shared", "-o", self.python / "bcryptprimitives.dll", HERE / "random.c")
        # python3.dll, which wheels for every Python link against: it forwards each name to python3xx.dll
        exports = self._tool("exports", self.python / DLL)
        self._forwarder("python3.dll", {name: f"{DLL[:-4]}.{name}" for name in exports}, [])

    def _readers(self) -> None:
        """Compile the card readers of ``tests/flash/test_windows_disks.py``, where they are others than before."""
        stamp, now = self.home / "readers", _digest(*((HERE / name).read_bytes() for name in READERS))
        if stamp.is_file() and stamp.read_text() == now:
            return
        for name, source, options in (("disks.dll", "disks.c", ["-shared"]), ("powershell.exe", "powershell.c", [])):
            new = self.home / f"new-{name}"  # a running Python may have the old one open
            run(*COMPILER, *options, "-o", new, HERE / source)
            new.replace(self.python / name)
        stamp.write_text(now)

    def _tool(self, *words: object) -> Any:
        """What ``pe.py`` says, which needs a library of its own."""
        return json.loads(run(self.home / "tools" / "bin" / "python", HERE / "pe.py", *words))

    def _forwarder(self, name: str, exports: dict[str, str], sources: list[Path]) -> None:
        definition = self.home / f"{name}.def"
        lines = [f"  {public} = {target}" for public, target in sorted(exports.items())]
        definition.write_text("\n".join([f"LIBRARY {name}", "EXPORTS", *lines]))
        empty = self.home / "empty.c"
        empty.write_text("int unused;\n")
        run(*COMPILER, "-shared", "-static", "-o", self.python / name, *(sources or [empty]), definition)

    def _packages(self) -> None:
        uv, wanted = self.home / "tools" / "bin" / "uv", self.home / "requirements.txt"
        windows = ["--python-platform", "windows", "--python-version", MINOR]
        run(uv, "pip", "compile", "-q", ROOT / "pyproject.toml", "--extra", "test", *windows, "-o", wanted)
        site = self.python / "Lib" / "site-packages"
        shutil.rmtree(site, ignore_errors=True)
        # the linters and type checkers run on Linux
        lines = [line for line in wanted.read_text().splitlines() if not line.startswith(("ruff==", "mypy=="))]
        wanted.write_text("\n".join(lines))
        # copies: the binaries are changed below, and uv's cache must not be
        exactly = ["--link-mode", "copy", "--only-binary", ":all:", "--no-deps", "-r", wanted]
        run(uv, "pip", "install", "-q", "--target", site, *windows, *exactly)
        self._c99()

    def _c99(self) -> None:
        """Give the binaries that import a missing function a library that has it.

        The new library's name is as long as the old one's, so that the import table is changed in place.
        """
        wanted: dict[str, set[str]] = {}
        site = self.python / "Lib" / "site-packages"
        for path, library, names in self._tool("imports", site, ",".join(sorted(MISSING))):
            wanted.setdefault(library, set()).update(names)
            file = Path(path)
            file.write_bytes(file.read_bytes().replace(library.encode(), _renamed(library).encode()))
        for library, names in wanted.items():
            exports = {name: f"ms_{name}" if name in OURS else f"ucrtbase.{name}" for name in names}
            self._forwarder(_renamed(library), exports, [HERE / "c99.c"])

    def _wine(self) -> None:
        env = self.environ()
        shutil.rmtree(self.prefix, ignore_errors=True)
        run("wineboot", "-i", env=env)
        run("wineserver", "-w", env=env)  # until the drive is really there
        run("wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f", env=env)


def _project() -> dict[str, Any]:
    """The project's own table of ``pyproject.toml``."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _renamed(library: str) -> str:
    return "xr" + library[2:]
