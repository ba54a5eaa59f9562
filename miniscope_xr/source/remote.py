"""Card images on remote storage, read in ranges through fsspec: ``https://``, ``s3://``, ``gs://`` and the like.

A request costs its latency, not its size: single sectors come in blocks that are kept, so that looking at settings
and headers twice costs nothing, and a frame is one request.
"""

from __future__ import annotations

import errno
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError, MissingDependencyError
from miniscope_xr.source.base import Spans, pour

_BLOCK = 64 * 1024
_KEPT = 256  # blocks
_AHEAD = 64  # blocks; as many as that come in one request where block after block was asked for
_STEADY = 4  # blocks in a row that make it worth reading ahead
_AT_ONCE = 32  # requests side by side: more gain little and overrun small servers
_SPAN = 1 << 20  # headers no further apart than this, all together, come in one request
_NEAR = 32 << 10  # bytes between two headers that are fetched along rather than asked around
_MOST = 4 << 20  # bytes of one request for headers
# "https://..", and fsspec's chains: "simplecache::https://..", "zip://card.img::s3://.."; caches take plain paths too
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://|(simplecache|filecache|blockcache|cached)::")

_QUOTING = re.compile(r"\w\(|<\w|Errno|Traceback|\n")  # an error that quotes another as Python writes it


def is_url(path: object) -> bool:
    """Whether ``path`` is a URL (or a chain of them, as fsspec understands it) and not a file or device."""
    return isinstance(path, str) and _URL.match(path) is not None


def _missing(error: ImportError, url: str) -> MissingDependencyError:
    return MissingDependencyError(f'{url} needs more to be read: pip install "miniscope-xr[remote]" ({error})')


def _plainly(error: Exception) -> str:
    """Say what a library of the network said, or that the server cannot be reached: their errors quote each other."""
    said = str(getattr(error, "strerror", None) or error).strip()
    if not said or _QUOTING.search(said):
        return "the server cannot be reached, or does not answer as it should; check the address and the network"
    return said


class RemoteSource:
    """An image behind a URL, for reading only.

    The image must not change while it is open; what can swap under a dataset is a card in a reader.

    Parameters
    ----------
    url
        Anything fsspec understands. Credentials come from fsspec's own configuration or the environment.

    Raises
    ------
    CardNotFoundError, CardPermissionError, CardReadError, MissingDependencyError
    """

    changed = False  # a server does not tell
    unread: Spans = []  # noqa: RUF012 - nor has it a map beside an image

    def __init__(self, url: str) -> None:
        self.path = url
        self.closed = False
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._expected, self._steady = -1, 0  # the block that would come next, and how many came in a row
        self._lock = threading.Lock()
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise _missing(error, url) from error
        try:
            self._fs, self._name = url_to_fs(url)
            info = self._fs.info(self._name)
        except ImportError as error:  # fsspec imports what a protocol needs when it is first used
            raise _missing(error, url) from error
        except Exception as error:
            raise self._error(error) from error
        if info.get("size") is None or not (self._sends_parts(info["size"]) if url.startswith("http") else True):
            raise CardReadError(
                errno.ENOTSUP,
                "the server does not say how long the image is, or does not send parts of it; download it first",
                url,
            )
        self.size = int(info["size"])

    def _sends_parts(self, size: int) -> bool:
        """Ask for one byte: a server that ignores ranges would send the whole card with every sector."""
        try:
            with self._fs.open(self._name, "rb", size=size, cache_type="none") as file:
                file.seek(min(1, size))
                return size < 2 or len(file.read(1)) == 1
        except ValueError:  # fsspec's word for it
            return False
        except Exception as error:
            raise self._error(error) from error

    def __repr__(self) -> str:
        return f"<RemoteSource {self.path!r}, {self.size} bytes>"

    def close(self) -> None:
        """Forget what was read; connections are fsspec's."""
        self.closed = True
        self._blocks.clear()

    def _error(self, error: Exception) -> Exception:
        status = getattr(error, "status", getattr(error.__cause__, "status", None))
        if isinstance(error, FileNotFoundError) and status not in (401, 403):
            return CardNotFoundError(
                errno.ENOENT, "no image is found at this address; check it and the network", self.path
            )
        if isinstance(error, PermissionError) or status in (401, 403):
            return CardPermissionError(
                errno.EACCES, "the server does not let us read this image; check the credentials", self.path
            )
        return CardReadError(errno.EIO, f"cannot be read: {_plainly(error)}", self.path)

    def _fetch(self, start: int, stop: int) -> bytes:
        """One request; fewer bytes than asked for are an error, as is a server that sends all of them."""
        try:
            data: bytes = self._fs.cat_file(self._name, start=start, end=stop)
        except Exception as error:
            raise self._error(error) from error
        if len(data) != stop - start:
            raise CardReadError(
                errno.EIO, f"bytes {start} to {stop - 1} were asked for, {len(data)} bytes came; try again", self.path
            )
        return data

    def _block(self, number: int) -> bytes:
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        count = self._worth(number)
        data = self._fetch(number * _BLOCK, min((number + count) * _BLOCK, self.size))
        with self._lock:
            for k in range(count):
                self._blocks[number + k] = data[k * _BLOCK : (k + 1) * _BLOCK]
            while len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return data[:_BLOCK]

    def _worth(self, number: int) -> int:
        """How many blocks to ask for at once: one, but twice as many each time when one after another is wanted.

        A search that walks along a recording forwards or backwards is met halfway; one that leaps about is not.
        """
        with self._lock:
            self._steady = self._steady + 1 if number == self._expected else 0
            count = min(1 << max(self._steady - _STEADY + 1, 0), _AHEAD)
            left = -(-self.size // _BLOCK) - number
            self._expected = number + count
            return max(min(count, left), 1)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end of the image."""
        stop = min(offset + length, self.size)
        if stop <= offset:
            return b""
        first, last = offset // _BLOCK, (stop - 1) // _BLOCK
        if stop - offset > _BLOCK // 2:
            return self._fetch(offset, stop)
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[offset - first * _BLOCK : stop - first * _BLOCK]

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill ``buffers`` from consecutive bytes by one request; return the bytes read."""
        stop = min(offset + sum(map(len, buffers)), self.size)
        return pour(self._fetch(offset, stop) if stop > offset else b"", buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets: near ones by one request, far ones side by side."""
        if not offsets or min(offsets) < 0 or max(offsets) + length > self.size:
            return None
        if len(offsets) == 1:
            return self.read(offsets[0], length)
        order = sorted(set(offsets))
        spans = [[order[0], order[0] + length]]
        for at in order[1:]:
            near = at - spans[-1][1] <= _NEAR and at + length - spans[-1][0] <= _MOST
            if near or order[-1] + length - order[0] <= _SPAN:
                spans[-1][1] = at + length
            else:
                spans.append([at, at + length])
        parts = self._fetch_all(spans)
        starts = [start for start, _ in spans]
        pieces = []
        for at in offsets:
            k = bisect_right(starts, at) - 1
            pieces.append(parts[k][at - starts[k] : at - starts[k] + length])
        joined = b"".join(pieces)
        return joined if len(joined) == length * len(offsets) else None

    def at_hand(self, offset: int) -> bool:
        """Nothing of a server is."""
        return False

    def _fetch_all(self, spans: list[list[int]]) -> list[bytes]:
        """Several requests, side by side."""
        if len(spans) == 1:
            return [self._fetch(*spans[0])]
        starts, stops = zip(*spans, strict=True)
        try:
            parts: list[bytes] = self._fs.cat_ranges(
                [self._name] * len(spans), list(starts), list(stops), on_error="raise", batch_size=_AT_ONCE
            )
        except Exception as error:
            raise self._error(error) from error
        return parts

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read as usual: a server has no bad sectors."""
        return self.read(offset, length), []
