"""What an S3 store answered, checked: length, range, ETag, times, and the tokens of a listing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from structureflow.errors import StorageError
from structureflow.storage._s3_errors import BrokenBodyError
from structureflow.storage.adapters import etag_checksums, slice_range
from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, StoredObject, Suffix

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef


_MULTIPART: Final = re.compile(r"[0-9a-f]{32}-([1-9][0-9]{0,4})")
_CHECKSUM_FIELDS: Final[tuple[tuple[str, Literal["sha256", "sha1", "crc32"]], ...]] = (
    ("ChecksumSHA256", "sha256"),
    ("ChecksumSHA1", "sha1"),
    ("ChecksumCRC32", "crc32"),
)


def stored(key: str, reply: GetObjectOutputTypeDef, data: bytes, byte_range: ByteRange | Suffix | None) -> StoredObject:
    """Return the bytes that were asked for, out of a reply that may hold more.

    Raises:
        BrokenBodyError: the body is shorter than announced.
        StorageError: the reply is of another range, or lacks what every reply must have.
    """
    content_range = str(reply.get("ContentRange", ""))
    if byte_range is None or not content_range:
        info = whole_info(key, reply)
        check_received(key, len(data), info.size_bytes)
        # A store that does not know ranges sends the whole object.
        start, stop = slice_range(info, byte_range)
        return StoredObject(data[start:stop] if byte_range else data, info, start)
    start, stop, size = _parse_content_range(key, content_range)
    check_received(key, len(data), stop - start)
    info = ObjectInfo(key, size, etag(key, reply), required(key, reply, "LastModified"))
    if (start, stop) != slice_range(info, byte_range):
        raise StorageError(f"{key}: expected {byte_range}, got {content_range!r}", key=key)
    return StoredObject(data, info, start)


def whole_info(key: str, reply: Mapping[str, Any]) -> ObjectInfo:
    """Return what the reply to GET or HEAD tells of the whole object.

    Raises:
        StorageError: it lacks length, ETag or time.
    """
    size_bytes = required(key, reply, "ContentLength")
    tag = etag(key, reply)
    checksums = (*_checksums(key, reply), *_etag_checksums(reply, tag))
    return ObjectInfo(key, size_bytes, tag, required(key, reply, "LastModified"), checksums)


def _checksums(key: str, reply: Mapping[str, Any]) -> Iterator[Checksum]:
    """Yield the checksums of the whole object that this process can compute.

    Of a multipart upload there may be a checksum of the parts' checksums: ``COMPOSITE``, and a dash in the value.
    """
    if reply.get("ChecksumType") == "COMPOSITE":
        return
    for field, algorithm in _CHECKSUM_FIELDS:
        value = reply.get(field)
        if isinstance(value, str) and "-" not in value:
            try:
                yield Checksum(algorithm, base64.b64decode(value, validate=True).hex())
            except ValueError as error:
                raise StorageError(f"{key}: expected {field} in base64, got {value!r:.80}", key=key) from error


def _etag_checksums(reply: Mapping[str, Any], tag: str) -> tuple[Checksum, ...]:
    """Return the MD5 that an ETag is, except under encryption with a key of KMS or the customer's."""
    encrypted = str(reply.get("ServerSideEncryption") or "").startswith("aws:") or reply.get("SSECustomerAlgorithm")
    return () if encrypted else etag_checksums(tag)


def part_count(tag: str) -> int:
    """Return the number of parts that the ETag of a multipart upload tells; 0 for any other ETag."""
    found = _MULTIPART.fullmatch(tag)
    return int(found[1]) if found else 0


def listed_info(prefix: str, entry: Mapping[str, Any]) -> ObjectInfo:
    """Return what a listing tells of an object.

    Raises:
        StorageError: it lacks key, size, ETag or time.
    """
    key = required(prefix, entry, "Key")
    return ObjectInfo(key, required(key, entry, "Size"), etag(key, entry), required(key, entry, "LastModified"))


def listing_pages(
    ask: Callable[[dict[str, Any]], ListObjectsV2OutputTypeDef], arguments: Mapping[str, Any], where: str
) -> Iterator[ListObjectsV2OutputTypeDef]:
    """Iterate over the pages of a listing, each asked for with `arguments` and the token of the one before.

    Raises:
        StorageError: the store sends no new token, though there is more.
    """
    asked = dict(arguments)
    seen: set[str] = set()
    while True:
        reply = ask(asked)
        yield reply
        if not reply.get("IsTruncated"):
            return
        token = reply.get("NextContinuationToken")
        if not token or token in seen:
            # Stopping here would lose keys, going on would never end.
            raise StorageError(
                f"{where}: expected a new continuation token of a listing, got "
                f"{'one that it had sent before' if token else 'none'}",
                key=asked["Prefix"],
            )
        seen.add(token)
        asked["ContinuationToken"] = token


def etag(key: str, reply: Mapping[str, Any]) -> str:
    """Return the ETag of a reply, without quotes.

    Raises:
        StorageError: it has none: the object could change unseen.
    """
    return str(required(key, reply, "ETag")).strip('"')


def required(key: str, reply: Mapping[str, Any], name: str) -> Any:
    """Return a field that every reply of an S3 store must have.

    Raises:
        StorageError: it is absent or empty.
    """
    value = reply.get(name)
    if value is None or value == "":
        raise StorageError(f"{key}: expected a reply with {name}, got one without", key=key, missing=name)
    return value


def check_received(key: str, received: int, expected: int) -> None:
    """Check the length of a body.

    Raises:
        BrokenBodyError: it is not the announced one.
    """
    if received != expected:
        raise BrokenBodyError(f"{key}: expected {expected} bytes, got {received}", key=key)


def _parse_content_range(key: str, value: str) -> tuple[int, int, int]:
    """Return (start, stop, size) of ``bytes 0-9/100``, half-open."""
    try:
        span, size = value.removeprefix("bytes ").split("/")
        first, last = span.split("-")
        return int(first), int(last) + 1, int(size)
    except ValueError as error:
        raise StorageError(f"{key}: expected a Content-Range like 'bytes 0-9/100', got {value!r:.80}") from error
