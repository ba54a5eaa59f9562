"""What a file that is no card is instead, by its first bytes: for the sentence a person reads."""

from __future__ import annotations

# (byte, magic, name). Where several fit, the first is the most particular.
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"II+\0", "a TIFF picture"),
    (0, b"MM\0+", "a TIFF picture"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a WAV sound"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "an MP4 or MOV video"),
    (4, b"moov", "a MOV video"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"OggS", "an Ogg file"),
    (0, b"FLV\x01", "an FLV video"),
    (0, b"\0\0\x01\xba", "an MPEG video"),
    (0, b"\0\0\x01\xb3", "an MPEG video"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a WMV video"),
    (0, b"CDF\x01", "a NetCDF file"),
    (0, b"CDF\x02", "a NetCDF file"),
    (0, b"CDF\x05", "a NetCDF file"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"(\xb5/\xfd", "zstd data"),
    (0, b'\x04"M\x18', "lz4 data"),
    (0, b"7z\xbc\xaf'\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ\x90\0", "a Windows program"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMware disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox disk image"),
    (0, b"EVF\x09\x0d\x0a\xff", "an EnCase disk image"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")
KIND_BYTES = 8192
"""Bytes from the start that :func:`file_kind` looks at; it is content with fewer."""


def file_kind(start: bytes) -> str | None:
    r"""Name the kind of file these first bytes belong to, None where they are of no kind known here.

    Examples
    --------
    >>> file_kind(b"PK\x03\x04" + bytes(508))
    'a zip archive'
    """
    if any(start[at : at + 8] == _HDF5 for at in (0, 512, 1024, 2048, 4096)):  # a user block may stand in front
        return "an HDF5 file (NetCDF-4, NWB and MATLAB 7.3 are HDF5 too)"
    for at, magic, name in _KINDS:
        if start[at : at + len(magic)] == magic:
            return name
    text = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_HTML):
        return "a web page (HTML)"
    if text.startswith(b"<?xml"):
        return "an XML file"
    return "a text file" if _is_text(start[:1024]) else None


def _is_text(start: bytes) -> bool:
    """Whether these bytes can be read as text: no control character but white space."""
    start = start.rstrip(b"\0") if len(start.rstrip(b"\0")) >= 16 else b""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        whole = start + b"\0" if len(start) % 2 else start  # a zero byte of the last letter was taken for padding
        return _readable(whole.decode("utf-16", "replace"))
    try:
        return _readable(start.decode("utf-8"))
    except UnicodeDecodeError as error:
        if error.start >= len(start) - 4:  # merely cut within a character
            return _readable(start[: error.start].decode("utf-8"))
    ascii_letters = sum(byte < 0x80 for byte in start)
    return 4 * ascii_letters > 3 * len(start) and _readable(start.decode("cp1252", "replace"))


def _readable(text: str) -> bool:
    return bool(text) and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
