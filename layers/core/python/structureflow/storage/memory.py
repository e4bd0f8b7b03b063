"""A store in the memory of this process: for tests, and for jobs that need no other."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from structureflow import arguments
from structureflow.arguments import checked
from structureflow.errors import ObjectChangedError, ObjectExistsError, ObjectNotFoundError, StorageError
from structureflow.storage.adapters import (
    check_conditions,
    check_if_match,
    check_size,
    etag_checksums,
    slice_range,
    writing,
)
from structureflow.storage.base import (
    ByteRange,
    ObjectInfo,
    Storage,
    StoredObject,
    Suffix,
    check_arguments,
    check_expiry,
    check_key,
    check_prefix,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    data: bytes
    info: ObjectInfo


@check_arguments
class MemoryStorage(Storage):
    """Objects in a dictionary. ETags are the MD5 of the bytes, as S3's are for simple uploads.

    Args:
        name: of the store, for people.
        now: tells when an object is written.

    >>> store = MemoryStorage()
    >>> info = store.put("videos/notes.txt", b"a pan to the right")
    >>> [found.key for found in store.list("videos/")]
    ['videos/notes.txt']
    """

    @checked(name=arguments.text, now=arguments.function)
    def __init__(self, name: str = "memory", *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._name = name
        self._now = now
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """``memory://{name}``."""
        return f"memory://{self._name}"

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it; see `Storage.get`."""
        entry = self._entry(key)
        check_if_match(entry.info, if_match)
        start, stop = slice_range(entry.info, byte_range)
        return StoredObject(entry.data[start:stop], entry.info, start)

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Copy an object into a file; see `Storage.get_to_file`."""
        entry = self._entry(key)
        check_if_match(entry.info, if_match)
        check_size(key, entry.info.size_bytes, max_bytes)
        with writing(path) as file:
            file.write(entry.data)
        return entry.info

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,  # noqa: ARG002 - kept by stores that serve HTTP
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object; see `Storage.put`."""
        check_key(key)
        check_conditions(if_absent=if_absent, if_match=if_match)
        copied = bytes(data)
        etag = hashlib.md5(copied, usedforsecurity=False).hexdigest()
        entry = _Entry(copied, ObjectInfo(key, len(copied), etag, self._now(), etag_checksums(etag)))
        with self._lock:
            present = self._entries.get(key)
            if if_absent and present is not None:
                if present.data != copied:
                    raise ObjectExistsError(f"{self.uri}/{key}: exists with other bytes", key=key)
                return present.info
            if if_match is not None and (present is None or present.info.etag != if_match):
                if present is not None and present.data == copied:
                    return present.info
                found = f"got {present.info.etag}" if present is not None else "the object is gone"
                raise ObjectChangedError(f"{self.uri}/{key}: expected ETag {if_match}, {found}", key=key)
            self._entries[key] = entry
        return entry.info

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object from a file; see `Storage.put_file`."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}", key=key) from error
        return self.put(key, data, content_type=content_type, if_absent=if_absent, if_match=if_match)

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object; see `Storage.head`."""
        return self._entry(key).info

    def exists(self, key: str) -> bool:
        """Tell whether an object is there."""
        return check_key(key) in self._entries

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Iterate over a snapshot of the keys that start with `prefix`; see `Storage.list`."""
        check_prefix(prefix)
        return self._iterate(prefix, start_after)

    def _iterate(self, prefix: str, start_after: str | None) -> Iterator[ObjectInfo]:
        with self._lock:
            found = [(key.encode(), entry.info) for key, entry in self._entries.items() if key.startswith(prefix)]
        found.sort(key=lambda item: item[0])
        after = start_after.encode() if start_after is not None else b""
        for encoded, info in found:
            if encoded > after:
                yield info

    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects; see `Storage.delete`."""
        count = 0
        for key in keys:
            check_key(key)
            with self._lock:
                self._entries.pop(key, None)
            count += 1
        return count

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """Copy an object; see `Storage.copy`."""
        return self.put(target_key, self.get(source_key, if_match=if_match).data)

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return the object itself as a ``data:`` URL, which never expires.

        Raises:
            ObjectNotFoundError: no such object.
        """
        check_expiry(expires_s)
        return f"data:application/octet-stream;base64,{base64.b64encode(self._entry(key).data).decode()}"

    def _entry(self, key: str) -> _Entry:
        with self._lock:
            entry = self._entries.get(check_key(key))
        if entry is None:
            raise ObjectNotFoundError(f"{self.uri}/{key}: no such object", key=key)
        return entry
