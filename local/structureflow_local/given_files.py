"""A store in which some objects are files of the user's, where they lie: nothing is copied, nothing of them changes."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from structureflow.errors import InvalidKeyError, ObjectNotFoundError, StorageError
from structureflow.storage.adapters import (
    CHUNK_BYTES,
    check_if_match,
    check_size,
    etag_checksums,
    slice_range,
    writing,
)
from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, Storage, StoredObject, Suffix, check_arguments

#: Of a file: when it was changed, and its size.
_State = tuple[int, int]
_READ_ONLY: Final = "is a file of the user's, and only read"


@check_arguments
class GivenFiles(Storage):
    """Another store, and files beside it that are read as if they were in it.

    A file's ETag is the MD5 of its bytes, as S3's is: what is made of them is found again under the same name
    wherever it was made. It is computed when somebody asks, and again when the file changed since.

    Args:
        store: has all other objects.
        files: by key.
    """

    def __init__(self, store: Storage, files: Mapping[str, Path]) -> None:
        self._store = store
        self._files = dict(files)
        self._etags: dict[str, tuple[_State, str]] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """That of the other store."""
        return self._store.uri

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `Storage.get`."""
        if key not in self._files:
            return self._store.get(key, byte_range=byte_range, if_match=if_match)
        info = self._info(key)
        check_if_match(info, if_match)
        start, stop = slice_range(info, byte_range)
        try:
            with self._files[key].open("rb") as file:
                file.seek(start)
                return StoredObject(file.read(stop - start), info, start)
        except OSError as error:
            raise self._unreadable(key, error) from error

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`."""
        if key not in self._files:
            return self._store.get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)
        info = self._info(key)
        check_if_match(info, if_match)
        check_size(key, info.size_bytes, max_bytes)
        try:
            with self._files[key].open("rb") as source, writing(path) as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
        except OSError as error:
            raise self._unreadable(key, error) from error
        return info

    def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        return self._info(key) if key in self._files else self._store.head(key)

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """See `Storage.checksums`."""
        return info.checksums if info.key in self._files else self._store.checksums(info)

    def exists(self, key: str) -> bool:
        """See `Storage.exists`."""
        return self._files[key].is_file() if key in self._files else self._store.exists(key)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        given = (
            self._info(key)
            for key in sorted(self._files, key=str.encode)
            if key.startswith(prefix) and key.encode() > (start_after or "").encode()
        )
        stored = self._store.list(prefix, start_after=start_after)
        return heapq.merge(given, stored, key=lambda info: info.key.encode())

    def folders(self, prefix: str, *, start_after: str | None = None) -> Iterator[str]:
        """See `Storage.folders`."""
        below = (key.removeprefix(prefix) for key in self._files if key.startswith(prefix))
        given = sorted({name.partition("/")[0] for name in below if "/" in name}, key=_as_folder)
        after = b"" if start_after is None else _as_folder(start_after)
        stored = self._store.folders(prefix, start_after=start_after)
        merged = heapq.merge((name for name in given if _as_folder(name) > after), stored, key=_as_folder)
        return (name for name, _ in itertools.groupby(merged))

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Storage.put`."""
        self._check_writable(key)
        return self._store.put(key, data, content_type=content_type, if_absent=if_absent, if_match=if_match)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Storage.put_file`."""
        self._check_writable(key)
        return self._store.put_file(key, path, content_type=content_type, if_absent=if_absent, if_match=if_match)

    def delete(self, keys: Iterable[str]) -> int:
        """See `Storage.delete`; the user's files stay where they are, and are no objects any more."""
        listed = list[str](keys)
        for key in listed:
            self._files.pop(key, None)
        return self._store.delete(listed)

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """See `Storage.copy`."""
        self._check_writable(target_key)
        if source_key not in self._files:
            return self._store.copy(source_key, target_key, if_match=if_match)
        check_if_match(self._info(source_key), if_match)
        return self._store.put_file(target_key, self._files[source_key])

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """See `Storage.presigned_url`."""
        if key in self._files:
            return self._files[key].resolve().as_uri()
        return self._store.presigned_url(key, expires_s=expires_s)

    def _info(self, key: str) -> ObjectInfo:
        path = self._files[key]
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
            with self._lock:
                known = self._etags.get(key)
            if known is None or known[0] != state:
                known = (state, _md5(path))
                with self._lock:
                    self._etags[key] = known
        except OSError as error:
            raise self._unreadable(key, error) from error
        moment = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(key, status.st_size, known[1], moment, etag_checksums(known[1]))

    def _unreadable(self, key: str, error: OSError) -> StorageError:
        if isinstance(error, StorageError):
            return error
        path = self._files[key]
        if isinstance(error, FileNotFoundError):
            return ObjectNotFoundError(f"{path}: there is no such file any more", key=key)
        return StorageError(f"{path}: cannot be read: {error.strerror or error}", key=key)

    def _check_writable(self, key: str) -> None:
        if key in self._files:
            raise InvalidKeyError(f"{key}: {_READ_ONLY} ({self._files[key]})")


def _as_folder(name: str) -> bytes:
    """Return by what folders are in order: their keys."""
    return f"{name}/".encode()


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()
