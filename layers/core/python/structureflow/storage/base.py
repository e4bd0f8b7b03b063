"""The storage port: the few operations on whole objects and byte ranges that the system needs.

A `Storage` is bound to one bucket (or one folder). Keys are the strings that `structureflow.keys` builds;
adapters add nothing to them. All methods may be called from several threads at once.
"""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from structureflow import arguments
from structureflow.arguments import Check, checked, checking, instance, is_text, optional, refuse, shown, whole
from structureflow.errors import InvalidArgumentError, InvalidKeyError, ObjectExistsError, StorageError

if TYPE_CHECKING:
    from structureflow.storage.pieces import Piece

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_PRESIGN_S",
    "ByteRange",
    "Checksum",
    "ObjectInfo",
    "Storage",
    "StoredObject",
    "Suffix",
    "Upload",
    "check_arguments",
    "check_expiry",
    "check_key",
    "check_prefix",
]

#: S3's own limit, and that of all adapters.
MAX_KEY_BYTES: Final = 1024
MAX_PRESIGN_S: Final = 7 * 24 * 3600


def check_key(key: str, what: str = "key") -> str:
    """Return `key` if every adapter can store an object under it.

    A key is a relative path: 1 to 1024 bytes of UTF-8, parts separated by ``/``, no part empty or ``.`` or
    ``..``, no control character and no backslash.

    Raises:
        InvalidKeyError: it has another form.
    """
    if not is_text(key):
        raise InvalidKeyError(f"{what}: expected a text, got {shown(key)}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"{what}: expected valid Unicode, got {key!r:.200}") from error
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidKeyError(f"{what}: expected 1 to {MAX_KEY_BYTES} bytes, got {size}")
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or _has_control(key):
        raise InvalidKeyError(
            f"{what}: expected a relative path without empty, '.' or '..' parts, backslash or control characters, "
            f"got {key!r:.200}"
        )
    return key


def check_prefix(prefix: str, what: str = "prefix") -> str:
    """Return `prefix` if keys can start with it; the empty prefix stands for all keys.

    Raises:
        InvalidKeyError: no key can start with it.
    """
    if prefix or not is_text(prefix):
        check_key(prefix.removesuffix("/") if is_text(prefix) and prefix != "/" else prefix, what)
    return prefix


def folder_end(prefix: str, name: str | None) -> str | None:
    """Return a key behind all those below the folder `name` of `prefix`, and before what follows; None for no name."""
    return None if name is None else f"{prefix}{name}/\U0010ffff"


def check_expiry(expires_s: int) -> int:
    """Return `expires_s` if a URL may be valid for so long: 1 second to 7 days.

    Raises:
        InvalidArgumentError: it is outside.
    """
    whole(1, MAX_PRESIGN_S)(expires_s, "expires_s")
    return expires_s


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` (inclusive) to `stop` (exclusive) of an object; cut at its end."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise InvalidArgumentError(f"byte_range: expected 0 <= start < stop, got {self.start}, {self.stop}")


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last `length` bytes of an object, or all of it if it is shorter."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InvalidArgumentError(f"byte_range: expected length >= 1, got {self.length}")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a store says of an object's bytes, in lower-case hex digits.

    An ETag may be the MD5 of the bytes, or (``md5-parts``, `part_bytes` long each) of a multipart upload; that it
    is not the one of the bytes proves nothing (`from_etag`).
    """

    algorithm: Literal["md5", "sha1", "sha256", "crc32", "md5-parts"]
    value: str
    from_etag: bool = False
    part_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object without its bytes. `etag` has no quotes and is opaque.

    `checksums` came with the reply; `Storage.checksums` may know more.
    """

    key: str
    size_bytes: int
    etag: str
    last_modified: datetime | None = None
    checksums: tuple[Checksum, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """How an object is written without credentials: by a request of `method` to `url` with these `headers`."""

    url: str
    method: str = "PUT"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes read from an object: the whole, or the range asked for. `info.size_bytes` is the whole's size."""

    data: bytes
    info: ObjectInfo
    start: int = 0


def _check_pieces(value: Any, name: str) -> None:
    # which knows this module
    from structureflow.storage.pieces import ObjectPart

    arguments.iterable("several pieces")(value, name)
    for each in value:
        if not isinstance(each, (bytes, ObjectPart)):
            refuse(each, name, "bytes or ObjectPart in each place")


class Storage(abc.ABC):
    """Objects of one bucket. Every error is a `structureflow.errors.StorageError` or its descendant.

    Common to all methods: `StorageError` when access is denied or the bucket does not exist,
    `TransientStorageError` when the store does not answer, throttles or breaks off (after the adapter's own
    retries), `InvalidKeyError` for a key that `check_key` refuses.
    """

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """Where this store is, for people: ``s3://bucket`` or ``file:///folder``."""

    @abc.abstractmethod
    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object, or a part of it, in one request.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectChangedError: `if_match` is given and the object's ETag is another one.
            RangeNotSatisfiableError: the range starts at or past the end.
        """

    @abc.abstractmethod
    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Download an object into the file `path` with bounded memory; no partial file stays behind.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectChangedError: `if_match` is given and the object's ETag is another one.
            StorageError: the object is larger than `max_bytes`.
        """

    @abc.abstractmethod
    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object in one piece; readers see the old object or the new one, never a mixture.

        With `if_absent`, create only; with `if_match`, overwrite only the object that has this ETag (compare
        and swap). In both cases a lost reply whose write did arrive counts as success, so an object with the
        very same bytes does too. To claim something, write bytes that no other claimant writes.

        Raises:
            ObjectExistsError: `if_absent` and an object with other bytes is there.
            ObjectChangedError: `if_match` and an object with another ETag and other bytes is there, or none.
            ValueError: both conditions are given.
        """

    @abc.abstractmethod
    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object from the file `path` with bounded memory; otherwise as `put`."""

    @abc.abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Return what the store knows of an object.

        Raises:
            ObjectNotFoundError: no such object.
        """

    @checked(info=instance(ObjectInfo, "ObjectInfo"))
    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """Return what the store says of the bytes of an object whose `info` was read; empty if it says nothing.

        A store may do a further request for it.
        """
        return info.checksums

    @abc.abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether an object is there, in one request."""

    @abc.abstractmethod
    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Iterate over objects whose key starts with `prefix`, in UTF-8 order, a page at a time.

        Empty objects whose key ends in a slash (the folder marks of some consoles) are left out.
        `start_after` skips keys up to and including that one.
        """

    @checked(prefix=check_prefix, start_after=optional(arguments.text))
    def folders(self, prefix: str, *, start_after: str | None = None) -> Iterator[str]:
        """Iterate over the names directly below `prefix` under which objects lie, in the order of their keys.

        Here a request for each; adapters that list folders do it a page at a time.

        Args:
            prefix: ends in a slash, or is empty.
            start_after: skips names up to and including this one.
        """
        after = folder_end(prefix, start_after)
        while (found := next(self.list(prefix, start_after=after), None)) is not None:
            name, slash, _ = found.key.removeprefix(prefix).partition("/")
            if slash:
                yield name
            after = folder_end(prefix, name) if slash else found.key

    @abc.abstractmethod
    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects in batches, consuming `keys` a page at a time; missing ones are no error.

        Returns the number of keys asked for.
        """

    @abc.abstractmethod
    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """Copy an object inside the store without moving its bytes through this process.

        `if_match` is about the source. A store that does not obey it is looked at before and after: if the
        source changes in between, the copy has been made of the newer object, and the error says so.

        Raises:
            ObjectNotFoundError: no such source.
            ObjectChangedError: `if_match` is given and the source's ETag is another one.
        """

    @checked(key=check_key, pieces=_check_pieces, content_type=optional(arguments.text))
    def assemble(
        self, key: str, pieces: Sequence[Piece], *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """Write an object that is made of `pieces`, one after another, with bounded memory.

        Where the store can, the parts of other objects do not move through this process. With `if_absent`, create
        only: unlike `put`, an object that is there is an error whatever its bytes are.

        Raises:
            ObjectNotFoundError: an object is gone of which a part is wanted.
            ObjectChangedError: it has another ETag by now.
            ObjectExistsError: `if_absent` and an object is there.
        """
        if if_absent and self.exists(key):
            raise ObjectExistsError(f"{self.uri}/{key}: expected no object, got one", key=key)
        # which knows this module
        from structureflow.storage.pieces import read_pieces

        with tempfile.TemporaryDirectory(prefix="structureflow-") as folder:
            path = Path(folder) / "assembled"
            with path.open("wb") as file:
                for data in read_pieces(self, pieces):
                    file.write(data)
            return self.put_file(key, path, content_type=content_type, if_absent=if_absent)

    @abc.abstractmethod
    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return a URL that reads the object without credentials for `expires_s` seconds (up to 7 days).

        The object need not exist. Stores that cannot sign return what a reader on this machine can open.
        """

    @checked(key=check_key, size_bytes=whole(1), content_type=arguments.text, expires_s=whole(1))
    def upload_url(self, key: str, *, size_bytes: int, content_type: str, expires_s: int = 3600) -> Upload:
        """Return how an object of exactly `size_bytes` is written without credentials, for `expires_s` seconds.

        Raises:
            StorageError: the store cannot sign.
        """
        check_expiry(expires_s)
        raise StorageError(f"{self.uri} cannot sign uploads: {size_bytes} bytes of {content_type}", key=key)

    @property
    def url_origin(self) -> str | None:
        """Scheme and host of `presigned_url`, as pages name it in their policies; None where that is no other site."""
        return None


#: By parameter of `Storage`.
_ARGUMENTS: Final[dict[str, Check]] = {
    **dict.fromkeys(("key", "source_key", "target_key"), check_key),
    "prefix": check_prefix,
    **dict.fromkeys(("if_match", "content_type", "start_after"), optional(arguments.text)),
    "byte_range": optional(instance((ByteRange, Suffix), "ByteRange or Suffix")),
    "data": instance((bytes, bytearray, memoryview), "bytes"),
    "expires_s": whole(1),
    "info": instance(ObjectInfo, "ObjectInfo"),
    "keys": arguments.iterable("several keys"),
    "max_bytes": optional(whole(0)),
    "size_bytes": whole(1),
    "path": arguments.path,
    "pieces": _check_pieces,
}
Adapter = TypeVar("Adapter", bound=type[Storage])


def check_arguments(adapter: Adapter) -> Adapter:
    """Have an adapter's methods look at their arguments before they do anything; a class decorator.

    One of another type is then an `InvalidArgumentError`, a key that no store takes an `InvalidKeyError`.
    """
    return checking(_ARGUMENTS)(adapter)


#: Of a parameter that takes a store.
check_store: Final = instance(Storage, "a store, such as LocalStorage")
