"""What Windows binaries export and import: ``pe.py exports FILE``, ``pe.py imports FOLDER NAME,NAME...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pefile


def exports(file: Path) -> list[str]:
    """The names a library exports."""
    table = pefile.PE(str(file)).DIRECTORY_ENTRY_EXPORT.symbols
    return [entry.name.decode() for entry in table if entry.name]


def imports(folder: Path, wanted: set[str]) -> list[tuple[str, str, list[str]]]:
    """(file, library, all names imported from it) for each C runtime library of which a file wants one of these."""
    found = []
    for file in sorted([*folder.rglob("*.pyd"), *folder.rglob("*.dll")]):
        binary = pefile.PE(str(file), fast_load=True)
        binary.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"]])
        for library in getattr(binary, "DIRECTORY_ENTRY_IMPORT", []):
            names = {entry.name.decode() for entry in library.imports if entry.name}
            if library.dll.startswith(b"api-ms-win-crt") and names & wanted:
                found.append((str(file), library.dll.decode(), sorted(names)))
    return found


if __name__ == "__main__":
    what, path, *names = sys.argv[1:]
    print(json.dumps(exports(Path(path)) if what == "exports" else imports(Path(path), set(names[0].split(",")))))
