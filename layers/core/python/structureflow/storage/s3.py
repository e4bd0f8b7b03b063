"""A bucket of Amazon S3 or of any store that speaks its protocol."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeVar
from urllib.parse import urlsplit

from structureflow import keys as layout
from structureflow.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage._files import CHUNK_BYTES, check_if_match, check_size, slice_range, writing
from structureflow.storage.base import (
    ByteRange,
    ObjectInfo,
    Storage,
    StoredObject,
    Suffix,
    check_expiry,
    check_key,
    check_prefix,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

ChecksumMode = Literal["when_supported", "when_required"]
#: Keys of one DeleteObjects request, and of one page of a listing (both are S3's limits).
PAGE_KEYS: Final = 1000
#: Reads are tried so often when the body breaks off, which the SDK does not retry.
_BODY_ATTEMPTS: Final = 2
#: Creations are tried so often when the store says that another one is in progress (HTTP 409).
_CONFLICT_ATTEMPTS: Final = 3

_TRANSIENT_CODES: Final = frozenset(
    {
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "InternalError",
        "OperationAborted",
        "ConditionalRequestConflict",
        "BandwidthLimitExceeded",
    }
)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How a bucket is reached. Nothing here is read from the environment.

    Attributes:
        endpoint_url: of an S3-compatible store; None for AWS.
        region: of the bucket; None leaves it to the SDK.
        addressing_style: None means ``path`` with an `endpoint_url`, else ``auto``.
        request_checksums, response_checksums: None means ``when_required`` with an `endpoint_url` (many
            stores refuse checksum trailers, or answer ranges with the whole object's checksum), else
            ``when_supported``.
        access_key_id, secret_access_key, session_token: None leaves credentials to the SDK's own chain.
        max_connections: of the connection pool; callers get no more requests in flight than this.
        connect_timeout_s, read_timeout_s: of one try.
        max_attempts: tries of one request in all, by the SDK, with backoff.
        conditional_writes: whether the store obeys ``If-None-Match``; ``auto`` believes AWS and tests others
            once, before the first conditional write.
    """

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] | None = None
    request_checksums: ChecksumMode | None = None
    response_checksums: ChecksumMode | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    max_connections: int = 64
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    max_attempts: int = 4
    conditional_writes: Literal["auto", "yes", "no"] = "auto"

    def build_client(self) -> S3Client:
        """Build a new client with these settings."""
        import boto3
        from botocore.config import Config

        custom = self.endpoint_url is not None
        default_checksums: ChecksumMode = "when_required" if custom else "when_supported"
        config = Config(
            region_name=self.region,
            connect_timeout=self.connect_timeout_s,
            read_timeout=self.read_timeout_s,
            max_pool_connections=self.max_connections,
            retries={"mode": "standard", "total_max_attempts": self.max_attempts},
            signature_version="s3v4",
            s3={"addressing_style": self.addressing_style or ("path" if custom else "auto")},
            request_checksum_calculation=self.request_checksums or default_checksums,
            response_checksum_validation=self.response_checksums or default_checksums,
        )
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=self.session_token,
            config=config,
        )


class S3Storage(Storage):
    """Objects of one bucket. The client is built at first use, or is the one given.

    `conditional_writes` tells whether the store obeys ``If-None-Match``: True, False, or None while not yet
    known. Where it does not, `put(if_absent=True)` looks before it writes and reads back after: two writers
    that start within the same moment may then both succeed, and the last one's bytes stay.
    """

    def __init__(self, bucket: str, *, client: S3Client | None = None, settings: S3Settings | None = None) -> None:
        self._bucket = bucket
        self._settings = settings or S3Settings()
        self._client = client
        self._lock = threading.RLock()
        self._conditional = {"yes": True, "no": False, "auto": None}[self._settings.conditional_writes]

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._bucket

    @property
    def uri(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self._bucket}"

    @property
    def client(self) -> S3Client:
        """The SDK's client; building it does no request."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._settings.build_client()
        return self._client

    @property
    def conditional_writes(self) -> bool | None:
        """Whether the store obeys conditional writes; None while not yet known."""
        return self._conditional

    # --- reading -------------------------------------------------------------------------------------

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it; see `Storage.get`. A body that breaks off is asked for once more."""
        check_key(key)

        def read() -> StoredObject:
            reply = self._open(key, byte_range, if_match)
            with closing(reply["Body"]) as body:
                data = body.read()
            return _stored(key, reply, data, byte_range)

        try:
            return self._with_whole_body(key, read)
        except RangeNotSatisfiableError:
            # S3 answers 416 to any range of an empty object, rclone to a suffix longer than the object.
            if not isinstance(byte_range, Suffix):
                raise
            info = self.head(key)
            check_if_match(info, if_match)
            if info.size_bytes > byte_range.length:
                raise
            return self.get(key, if_match=info.etag)

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Download an object into a file; see `Storage.get_to_file`."""
        check_key(key)

        def read() -> ObjectInfo:
            reply = self._open(key, None, None)
            with closing(reply["Body"]) as body:
                info = _whole_info(key, reply)
                check_size(key, info.size_bytes, max_bytes)
                with writing(path) as file:
                    received = 0
                    while chunk := body.read(CHUNK_BYTES):
                        file.write(chunk)
                        received += len(chunk)
                    _check_received(key, received, info.size_bytes)
            return info

        return self._with_whole_body(key, read)

    def head(self, key: str) -> ObjectInfo:
        """Return what the store knows of an object; see `Storage.head`."""
        check_key(key)
        reply = self._call(key, lambda: self.client.head_object(Bucket=self._bucket, Key=key))
        return ObjectInfo(key, reply["ContentLength"], _unquoted(reply["ETag"]), reply["LastModified"])

    def exists(self, key: str) -> bool:
        """Tell whether an object is there. A missing bucket has no objects either."""
        try:
            self.head(key)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Iterate over objects, a request per 1,000; see `Storage.list`."""
        check_prefix(prefix)
        return self._iterate(prefix, start_after)

    def _iterate(self, prefix: str, start_after: str | None) -> Iterator[ObjectInfo]:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": PAGE_KEYS}
        if start_after is not None:
            arguments["StartAfter"] = start_after
        after = start_after.encode() if start_after is not None else b""
        while True:
            reply = self._call(prefix, lambda: self.client.list_objects_v2(**arguments))
            for entry in reply.get("Contents", ()):
                key = entry["Key"]
                if key.endswith("/") and entry["Size"] == 0:
                    continue
                # Some stores do not know StartAfter.
                if key.encode() > after:
                    yield ObjectInfo(key, entry["Size"], _unquoted(entry.get("ETag", "")), entry["LastModified"])
            token = reply.get("NextContinuationToken")
            if not reply.get("IsTruncated") or not token:
                return
            arguments["ContinuationToken"] = token

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return a signed URL of the object; no request is made."""
        check_key(key)
        check_expiry(expires_s)
        return self._call(
            key,
            lambda: self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=expires_s
            ),
        )

    # --- writing -------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Write an object; see `Storage.put`."""
        check_key(key)
        body = bytes(data) if isinstance(data, memoryview) else data
        return self._put(_BytesSource(body), key, content_type, if_absent)

    def put_file(self, key: str, path: Path, *, content_type: str | None = None, if_absent: bool = False) -> ObjectInfo:
        """Write an object from a file of up to 5 GB in one request; see `Storage.put_file`."""
        check_key(key)
        return self._put(_FileSource(path, key), key, content_type, if_absent)

    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects, a request per 1,000; see `Storage.delete`."""
        remaining = iter(keys)
        count = 0
        while page := [check_key(key) for key in islice(remaining, PAGE_KEYS)]:
            self._delete_page(page)
            count += len(page)
        return count

    def _delete_page(self, page: Sequence[str]) -> None:
        reply = self._call(
            page[0],
            lambda: self.client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in page], "Quiet": True}
            ),
        )
        failed = [entry for entry in reply.get("Errors", ()) if entry.get("Code") != "NoSuchKey"]
        if failed:
            codes = sorted({entry.get("Code", "") for entry in failed})
            kind = TransientStorageError if all(code in _TRANSIENT_CODES for code in codes) else StorageError
            first = failed[0].get("Key", "")
            raise kind(
                f"{self.uri}: expected to delete {len(page)} objects, {len(failed)} remain ({', '.join(codes)}), "
                f"the first is {first}",
                key=first,
            )

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy an object of up to 5 GB inside the bucket; see `Storage.copy`."""
        check_key(source_key)
        check_key(target_key)
        self._call(
            source_key,
            lambda: self.client.copy_object(
                Bucket=self._bucket, Key=target_key, CopySource={"Bucket": self._bucket, "Key": source_key}
            ),
        )
        return self.head(target_key)

    # --- conditional creation ------------------------------------------------------------------------

    def _put(
        self, source: _BytesSource | _FileSource, key: str, content_type: str | None, if_absent: bool
    ) -> ObjectInfo:
        extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        if not if_absent:
            return self._send(source, key, extra)
        if not self._knows_conditional_writes():
            return self._put_with_read_back(source, key, extra)
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                return self._send(source, key, {**extra, "IfNoneMatch": "*"})
            except ObjectChangedError as error:
                # The SDK repeats a PUT whose reply was lost and is then told that the object exists: its own.
                return self._same_or_conflict(source, key, error)
            except TransientStorageError as error:
                if error.detail.get("code") != "ConditionalRequestConflict" or attempt == _CONFLICT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _send(self, source: _BytesSource | _FileSource, key: str, extra: dict[str, Any]) -> ObjectInfo:
        with ExitStack() as stack:
            body: Any = source.open(stack)
            reply = self._call(key, lambda: self.client.put_object(Bucket=self._bucket, Key=key, Body=body, **extra))
        return ObjectInfo(key, source.size_bytes, _unquoted(reply.get("ETag", "")))

    def _put_with_read_back(self, source: _BytesSource | _FileSource, key: str, extra: dict[str, Any]) -> ObjectInfo:
        if self.exists(key):
            return self._same_or_conflict(source, key, None)
        self._send(source, key, extra)
        return self._same_or_conflict(source, key, None)

    def _same_or_conflict(self, source: _BytesSource | _FileSource, key: str, cause: StorageError | None) -> ObjectInfo:
        """Return the object that is there if it has the bytes of `source`, else raise `ObjectExistsError`."""
        try:
            present = self.head(key)
        except ObjectNotFoundError as error:
            raise TransientStorageError(
                f"{self.uri}/{key}: refused as existing, then gone; deleted by another at the same moment",
                key=key,
            ) from error
        if present.size_bytes == source.size_bytes:
            if present.etag == source.md5():
                return present
            # With other encryption than S3's own, an ETag is no MD5.
            found = self.get(key)
            if source.equals(found.data):
                return found.info
        raise ObjectExistsError(f"{self.uri}/{key}: exists with other bytes", key=key) from cause

    def _knows_conditional_writes(self) -> bool:
        if self._conditional is None:
            with self._lock:
                if self._conditional is None:
                    self._conditional = self._is_aws() or self._probe()
                    if not self._conditional:
                        _log.warning(
                            "%s: the store does not obey conditional writes (If-None-Match); looking before and "
                            "reading back after each one, which leaves a moment in which two writers both succeed",
                            self.uri,
                        )
        return self._conditional

    def _is_aws(self) -> bool:
        host = urlsplit(self.client.meta.endpoint_url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def _probe(self) -> bool:
        """Create an object twice; a store that lets the second one pass does not know the condition."""
        key = layout.storage_probe(secrets.token_hex(8))
        try:
            self._send(_BytesSource(b"first"), key, {"IfNoneMatch": "*"})
            try:
                self._send(_BytesSource(b"second"), key, {"IfNoneMatch": "*"})
            except ObjectChangedError:
                return True
            return False
        except TransientStorageError:
            raise
        except StorageError as error:
            # 501 NotImplemented from stores that refuse the header, or 403 below a narrow policy.
            _log.warning("%s: cannot find out whether conditional writes are obeyed: %s", self.uri, error)
            return False
        finally:
            self._forget_probe(key)

    def _forget_probe(self, key: str) -> None:
        try:
            self._delete_page([key])
        except StorageError as error:
            _log.warning("%s: the probe object %s remains: %s", self.uri, key, error)

    # --- requests ------------------------------------------------------------------------------------

    def _open(self, key: str, byte_range: ByteRange | Suffix | None, if_match: str | None) -> GetObjectOutputTypeDef:
        arguments: dict[str, Any] = {}
        if isinstance(byte_range, ByteRange):
            arguments["Range"] = f"bytes={byte_range.start}-{byte_range.stop - 1}"
        elif isinstance(byte_range, Suffix):
            arguments["Range"] = f"bytes=-{byte_range.length}"
        if if_match is not None:
            arguments["IfMatch"] = f'"{if_match}"'
        reply = self._call(key, lambda: self.client.get_object(Bucket=self._bucket, Key=key, **arguments))
        if if_match is not None and _unquoted(reply["ETag"]) != if_match:
            # A store that does not know If-Match.
            reply["Body"].close()
            raise ObjectChangedError(f"{key}: expected ETag {if_match}, got {_unquoted(reply['ETag'])}", key=key)
        return reply

    def _with_whole_body(self, key: str, read: Callable[[], _T]) -> _T:
        for _ in range(_BODY_ATTEMPTS - 1):
            try:
                return self._call(key, read, reading_body=True)
            except _BrokenBodyError as error:
                _log.warning("%s/%s: %s; reading once more", self.uri, key, error)
        return self._call(key, read, reading_body=True)

    def _call(self, key: str, request: Callable[[], _T], *, reading_body: bool = False) -> _T:
        """Do a request; every error of the SDK becomes one of ours here and nowhere else."""
        from botocore import exceptions as sdk
        from urllib3.exceptions import HTTPError

        try:
            return request()
        except sdk.ClientError as error:
            raise self._refused(key, error) from error
        except (
            sdk.HTTPClientError,
            sdk.ConnectionError,
            sdk.IncompleteReadError,
            sdk.FlexibleChecksumError,
            sdk.ChecksumError,
            HTTPError,
        ) as error:
            if reading_body:
                raise _BrokenBodyError(f"{self.uri}/{key}: the reply broke off: {error}", key=key) from error
            raise TransientStorageError(f"{self.uri}/{key}: no answer: {error}", key=key) from error
        except sdk.BotoCoreError as error:
            raise StorageError(f"{self.uri}/{key}: {error}", key=key) from error

    def _refused(self, key: str, error: Any) -> StorageError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = str(error.response.get("Error", {}).get("Message", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        where = f"{self.uri}/{key}"
        if code == "NoSuchBucket":
            return StorageError(f"{self.uri}: no such bucket", key=key, code=code)
        if code in ("NoSuchKey", "404", "NotFound") or status == 404:
            return ObjectNotFoundError(f"{where}: no such object", key=key)
        if code in ("PreconditionFailed", "412") or status == 412:
            return ObjectChangedError(f"{where}: a condition of the request does not hold", key=key)
        if code in ("InvalidRange", "416") or status == 416:
            return RangeNotSatisfiableError(f"{where}: the range starts at or past the end", key=key)
        # 501 NotImplemented is what stores answer to a header they refuse: no later try helps.
        if code in _TRANSIENT_CODES or status in (409, 429) or (status >= 500 and status != 501):
            return TransientStorageError(f"{where}: {code or status} {message}".rstrip(), key=key, code=code)
        return StorageError(f"{where}: {code or status} {message}".rstrip(), key=key, code=code)


class _BrokenBodyError(TransientStorageError):
    """The reply started well and broke off; told apart because a read may at once be repeated."""

    @property
    def code(self) -> str:
        return TransientStorageError.__name__


class _BytesSource:
    """Bytes to be written."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.size_bytes = len(data)

    def open(self, stack: ExitStack) -> bytes | bytearray:  # noqa: ARG002 - a file needs it
        return self._data

    def md5(self) -> str:
        return hashlib.md5(self._data, usedforsecurity=False).hexdigest()

    def equals(self, other: bytes) -> bool:
        return self._data == other


class _FileSource:
    """A file to be written."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        try:
            self.size_bytes = path.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}", key=key) from error

    def open(self, stack: ExitStack) -> BinaryIO:
        try:
            return stack.enter_context(self._path.open("rb"))
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error}", path=str(self._path)) from error

    def md5(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def equals(self, other: bytes) -> bool:
        return self._path.read_bytes() == other


def _stored(
    key: str, reply: GetObjectOutputTypeDef, data: bytes, byte_range: ByteRange | Suffix | None
) -> StoredObject:
    content_range = str(reply.get("ContentRange", ""))
    if byte_range is None or not content_range:
        info = _whole_info(key, reply)
        _check_received(key, len(data), info.size_bytes)
        # A store that does not know ranges sends the whole object.
        start, stop = slice_range(info, byte_range)
        return StoredObject(data[start:stop] if byte_range else data, info, start)
    start, stop, size = _parse_content_range(key, content_range)
    _check_received(key, len(data), stop - start)
    info = ObjectInfo(key, size, _unquoted(reply["ETag"]), reply["LastModified"])
    if (start, stop) != slice_range(info, byte_range):
        raise StorageError(f"{key}: expected {byte_range}, got {content_range!r}", key=key)
    return StoredObject(data, info, start)


def _whole_info(key: str, reply: GetObjectOutputTypeDef) -> ObjectInfo:
    return ObjectInfo(key, reply["ContentLength"], _unquoted(reply["ETag"]), reply["LastModified"])


def _check_received(key: str, received: int, expected: int) -> None:
    if received != expected:
        raise _BrokenBodyError(f"{key}: expected {expected} bytes, got {received}", key=key)


def _parse_content_range(key: str, value: str) -> tuple[int, int, int]:
    """Return (start, stop, size) of ``bytes 0-9/100``, half-open."""
    try:
        span, size = value.removeprefix("bytes ").split("/")
        first, last = span.split("-")
        return int(first), int(last) + 1, int(size)
    except ValueError as error:
        raise StorageError(f"{key}: expected a Content-Range like 'bytes 0-9/100', got {value!r:.80}") from error


def _unquoted(etag: str) -> str:
    return etag.strip('"')
