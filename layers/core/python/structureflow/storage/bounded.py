"""Reading what ought to be small, so that it stays small in memory whatever lies there."""

from __future__ import annotations

import hashlib
from typing import Final

from structureflow.errors import RangeNotSatisfiableError, TransientStorageError
from structureflow.storage.adapters import etag_checksums
from structureflow.storage.base import ByteRange, Storage, StoredObject

_READS: Final = 4


def read_bounded(storage: Storage, key: str, max_bytes: int) -> StoredObject:
    """Read a small object in one request, and never more than `max_bytes` of it.

    Of a larger one the first `max_bytes` are returned; ``info.size_bytes`` tells. Stores check no ranges, so the bytes
    are compared with an ETag that looks like their MD5, and read again where they do not fit.

    Raises:
        ObjectNotFoundError: no such object.
        TransientStorageError: reading gives other bytes each time.
    """
    seen: set[bytes] = set()
    for _ in range(_READS):
        try:
            found = storage.get(key, byte_range=ByteRange(0, max_bytes))
        except RangeNotSatisfiableError:
            # It is empty: no range lies in it.
            return StoredObject(b"", storage.head(key))
        sums = etag_checksums(found.info.etag) if len(found.data) == found.info.size_bytes else ()
        digest = hashlib.md5(found.data, usedforsecurity=False).digest()
        # That two readings agree shows that the ETag is no MD5.
        if not sums or sums[0].value == digest.hex() or digest in seen:
            return found
        seen.add(digest)
    raise TransientStorageError(f"{key}: {_READS} readings gave other bytes each time", key=key)
