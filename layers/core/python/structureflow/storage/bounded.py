"""Reading what ought to be small, so that it stays small in memory whatever lies there."""

from __future__ import annotations

from structureflow.errors import RangeNotSatisfiableError
from structureflow.storage.base import ByteRange, Storage, StoredObject


def read_bounded(storage: Storage, key: str, max_bytes: int) -> StoredObject:
    """Read a small object in one request, and never more than `max_bytes` of it.

    Of a larger one the first `max_bytes` are returned; ``info.size_bytes`` tells.

    Raises:
        ObjectNotFoundError: no such object.
    """
    try:
        return storage.get(key, byte_range=ByteRange(0, max_bytes))
    except RangeNotSatisfiableError:
        # It is empty: no range lies in it.
        return StoredObject(b"", storage.head(key))
