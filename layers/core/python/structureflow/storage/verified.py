"""Reading an object until its bytes are known to be the store's: before anything that is made of them is kept.

A transfer can flip a bit that no one sees: stores without checksums send what they read, and a video with one wrong
byte decodes. Bytes are believed when they have a checksum that the store gives, or the MD5 that the ETag is, or the
digest that an earlier reading recorded; else when two readings agree.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from structureflow.errors import ObjectChangedError, TransientStorageError
from structureflow.storage.adapters import CHUNK_BYTES
from structureflow.storage.base import Checksum, ObjectInfo, StoredObject

_log = logging.getLogger(__name__)

VerifiedBy = Literal["checksum", "etag", "recorded digest", "two reads"]

_READS: Final = 4


class VerifiableStore(Protocol):
    """What is needed of a store."""

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`."""
        ...

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """See `Storage.checksums`."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What was read, the SHA-256 of its bytes in hex digits, and how they were verified."""

    info: ObjectInfo
    sha256: str
    verified_by: VerifiedBy


def fetch_verified(
    store: VerifiableStore,
    key: str,
    path: Path,
    *,
    if_match: str | None = None,
    sha256: str | None = None,
    max_bytes: int | None = None,
) -> Verified:
    """Download an object into the file `path`, and see that it has the store's bytes; else no file is left.

    Args:
        store: where it lies.
        key: of the object.
        path: of the file.
        if_match: its ETag.
        sha256: of its bytes as an earlier reading found them; None where there was none.
        max_bytes: its largest size.

    Raises:
        ObjectNotFoundError, StorageError: as `Storage.get_to_file`.
        ObjectChangedError: it has another ETag, or bytes with another SHA-256.
        TransientStorageError: reading gives other bytes each time.
    """

    def read() -> tuple[ObjectInfo, _Content]:
        info = store.get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)
        return info, lambda: _chunks_of(path)

    try:
        return _verify(store, key, read, sha256)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def get_verified(
    store: VerifiableStore, key: str, get: Callable[[], StoredObject], *, sha256: str | None = None
) -> tuple[bytes, Verified]:
    """Read a small object into memory, by `get`; otherwise as `fetch_verified`."""
    data = b""

    def read() -> tuple[ObjectInfo, _Content]:
        nonlocal data
        found = get()
        data = found.data
        return found.info, lambda: iter((data,))

    verified = _verify(store, key, read, sha256)
    return data, verified


#: Gives the bytes that were read, from the start.
_Content = Callable[[], Iterator[bytes]]


def _verify(
    store: VerifiableStore, key: str, read: Callable[[], tuple[ObjectInfo, _Content]], sha256: str | None
) -> Verified:
    seen: set[str] = set()
    for _ in range(_READS):
        info, content = read()
        checksums = () if sha256 is not None else store.checksums(info)
        digest, agreeing, contradicting = _compare(content, checksums)
        if sha256 is not None and digest == sha256:
            return Verified(info, digest, "recorded digest")
        if agreeing is not None:
            return Verified(info, digest, "etag" if agreeing.from_etag else "checksum")
        if contradicting is not None:
            _log.warning("%s: the bytes do not have the store's %s; reading again", key, contradicting.algorithm)
        elif digest in seen:
            if sha256 is not None:
                raise ObjectChangedError(f"{key}: expected bytes with SHA-256 {sha256}, got {digest}", key=key)
            return Verified(info, digest, "two reads")
        else:
            seen.add(digest)
    raise TransientStorageError(f"{key}: {_READS} readings gave no bytes that can be verified", key=key)


def _compare(content: _Content, checksums: Sequence[Checksum]) -> tuple[str, Checksum | None, Checksum | None]:
    """Return the SHA-256, a checksum that the bytes have, and one that they should have and do not.

    An ETag that looks like an MD5 need not be one: its disagreement says nothing.
    """
    sha256 = hashlib.sha256()
    hashes = [_HASHES[checksum.algorithm](checksum) for checksum in checksums]
    for chunk in content():
        sha256.update(chunk)
        for one in hashes:
            one.update(chunk)
    agreeing = contradicting = None
    for checksum, one in zip(checksums, hashes, strict=True):
        if one.value() == checksum.value:
            agreeing = checksum
        elif not checksum.from_etag:
            contradicting = checksum
    return sha256.hexdigest(), None if contradicting else agreeing, contradicting


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class _Hash(Protocol):
    def update(self, chunk: bytes) -> None: ...

    def value(self) -> str: ...


class _Plain:
    def __init__(self, checksum: Checksum) -> None:
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._hash.update(chunk)

    def value(self) -> str:
        return self._hash.hexdigest()


class _Crc32:
    def __init__(self, checksum: Checksum) -> None:  # noqa: ARG002 - has no options
        self._crc = 0

    def update(self, chunk: bytes) -> None:
        self._crc = zlib.crc32(chunk, self._crc)

    def value(self) -> str:
        return f"{self._crc:08x}"


class _Md5OfParts:
    """The ETag of a multipart upload: the MD5 of the parts' MD5 sums, and their number."""

    def __init__(self, checksum: Checksum) -> None:
        self._part_bytes = checksum.part_bytes
        self._part = hashlib.md5(usedforsecurity=False)
        self._in_part = 0
        self._sums: list[bytes] = []

    def update(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            taken = view[: self._part_bytes - self._in_part]
            self._part.update(taken)
            self._in_part += len(taken)
            view = view[len(taken) :]
            if self._in_part == self._part_bytes:
                self._close_part()

    def _close_part(self) -> None:
        self._sums.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._in_part = 0

    def value(self) -> str:
        if self._in_part:
            self._close_part()
        return f"{hashlib.md5(b''.join(self._sums), usedforsecurity=False).hexdigest()}-{len(self._sums)}"


_HASHES: Final[dict[str, Callable[[Checksum], _Hash]]] = {
    "md5": _Plain,
    "sha1": _Plain,
    "sha256": _Plain,
    "crc32": _Crc32,
    "md5-parts": _Md5OfParts,
}
