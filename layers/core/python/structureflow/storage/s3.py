"""A bucket of Amazon S3 or of any store that speaks its protocol."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from structureflow import arguments
from structureflow.arguments import checked, instance, optional
from structureflow.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage._s3_errors import TRANSIENT_CODES, BrokenBodyError, call
from structureflow.storage._s3_parts import Parts
from structureflow.storage._s3_replies import (
    check_received,
    etag,
    listed_info,
    listing_pages,
    stored,
    whole_info,
)
from structureflow.storage._s3_writes import Body, BytesBody, ConditionalWrites, FileBody
from structureflow.storage.adapters import CHUNK_BYTES, check_conditions, check_if_match, check_size, writing
from structureflow.storage.base import (
    ByteRange,
    Checksum,
    ObjectInfo,
    Storage,
    StoredObject,
    Suffix,
    Upload,
    check_arguments,
    check_expiry,
    check_key,
    check_prefix,
    folder_end,
)
from structureflow.storage.s3_settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Keys of one DeleteObjects request, and of one page of a listing (both are S3's limits).
PAGE_KEYS: Final = 1000
#: Reads are tried so often when the body breaks off, which the SDK does not retry.
_BODY_ATTEMPTS: Final = 2


@check_arguments
class S3Storage(Storage):
    """Objects of one bucket. The client is built at first use, or is the one given.

    `conditional_writes` and `conditional_replacement` tell whether the store obeys ``If-None-Match`` and
    ``If-Match`` of a PUT. Where it does not, `put` with `if_absent` or `if_match` looks before it writes and
    reads back after: two writers that start within the same moment may then both succeed, and the last one's
    bytes stay.
    """

    @checked(bucket=arguments.text, settings=optional(instance(S3Settings, "S3Settings")))
    def __init__(self, bucket: str, *, client: S3Client | None = None, settings: S3Settings | None = None) -> None:
        self._bucket = bucket
        self._settings = settings or S3Settings()
        self._client = client
        self._lock = threading.RLock()
        self._parts = Parts(bucket, lambda: self.client, self._call, self._settings.part_bytes)
        self._writes = ConditionalWrites(
            self, self._send, self._believed, lambda body: self._parts.etag_of(body) if self._is_large(body) else None
        )

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
        """Whether the store obeys ``If-None-Match`` of a PUT; None while not yet known."""
        return self._writes.obeyed.get("IfNoneMatch")

    @property
    def conditional_replacement(self) -> bool | None:
        """Whether the store obeys ``If-Match`` of a PUT; None while not yet known."""
        return self._writes.obeyed.get("IfMatch")

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
            return stored(key, reply, data, byte_range)

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

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Download an object into a file; see `Storage.get_to_file`."""
        check_key(key)

        def read() -> ObjectInfo:
            reply = self._open(key, None, if_match)
            with closing(reply["Body"]) as body:
                info = whole_info(key, reply)
                check_size(key, info.size_bytes, max_bytes)
                with writing(path) as file:
                    received = 0
                    while chunk := body.read(CHUNK_BYTES):
                        file.write(chunk)
                        received += len(chunk)
                    check_received(key, received, info.size_bytes)
            return info

        return self._with_whole_body(key, read)

    def head(self, key: str) -> ObjectInfo:
        """Return what the store knows of an object; see `Storage.head`."""
        check_key(key)
        reply = self._call(key, lambda: self.client.head_object(Bucket=self._bucket, Key=key))
        return whole_info(key, reply)

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """Return what S3 says of an object's bytes; of a multipart upload it asks for the size of the parts."""
        return self._parts.checksums(info)

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
        after = start_after.encode() if start_after is not None else b""
        for reply in self._pages(prefix, start_after):
            for entry in reply.get("Contents", ()):
                info = listed_info(prefix, entry)
                if info.key.endswith("/") and info.size_bytes == 0:
                    continue
                # Some stores do not know StartAfter.
                if info.key.encode() > after:
                    yield info

    def folders(self, prefix: str, *, start_after: str | None = None) -> Iterator[str]:
        """Iterate over folders, a request per 1,000; see `Storage.folders`."""
        check_prefix(prefix)
        after = f"{prefix}{start_after}/".encode() if start_after is not None else b""
        for reply in self._pages(prefix, folder_end(prefix, start_after), Delimiter="/"):
            for entry in reply.get("CommonPrefixes", ()):
                folder = str(entry.get("Prefix", ""))
                # Some stores do not know StartAfter.
                if folder.encode() > after:
                    yield folder.removeprefix(prefix).removesuffix("/")

    def _pages(self, prefix: str, start_after: str | None, **more: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        def ask(arguments: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
            return self._call(prefix, lambda: self.client.list_objects_v2(Bucket=self._bucket, **arguments))

        more |= {} if start_after is None else {"StartAfter": start_after}
        return listing_pages(ask, {"Prefix": prefix, "MaxKeys": PAGE_KEYS, **more}, f"{self.uri}/{prefix}")

    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return a signed URL of the object; no request is made."""
        return self._signed("get_object", {"Bucket": self._bucket, "Key": check_key(key)}, check_expiry(expires_s))

    def _signed(self, method: str, wanted: dict[str, Any], expires_s: int) -> str:
        key = wanted["Key"]
        return self._call(key, lambda: self.client.generate_presigned_url(method, Params=wanted, ExpiresIn=expires_s))

    def upload_url(self, key: str, *, size_bytes: int, content_type: str, expires_s: int = 3600) -> Upload:
        """Return a signed URL that takes so many bytes of that type; no request is made."""
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Key": check_key(key), "ContentType": content_type}
        wanted["ContentLength"] = size_bytes
        url = self._signed("put_object", wanted, check_expiry(expires_s))
        return Upload(url, headers=(("Content-Type", content_type),))

    @property
    def url_origin(self) -> str:
        """Of the bucket; see `Storage.url_origin`."""
        url = urlsplit(self.presigned_url("x"))
        return f"{url.scheme}://{url.netloc}"

    # --- writing -------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object; see `Storage.put`."""
        check_key(key)
        body = BytesBody(bytes(data) if isinstance(data, memoryview) else data)
        return self._put(body, key, content_type, if_absent=if_absent, if_match=if_match)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object from a file, in parts where one request does not take it; see `Storage.put_file`."""
        check_key(key)
        return self._put(FileBody(Path(path), key), key, content_type, if_absent=if_absent, if_match=if_match)

    def _put(
        self, body: Body, key: str, content_type: str | None, *, if_absent: bool, if_match: str | None
    ) -> ObjectInfo:
        check_conditions(if_absent=if_absent, if_match=if_match)
        extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        if if_absent:
            return self._writes.create(body, key, extra)
        if if_match is not None:
            return self._writes.replace(body, key, extra, if_match)
        return self._send(body, key, extra)

    def _is_large(self, body: Body) -> bool:
        return body.size_bytes > self._settings.put_bytes

    def _send(self, body: Body, key: str, extra: dict[str, Any]) -> ObjectInfo:
        if self._is_large(body):
            if not self._is_aws():
                # Others obey the conditions of a PUT and not those of a multipart upload, or neither.
                self._look(key, extra)
            return self._parts.upload(body, key, extra)
        with ExitStack() as stack:
            sent: Any = body.open(stack)
            reply = self._call(key, lambda: self.client.put_object(Bucket=self._bucket, Key=key, Body=sent, **extra))
        return ObjectInfo(key, body.size_bytes, etag(key, reply))

    def _look(self, key: str, conditions: dict[str, Any]) -> None:
        """Refuse a write whose condition does not hold at this moment."""
        if "IfMatch" in conditions:
            check_if_match(self.head(key), conditions["IfMatch"].strip('"'))
        elif "IfNoneMatch" in conditions and self.exists(key):
            raise ObjectChangedError(f"{self.uri}/{key}: expected no object, got one", key=key)

    def _believed(self) -> bool | None:
        said = {"yes": True, "no": False, "auto": None}[self._settings.conditional_writes]
        return True if said is None and self._is_aws() else said

    def _is_aws(self) -> bool:
        host = urlsplit(self.client.meta.endpoint_url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

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
            kind = TransientStorageError if all(code in TRANSIENT_CODES for code in codes) else StorageError
            first = failed[0].get("Key", "")
            raise kind(
                f"{self.uri}: expected to delete {len(page)} objects, {len(failed)} remain ({', '.join(codes)}), "
                f"the first is {first}",
                key=first,
            )

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """Copy an object inside the bucket, in parts where one request does not do it; see `Storage.copy`."""
        check_key(source_key)
        check_key(target_key)
        # Only AWS is believed to obey the condition: moto and rclone copy whatever is there.
        looks = if_match is not None and not self._is_aws()
        if looks:
            check_if_match(self.head(source_key), if_match)
        extra: dict[str, Any] = {} if if_match is None else {"CopySourceIfMatch": f'"{if_match}"'}
        try:
            self._call(
                source_key,
                lambda: self.client.copy_object(
                    Bucket=self._bucket, Key=target_key, CopySource={"Bucket": self._bucket, "Key": source_key}, **extra
                ),
            )
        except StorageError as error:
            # What S3 says of a source that is too large; looking at the size first would be a request for every copy.
            if error.detail.get("code") not in ("InvalidRequest", "EntityTooLarge"):
                raise
            self._copy_in_parts(source_key, target_key, if_match, error)
        if looks:
            check_if_match(self.head(source_key), if_match)
        return self.head(target_key)

    def _copy_in_parts(self, source_key: str, target_key: str, if_match: str | None, refusal: StorageError) -> None:
        reply = self._call(source_key, lambda: self.client.head_object(Bucket=self._bucket, Key=source_key))
        source = whole_info(source_key, reply)
        check_if_match(source, if_match)
        if source.size_bytes <= self._settings.put_bytes:
            raise refusal
        self._parts.copy(source, target_key, reply.get("ContentType", "application/octet-stream"))

    # --- requests ------------------------------------------------------------------------------------

    def _open(self, key: str, byte_range: ByteRange | Suffix | None, if_match: str | None) -> GetObjectOutputTypeDef:
        request: dict[str, Any] = {}
        if isinstance(byte_range, ByteRange):
            request["Range"] = f"bytes={byte_range.start}-{byte_range.stop - 1}"
        elif isinstance(byte_range, Suffix):
            request["Range"] = f"bytes=-{byte_range.length}"
        if if_match is not None:
            request["IfMatch"] = f'"{if_match}"'
        reply = self._call(key, lambda: self.client.get_object(Bucket=self._bucket, Key=key, **request))
        try:
            # A store that does not know If-Match sends another object.
            if if_match is not None and etag(key, reply) != if_match:
                raise ObjectChangedError(f"{key}: expected ETag {if_match}, got {etag(key, reply)}", key=key)
        except StorageError:
            reply["Body"].close()
            raise
        return reply

    def _with_whole_body(self, key: str, read: Callable[[], _T]) -> _T:
        for _ in range(_BODY_ATTEMPTS - 1):
            try:
                return self._call(key, read, reading_body=True)
            except BrokenBodyError as error:
                _log.warning("%s/%s: %s; reading once more", self.uri, key, error)
        try:
            return self._call(key, read, reading_body=True)
        except BrokenBodyError as error:
            # Callers, and the state machine's retries, know errors by the names in `structureflow.errors`.
            raise TransientStorageError(error.message, **error.detail) from error

    def _call(self, key: str, request: Callable[[], _T], *, reading_body: bool = False) -> _T:
        return call(self.uri, key, request, reading_body=reading_body)
