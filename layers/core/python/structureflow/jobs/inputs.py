"""What a request names: a key of the data bucket, an ``s3://`` URI of an allowed bucket, an ``https://`` URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from structureflow import keys
from structureflow.errors import (
    InputNotAllowedError,
    InputNotFoundError,
    MediaLimitError,
    ObjectNotFoundError,
    StorageError,
    TransientError,
)
from structureflow.storage.base import ObjectInfo, Storage, StoredObject

#: Builds the storage of an allowed bucket.
OpenBucket = Callable[[str], Storage]

_Result = TypeVar("_Result")


class WebSource(Protocol):
    """Reads ``https://`` URLs of allowed hosts; refuses all others with `InputNotAllowedError`."""

    def head(self, key: str) -> ObjectInfo:
        """Return size and ETag of the URL `key`."""
        ...

    def get(self, key: str) -> StoredObject:
        """Return the bytes of the URL `key`, up to the source's own bound."""
        ...

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Download the URL `key` to `path`."""
        ...


@dataclass(frozen=True, slots=True)
class InputInfo:
    """An input that exists. `identity` changes whenever the bytes may have changed; `name` is for people."""

    reference: str
    name: str
    identity: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Location:
    store: Storage | WebSource
    key: str
    identity_prefix: str


class Inputs:
    """Opens references, within what the settings allow.

    Args:
        data: the data bucket; plain keys are its.
        bucket_name: its name, for ``s3://`` URIs that name it.
        buckets: further allowed buckets by name, each opened when first needed.
        web: source of ``https://`` URLs, or None when no host is allowed.
        max_bytes: largest input.
    """

    def __init__(
        self,
        data: Storage,
        bucket_name: str,
        *,
        buckets: Mapping[str, OpenBucket] | None = None,
        web: WebSource | None = None,
        max_bytes: int,
    ) -> None:
        self._data = data
        self._bucket_name = bucket_name
        self._openers = dict(buckets or {})
        self._opened: dict[str, Storage] = {}
        self._web = web
        self._max_bytes = max_bytes

    def find(self, reference: str) -> InputInfo:
        """Look an input up, without its bytes.

        Raises:
            InputNotAllowedError: it lies where the settings, or the layout of the bucket, do not allow.
            InputNotFoundError: it does not exist.
            MediaLimitError: it is larger than allowed, or empty.
        """
        return self._look_up(reference)[1]

    def read(self, reference: str) -> bytes:
        """Read a small input (an image) whole; errors as `find`."""
        location, _ = self._look_up(reference)
        return self._guard(reference, lambda: location.store.get(location.key)).data

    def fetch(self, reference: str, path: Path) -> InputInfo:
        """Download an input into the file `path`; errors as `find`, and then no file is left."""
        location, _ = self._look_up(reference)
        info = self._guard(reference, lambda: location.store.get_to_file(location.key, path, max_bytes=self._max_bytes))
        return self._checked(reference, location, info)

    def _look_up(self, reference: str) -> tuple[_Location, InputInfo]:
        location = self._locate(reference)
        info = self._guard(reference, lambda: location.store.head(location.key))
        return location, self._checked(reference, location, info)

    def _locate(self, reference: str) -> _Location:
        scheme, separator, rest = reference.partition("://")
        if not separator:
            return _Location(self._data, self._allowed_key(reference), "s3")
        if scheme == "s3":
            bucket, _, key = rest.partition("/")
            if not key:
                raise InputNotAllowedError(f"expected s3://bucket/key, got {reference!r:.300}")
            if bucket == self._bucket_name:
                return _Location(self._data, self._allowed_key(key), "s3")
            return _Location(self._bucket(bucket), key, f"s3-{bucket}")
        if scheme == "https":
            if self._web is None:
                raise InputNotAllowedError(f"{reference:.300}: no https host is allowed by the settings")
            return _Location(self._web, reference, "https")
        raise InputNotAllowedError(f"expected a key, s3:// or https://, got {reference!r:.300}")

    def _bucket(self, name: str) -> Storage:
        if name not in self._openers:
            allowed = ", ".join(sorted({self._bucket_name, *self._openers}))
            raise InputNotAllowedError(f"bucket {name!r:.100} is not allowed; allowed: {allowed}")
        if name not in self._opened:
            self._opened[name] = self._openers[name](name)
        return self._opened[name]

    @staticmethod
    def _allowed_key(key: str) -> str:
        if key.startswith(keys.RESERVED_PREFIXES):
            raise InputNotAllowedError(
                f"{key!r:.300}: keys below {', '.join(keys.RESERVED_PREFIXES)} are the system's own"
            )
        if key.startswith("/") or any(part in {"", ".", ".."} for part in key.split("/")):
            raise InputNotAllowedError(f"expected a plain key without '..' or empty parts, got {key!r:.300}")
        return key

    def _checked(self, reference: str, location: _Location, info: ObjectInfo) -> InputInfo:
        if info.size_bytes > self._max_bytes:
            raise MediaLimitError(
                f"{reference:.300}: expected at most {self._max_bytes} bytes, got {info.size_bytes}",
                size_bytes=info.size_bytes,
                max_bytes=self._max_bytes,
            )
        if info.size_bytes == 0:
            raise MediaLimitError(f"{reference:.300}: the file is empty", size_bytes=0)
        return InputInfo(
            reference=reference,
            name=PurePosixPath(location.key.partition("?")[0]).name,
            identity=f"{location.identity_prefix}:{info.etag}:{info.size_bytes}",
            size_bytes=info.size_bytes,
        )

    @staticmethod
    def _guard(reference: str, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except ObjectNotFoundError as error:
            raise InputNotFoundError(f"{reference:.300}: there is no such file", reference=reference) from error
        except TransientError:
            raise
        except StorageError as error:
            raise InputNotAllowedError(f"{reference:.300}: cannot be read: {error}", reference=reference) from error
