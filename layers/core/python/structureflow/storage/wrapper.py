"""A store in front of another one: for those that change or watch a few of its requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, Storage, StoredObject, Suffix, Upload

__all__ = ["PAGE_KEYS", "WrapperStorage"]

#: Keys of one request of `list` and `delete`, as in S3.
PAGE_KEYS: Final = 1000


class WrapperStorage(Storage):
    """Hands every request on to `inner`, through `_request`, which descendants override.

    `list` is one request per 1,000 keys (at least one), `delete` one per 1,000, all others are one request.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:  # noqa: ARG002 - for descendants
        yield

    @property
    def uri(self) -> str:
        """That of `inner`."""
        return self.inner.uri

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `Storage.get`."""
        with self._request("get", key):
            return self.inner.get(key, byte_range=byte_range, if_match=if_match)

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`."""
        with self._request("get_to_file", key):
            return self.inner.get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)

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
        with self._request("put", key):
            return self.inner.put(key, data, content_type=content_type, if_absent=if_absent, if_match=if_match)

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
        with self._request("put_file", key):
            return self.inner.put_file(key, path, content_type=content_type, if_absent=if_absent, if_match=if_match)

    def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        with self._request("head", key):
            return self.inner.head(key)

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """See `Storage.checksums`; counted as part of the reading."""
        return self.inner.checksums(info)

    def exists(self, key: str) -> bool:
        """See `Storage.exists`."""
        with self._request("exists", key):
            return self.inner.exists(key)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        entries = self.inner.list(prefix, start_after=start_after)
        while True:
            with self._request("list", prefix):
                page = tuple(islice(entries, PAGE_KEYS))
            yield from page
            if len(page) < PAGE_KEYS:
                return

    def folders(self, prefix: str, *, start_after: str | None = None) -> Iterator[str]:
        """See `Storage.folders`; pages as of `list`."""
        names = self.inner.folders(prefix, start_after=start_after)
        while True:
            with self._request("list", prefix):
                page = tuple(islice(names, PAGE_KEYS))
            yield from page
            if len(page) < PAGE_KEYS:
                return

    def delete(self, keys: Iterable[str]) -> int:
        """See `Storage.delete`."""
        remaining = iter(keys)
        count = 0
        while page := tuple(islice(remaining, PAGE_KEYS)):
            with self._request("delete", page[0]):
                count += self.inner.delete(page)
        return count

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """See `Storage.copy`."""
        with self._request("copy", source_key):
            return self.inner.copy(source_key, target_key, if_match=if_match)

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """See `Storage.presigned_url`; no request is made."""
        return self.inner.presigned_url(key, expires_s=expires_s)

    def upload_url(self, key: str, *, size_bytes: int, content_type: str, expires_s: int = 3600) -> Upload:
        """See `Storage.upload_url`; no request is made."""
        return self.inner.upload_url(key, size_bytes=size_bytes, content_type=content_type, expires_s=expires_s)

    @property
    def url_origin(self) -> str | None:
        """That of `inner`."""
        return self.inner.url_origin
