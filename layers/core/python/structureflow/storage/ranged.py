"""An object read as a file is, a few blocks of it at a time, so that only what is looked at moves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final

#: Of a block: large enough that reading on costs few requests, small enough for an index at the end of an object.
BLOCK_BYTES: Final = 1024**2
#: Blocks that are read together where the reader goes on from one to the next: S3 gives 85 MB/s to one request.
_AHEAD: Final = 8
#: Blocks that are held.
_HELD: Final = 24


class RangedFile:
    """A file for one reader, and a context manager; see `structureflow.media.opened.OpenedFile`.

    What ends a thread and is no `Exception` does not come through FFmpeg, which would ask again and again: the reader
    gets an `EOFError` in its place, and the end of the ``with`` block raises it.

    Args:
        name: for messages.
        size_bytes: of the object.
        fetch: called as ``fetch(start, stop)``, returns these bytes of the object.

    Attributes:
        fetched_bytes, requests: how much was read until now.
    """

    def __init__(self, name: str, size_bytes: int, fetch: Callable[[int, int], bytes]) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.fetched_bytes = 0
        self.requests = 0
        self._fetch = fetch
        self._place = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._last = -1
        self._end: BaseException | None = None

    def __enter__(self) -> RangedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is not None:
            raise self._end

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end only; all that are left for a negative number."""
        left = max(0, self.size_bytes - self._place)
        wanted = left if size < 0 else min(size, left)
        chunks = []
        while wanted:
            number, offset = divmod(self._place, BLOCK_BYTES)
            chunk = self._block(number)[offset : offset + wanted]
            chunks.append(chunk)
            self._place += len(chunk)
            wanted -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, as any file does, and return it."""
        self._place = max(0, offset + (0, self._place, self.size_bytes)[whence])
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            ahead = _AHEAD if number == self._last + 1 and number else 1
            self._load(number, ahead)
        self._blocks.move_to_end(number)
        self._last = number
        return self._blocks[number]

    def _load(self, number: int, count: int) -> None:
        start = number * BLOCK_BYTES
        stop = min(start + count * BLOCK_BYTES, self.size_bytes)
        try:
            data = self._fetch(start, stop)
        except Exception:
            raise
        except BaseException as error:
            self._end = error
            raise EOFError(f"{self.name}: reading was ended") from error
        if len(data) != stop - start:
            raise EOFError(f"{self.name}: expected bytes {start} to {stop}, got {len(data)} of them")
        self.requests += 1
        self.fetched_bytes += len(data)
        for offset in range(0, len(data), BLOCK_BYTES):
            self._blocks[number + offset // BLOCK_BYTES] = data[offset : offset + BLOCK_BYTES]
        while len(self._blocks) > _HELD:
            self._blocks.popitem(last=False)
