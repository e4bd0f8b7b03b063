"""What a request names: a key of the data bucket, an ``s3://`` URI of an allowed bucket, an ``https://`` URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from structureflow import keys
from structureflow.errors import (
    InputChangedError,
    InputNotAllowedError,
    InputNotFoundError,
    MediaLimitError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientError,
)
from structureflow.models.results import InputPin
from structureflow.references import Reference
from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, Storage, StoredObject
from structureflow.storage.ranged import RangedFile
from structureflow.storage.verified import Verified, VerifiedBy, fetch_verified, get_verified

__all__ = ["Inputs"]

#: Builds the storage of an allowed bucket.
OpenBucket = Callable[[str], Storage]

_Result = TypeVar("_Result")


class WebSource(Protocol):
    """Reads ``https://`` URLs of allowed hosts; refuses all others with `InputNotAllowedError`."""

    def head(self, key: str) -> ObjectInfo:
        """Return size and ETag of the URL `key`."""
        ...

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> StoredObject:
        """Return the bytes of the URL `key`, up to `max_bytes` and the source's own bound."""
        ...

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Download the URL `key` to `path`."""
        ...

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """Return what the server says of the bytes."""
        ...


@dataclass(frozen=True, slots=True)
class _Location:
    store: Storage | WebSource
    key: str
    identity_prefix: str


@dataclass(frozen=True, slots=True)
class Source:
    """An input that was found once: whoever needs its bytes gets these bytes, or an error.

    Attributes:
        reference: as the request names it.
        name: of its file, for people.
        identity: changes whenever the bytes may have changed.
        size_bytes: of the whole.
        sha256: of the bytes, in hex digits; None until they were read.
        verified_by: how the bytes were verified when they were read first.
    """

    reference: Reference
    name: str
    identity: str
    size_bytes: int
    sha256: str | None = None
    verified_by: VerifiedBy | None = None
    _location: _Location = field(repr=False, compare=False, kw_only=True)
    _etag: str = field(repr=False, compare=False, kw_only=True)
    _max_bytes: int = field(repr=False, compare=False, kw_only=True)

    def fetch(self, path: Path) -> Source:
        """Download the bytes into the file `path`, verified, and return this source with their digest.

        Raises:
            MediaLimitError: it is larger than what has room here; nothing is read.
            InputChangedError: the object was overwritten since it was found.
            InputNotFoundError: it is gone.
            InputNotAllowedError: the store refuses it.
            TransientError: the store broke off, or gives other bytes each time.
        """
        location = self._location
        if self.size_bytes > self._max_bytes:
            raise _too_large(self.reference, self.size_bytes, self._max_bytes)

        def fetch() -> Verified:
            return fetch_verified(
                location.store,
                location.key,
                path,
                if_match=self._etag,
                sha256=self.sha256,
                max_bytes=self.size_bytes,
            )

        return self._verified(self._guard(fetch))

    @property
    def is_ranged(self) -> bool:
        """Whether parts of the bytes can be had without the rest."""
        return isinstance(self._location.store, Storage)

    def opened(self) -> RangedFile:
        """Return the bytes as a file, of which only what is read moves. They are as the store sends them.

        Raises, also when it is read:
            InputChangedError, InputNotFoundError, InputNotAllowedError, TransientError: as `fetch`.
        """
        store, key = self._location.store, self._location.key
        if not isinstance(store, Storage):
            raise InputNotAllowedError(f"{self.reference!s:.300}: parts of a URL are not read")

        def read(start: int, stop: int) -> bytes:
            found = self._guard(lambda: store.get(key, byte_range=ByteRange(start, stop), if_match=self._etag))
            return found.data

        return RangedFile(self.name, self.size_bytes, read)

    def read(self, *, max_bytes: int) -> tuple[bytes, Source]:
        """Read the bytes of a small input (an image), verified; otherwise as `fetch`.

        Raises:
            MediaLimitError: it has more than `max_bytes`; nothing is read.
        """
        if self.size_bytes > max_bytes:
            raise _too_large(self.reference, self.size_bytes, max_bytes)
        store, key = self._location.store, self._location.key

        def get() -> StoredObject:
            if isinstance(store, Storage):
                return store.get(key, if_match=self._etag)
            return store.get(key, if_match=self._etag, max_bytes=self.size_bytes)

        data, verified = self._guard(lambda: get_verified(store, key, get, sha256=self.sha256))
        return data, self._verified(verified)

    def pin(self) -> InputPin:
        """Return what a record keeps of it, so that later steps find the same bytes."""
        return InputPin(
            reference=str(self.reference),
            identity=self.identity,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            verified_by=self.verified_by,
        )

    def _verified(self, verified: Verified) -> Source:
        if verified.info.size_bytes != self.size_bytes:
            raise self._changed()
        return replace(self, sha256=verified.sha256, verified_by=self.verified_by or verified.verified_by)

    def _guard(self, action: Callable[[], _Result]) -> _Result:
        try:
            return _guarded(self.reference, action)
        except ObjectChangedError as error:
            raise self._changed() from error

    def _changed(self) -> InputChangedError:
        return InputChangedError(
            f"{self.reference!s:.300}: was overwritten since the job looked it up ({self.size_bytes} bytes then)",
            reference=str(self.reference),
        )


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

    def find(self, reference: Reference, *, max_bytes: int | None = None) -> Source:
        """Look an input up, without its bytes.

        Args:
            reference: of the request.
            max_bytes: of one that may be larger than what is downloaded here.

        Raises:
            InputNotAllowedError: it lies where the settings, or the layout of the bucket, do not allow.
            InputNotFoundError: it does not exist.
            MediaLimitError: it is larger than allowed, or empty.
        """
        location = self._locate(reference)
        info = _guarded(reference, lambda: location.store.head(location.key))
        most = max(self._max_bytes, max_bytes or 0)
        if info.size_bytes > most:
            raise _too_large(reference, info.size_bytes, most)
        if info.size_bytes == 0:
            raise MediaLimitError(f"{reference!s:.300}: the file is empty", size_bytes=0)
        return self._source(
            reference,
            location,
            InputPin(
                reference=str(reference),
                identity=f"{location.identity_prefix}:{info.etag}:{info.size_bytes}",
                size_bytes=info.size_bytes,
            ),
            info.etag,
        )

    def known(self, reference: Reference, pin: InputPin) -> Source:
        """Return an input as an earlier step found it; no request is made.

        Raises:
            InputNotAllowedError: as `find`.
            InputChangedError: the reference leads to another store than then.
        """
        location = self._locate(reference)
        begin, end = f"{location.identity_prefix}:", f":{pin.size_bytes}"
        if not (pin.identity.startswith(begin) and pin.identity.endswith(end)):
            raise InputChangedError(
                f"{reference!s:.300}: expected in the store of {pin.identity}, but it now lies in "
                f"{location.identity_prefix}",
                reference=str(reference),
            )
        return self._source(reference, location, pin, pin.identity[len(begin) : -len(end)])

    def _source(self, reference: Reference, location: _Location, pin: InputPin, etag: str) -> Source:
        return Source(
            reference=reference,
            name=PurePosixPath(location.key.partition("?")[0]).name,
            identity=pin.identity,
            size_bytes=pin.size_bytes,
            sha256=pin.sha256,
            verified_by=pin.verified_by,
            _location=location,
            _etag=etag,
            _max_bytes=self._max_bytes,
        )

    def _locate(self, reference: Reference) -> _Location:
        if reference.is_redacted:
            raise InputNotAllowedError(f"{reference!s:.300}: expected the whole URL, got one without its query")
        text = reference.reveal()
        scheme, separator, rest = text.partition("://")
        if not separator:
            return _Location(self._data, self._allowed_key(text), "s3")
        if scheme == "s3":
            bucket, _, key = rest.partition("/")
            if not key:
                raise InputNotAllowedError(f"expected s3://bucket/key, got {text!r:.300}")
            if bucket == self._bucket_name:
                return _Location(self._data, self._allowed_key(key), "s3")
            return _Location(self._bucket(bucket), key, f"s3-{bucket}")
        if scheme == "https":
            if self._web is None:
                raise InputNotAllowedError(f"{reference!s:.300}: no https host is allowed by the settings")
            return _Location(self._web, text, "https")
        raise InputNotAllowedError(f"expected a key, s3:// or https://, got {str(reference)!r:.300}")

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


def _too_large(reference: Reference, size_bytes: int, max_bytes: int) -> MediaLimitError:
    return MediaLimitError(
        f"{reference!s:.300}: expected at most {max_bytes} bytes, got {size_bytes}",
        size_bytes=size_bytes,
        max_bytes=max_bytes,
    )


def _guarded(reference: Reference, action: Callable[[], _Result]) -> _Result:
    """Do an action on an input; errors of its store become errors about the input.

    Raises:
        InputNotFoundError, InputNotAllowedError: it is not there, or cannot be read.
        ObjectChangedError, TransientError: as the action raises them.
    """
    try:
        return action()
    except ObjectNotFoundError as error:
        raise InputNotFoundError(f"{reference!s:.300}: there is no such file", reference=str(reference)) from error
    except (TransientError, ObjectChangedError):
        raise
    except StorageError as error:
        raise InputNotAllowedError(f"{reference!s:.300}: cannot be read: {error}", reference=str(reference)) from error
