"""The text of a journal, and everything that is checked before a journal is believed.

A journal is what ``restore`` and ``resume`` write to a card, perhaps months later, so a flipped bit, a file of a newer
version, or another program's file under the same name must be noticed before the first byte is written::

    {"format": 2, "sha256": <over all the rest>, "number": <microseconds, UTC>, "utc": "2026-11-28T09:30:00.000000Z",
     "verb": "prepare", "phase": "done", "layout": "v4-wirefree", "session": <hex>, "card": {...}, "about": {...},
     "changes": [{"name", "offset", "length", "data": <base64, null for zeros>}], "backup": {<offset>: <zlib, base64>}}

``sha256`` is taken over the same object without it, with sorted keys and no spaces. Format 1 (before number and utc)
has a checksum over its backup only: it can be restored from, but what it was going to write is not carried out.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

from miniscope_xr.layout import SECTOR

FORMAT = 2
MOST = 32 << 20
"""No journal of ours is longer than this, packed or unpacked."""
VERBS = ("prepare", "set", "wipe", "blank-table", "backup", "restore", "qualify", "resume")
NAMES = (
    "counts", "data", "first data", "settings", "settings of another layout", "table", "copy of the table",
    "end of the volume", "first sector", "test data", "probe",
)  # fmt: skip
"""What a change can be of. Recovery treats each kind in its own way, so one it does not know is not carried out."""
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def pack(data: bytes) -> str:
    """Turn bytes into compressed text."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def unpack(text: str) -> bytes:
    """Return the bytes of :func:`pack`."""
    machine = zlib.decompressobj()
    try:
        data = machine.decompress(base64.b64decode(text, validate=True), MOST)
    except zlib.error as error:
        raise ValueError("its backup is damaged") from error
    if not machine.eof or machine.unused_data:
        raise ValueError("its backup is cut off, or too long")
    return data


def utc(number: int) -> str:
    """Write a number (microseconds since 1970, UTC) as a time."""
    return (EPOCH + datetime.timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(sectors: Mapping[int, bytes]) -> str:
    """Return a checksum over a backup."""
    total = hashlib.sha256()
    for offset in sorted(sectors):
        total.update(offset.to_bytes(8, "little") + sectors[offset])
    return total.hexdigest()


def checksum(content: Mapping[str, Any]) -> str:
    """Return the checksum over everything a journal says, except for the checksum itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def encode(content: Mapping[str, Any]) -> bytes:
    """Write a journal's text; ``content`` is everything but format and checksum."""
    whole = {"format": FORMAT, **content}
    return json.dumps({"format": FORMAT, "sha256": checksum(whole), **content}, indent=1).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Read a journal's text and check all of it; ``backup`` comes back unpacked, with offsets as its keys.

    Raises
    ------
    ValueError
        With what is wrong, in words.
    """
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_int=_number)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("it is no JSON text") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    known = content.get("format")
    if type(known) is not int or not 1 <= known <= FORMAT:
        raise ValueError(f"its format {str(known)[:20]} is unknown to this version; a newer miniscope-xr may read it")
    if known == FORMAT and content.get("sha256") != checksum(content):
        raise ValueError("its checksum does not match")
    if known == 1:
        content = {**content, "number": _number_of(_is(content, "time", str))}
    packed = _is(content, "backup", dict)
    backup = {_offset(key): unpack(_is(packed, key, str)) for key in packed}
    if known == 1 and content.get("sha256") != digest(backup):
        raise ValueError("its checksum does not match")
    return _checked({**content, "backup": backup})


def _number(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text[:10]}... is no number of ours")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _is(content: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = content.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name!r} is missing or of the wrong kind")
    return value


def _number_of(time: str) -> int:
    """Read a time with its zone (``2026-11-28T09:30:00+0100``) as microseconds, UTC."""
    return (datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z") - EPOCH) // datetime.timedelta(microseconds=1)


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) % SECTOR:
        raise ValueError(f"{text[:20]!r} is no place of a sector")
    return int(text)


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    for name, kind in (("verb", str), ("phase", str), ("layout", str), ("session", str), ("card", dict),
                       ("about", dict), ("changes", list), ("number", int)):  # fmt: skip
        _is(content, name, kind)
    if content["verb"] not in VERBS:
        raise ValueError(f"its command {content['verb'][:20]!r} is unknown to this version")
    if not 0 <= content["number"] < 1 << 57:
        raise ValueError("its number is out of range")
    if len(bytes.fromhex(content["session"])) > 16:
        raise ValueError("its session is no session id")
    size = _is(content["card"], "size", int)
    for name in ("card_id", "cid"):
        if not isinstance(content["card"].get(name), str | None):
            raise ValueError(f"the {name!r} of its card is of the wrong kind")
    for offset, data in content["backup"].items():
        _place(offset, len(data), size)
    for change in content["changes"]:
        _change(change, size)
    if content["phase"] not in ("intent", "done", *(change["name"] for change in content["changes"])):
        raise ValueError(f"it ended at {content['phase'][:20]!r}, which is no step of its own")
    return content


def _place(offset: int, length: int, size: int) -> None:
    if offset < 0 or length <= 0 or offset % SECTOR or length % SECTOR or offset + length > size:
        raise ValueError(f"bytes {offset} to {offset + length} are not sectors of its card")


def _change(change: Any, size: int) -> None:
    if type(change) is not dict:
        raise ValueError("a change is no object")
    if _is(change, "name", str) not in NAMES:
        raise ValueError(f"a change of {change['name'][:20]!r} is unknown to this version")
    length = _is(change, "length", int)
    _place(_is(change, "offset", int), length, size)
    if "data" not in change:
        raise ValueError(f"the data of {change['name'][:20]!r} is missing")
    if change["data"] is not None and len(base64.b64decode(_is(change, "data", str), validate=True)) != length:
        raise ValueError(f"the data of {change['name'][:20]!r} has another length than it says")
