"""Rules that the adapters share: ranges, conditions, size caps, and files that appear whole or not at all."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from structureflow.errors import InvalidArgumentError, ObjectChangedError, RangeNotSatisfiableError, StorageError
from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, Suffix

__all__ = [
    "CHUNK_BYTES",
    "check_conditions",
    "check_if_match",
    "check_size",
    "etag_checksums",
    "same_bytes",
    "slice_range",
    "writing",
]

#: Bytes moved at a time between a socket and a file.
CHUNK_BYTES: Final = 1 << 20

_MD5: Final = re.compile(r"[0-9a-f]{32}")


def slice_range(info: ObjectInfo, byte_range: ByteRange | Suffix | None) -> tuple[int, int]:
    """Return (start, stop), half-open, of a range in an object of `info.size_bytes` bytes.

    Raises:
        RangeNotSatisfiableError: the range starts at or past the end.
    """
    size = info.size_bytes
    if byte_range is None:
        return 0, size
    if isinstance(byte_range, Suffix):
        return max(0, size - byte_range.length), size
    if byte_range.start >= size:
        raise RangeNotSatisfiableError(
            f"{info.key}: expected a range that starts before byte {size}, got {byte_range.start}",
            key=info.key,
            size_bytes=size,
        )
    return byte_range.start, min(byte_range.stop, size)


def check_if_match(info: ObjectInfo, etag: str | None) -> None:
    """Check that the object is still the one with `etag`.

    Raises:
        ObjectChangedError: it is not.
    """
    if etag is not None and info.etag != etag:
        raise ObjectChangedError(f"{info.key}: expected ETag {etag}, got {info.etag}", key=info.key)


def check_conditions(*, if_absent: bool, if_match: str | None) -> None:
    """Check that a write has at most one condition.

    Raises:
        InvalidArgumentError: it must create and replace.
    """
    if if_absent and if_match is not None:
        raise InvalidArgumentError("expected if_absent or if_match, got both")


def check_size(key: str, size_bytes: int, max_bytes: int | None) -> None:
    """Check the size of a download before it starts.

    Raises:
        StorageError: it is larger than `max_bytes`.
    """
    if max_bytes is not None and size_bytes > max_bytes:
        raise StorageError(
            f"{key}: expected at most {max_bytes} bytes, got {size_bytes}",
            key=key,
            size_bytes=size_bytes,
            max_bytes=max_bytes,
        )


def etag_checksums(etag: str) -> tuple[Checksum, ...]:
    """Return the MD5 that an ETag of 32 hex digits most often is."""
    return (Checksum("md5", etag, from_etag=True),) if _MD5.fullmatch(etag) else ()


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under `path` when the block ends well, and else not at all.

    Raises:
        StorageError: the file cannot be written (no folder, no space, no permission).
    """
    path = Path(path)
    if path.is_dir():
        raise StorageError(f"cannot write {path}: expected a file, got a folder", path=str(path))
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        file = part.open("xb")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}", path=str(path)) from error
    try:
        with file:
            yield file
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error}", path=str(path)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def same_bytes(one: BinaryIO, other: BinaryIO) -> bool:
    """Tell whether two files have the same bytes from where they are on."""
    while True:
        left, right = one.read(CHUNK_BYTES), other.read(CHUNK_BYTES)
        if left != right:
            return False
        if not left:
            return True
