"""What an object is put together of: bytes that the caller has, and parts of other objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from structureflow.errors import StorageError
from structureflow.storage.base import ByteRange, Storage

#: Of a part of an object that is read to write it elsewhere.
_READ_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class ObjectPart:
    """Bytes `start` (inclusive) to `stop` (exclusive) of the object at `key` that has the ETag `etag`."""

    key: str
    etag: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"expected 0 <= start < stop, got {self.start}, {self.stop}")

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start


#: Of what an object is put together: bytes that the caller has, and parts of other objects.
Piece = bytes | ObjectPart


def read_pieces(storage: Storage, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yield the bytes of pieces in order, at most 4 MiB of an object at a time; errors as `Storage.get`."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        for start in range(piece.start, piece.stop, _READ_BYTES):
            stop = min(start + _READ_BYTES, piece.stop)
            data = storage.get(piece.key, byte_range=ByteRange(start, stop), if_match=piece.etag).data
            if len(data) != stop - start:
                raise StorageError(
                    f"{piece.key}: expected bytes {start} to {stop}, got {len(data)} of them", key=piece.key
                )
            yield data
