"""Objects beyond what one request of S3 takes: written, or copied inside the bucket, in parts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from structureflow.errors import ObjectChangedError, ObjectNotFoundError, StorageError, TransientStorageError
from structureflow.limits import MAX_S3_PARTS
from structureflow.storage._s3_replies import etag, part_count
from structureflow.storage._s3_writes import Body
from structureflow.storage.base import Checksum, ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Parts in flight at a time, each held in memory while it is written.
_AT_ONCE: Final = 4
#: Conditions of a PUT; of a multipart upload its last request carries them.
_CONDITIONS: Final = ("IfNoneMatch", "IfMatch")


class Parts:
    """Multipart uploads to one bucket.

    Args:
        bucket: its name.
        client: gives the SDK's client.
        call: does a request for a key, and turns the SDK's errors into ours.
        part_bytes: of a part, 5 MiB or more; of huge objects parts are as large as `MAX_S3_PARTS` of them demand.
    """

    def __init__(
        self,
        bucket: str,
        client: Callable[[], S3Client],
        call: Callable[[str, Callable[[], Any]], Any],
        part_bytes: int,
    ) -> None:
        self._bucket = bucket
        self._client = client
        self._call = call
        self._part_bytes = part_bytes

    def part_bytes(self, size_bytes: int) -> int:
        """Return how large the parts of an object are; the last one may be smaller."""
        return max(self._part_bytes, -(-size_bytes // MAX_S3_PARTS))

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """Return what is said of the bytes of an object; see `Storage.checksums`."""
        parts = part_count(info.etag)
        if info.checksums or not parts:
            return info.checksums
        try:
            reply = self._call(
                info.key,
                lambda: self._client().head_object(
                    Bucket=self._bucket, Key=info.key, PartNumber=1, IfMatch=f'"{info.etag}"'
                ),
            )
        except (TransientStorageError, ObjectChangedError, ObjectNotFoundError):
            raise
        except StorageError as error:
            _log.info("s3://%s/%s: the store tells no size of parts: %s", self._bucket, info.key, error)
            return ()
        part_bytes = reply["ContentLength"]
        # A store that does not know parts tells the size of the whole.
        if part_bytes < 1 or -(-info.size_bytes // part_bytes) != parts:
            return ()
        return (Checksum("md5-parts", info.etag, from_etag=True, part_bytes=part_bytes),)

    def etag_of(self, body: Body) -> str:
        """Return the ETag that the object gets when it is written here, without encryption by a key of KMS."""
        digests = [
            hashlib.md5(body.part(start, stop), usedforsecurity=False).digest()
            for start, stop in self._spans(body.size_bytes)
        ]
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"

    def upload(self, body: Body, key: str, extra: Mapping[str, Any]) -> ObjectInfo:
        """Write an object; `extra` is what ``put_object`` would get: content type and conditions."""
        conditions = {name: extra[name] for name in _CONDITIONS if name in extra}
        rest = {name: value for name, value in extra.items() if name not in _CONDITIONS}

        def send(upload_id: str, number: int, start: int, stop: int) -> Mapping[str, Any]:
            return self._client().upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body.part(start, stop)
            )

        return self._transfer(key, body.size_bytes, rest, conditions, send)

    def copy(self, source: ObjectInfo, target_key: str, content_type: str) -> ObjectInfo:
        """Copy an object inside the bucket; every part is of the object that `source` describes.

        Raises:
            ObjectChangedError: the source is another object by now.
        """

        def send(upload_id: str, number: int, start: int, stop: int) -> Mapping[str, Any]:
            reply = self._client().upload_part_copy(
                Bucket=self._bucket,
                Key=target_key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceIfMatch=f'"{source.etag}"',
                CopySourceRange=f"bytes={start}-{stop - 1}",
            )
            return reply["CopyPartResult"]

        return self._transfer(target_key, source.size_bytes, {"ContentType": content_type}, {}, send)

    def _spans(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        step = self.part_bytes(size_bytes)
        return ((start, min(start + step, size_bytes)) for start in range(0, size_bytes, step))

    def _transfer(
        self,
        key: str,
        size_bytes: int,
        rest: Mapping[str, Any],
        conditions: Mapping[str, Any],
        send: Callable[[str, int, int, int], Mapping[str, Any]],
    ) -> ObjectInfo:
        begun = self._call(key, lambda: self._client().create_multipart_upload(Bucket=self._bucket, Key=key, **rest))
        upload_id: str = begun["UploadId"]

        def one(item: tuple[int, tuple[int, int]]) -> Any:
            number, (start, stop) = item
            reply = self._call(key, lambda: send(upload_id, number, start, stop))
            # S3 wants back the checksums that the SDK had it compute.
            sums = {
                name: value for name, value in reply.items() if name.startswith("Checksum") and name != "ChecksumType"
            }
            return {"PartNumber": number, "ETag": f'"{etag(key, reply)}"', **sums}

        with self._aborting(key, upload_id):
            parts = _in_threads(one, list(enumerate(self._spans(size_bytes), start=1)))
            reply = self._call(
                key,
                lambda: self._client().complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **conditions
                ),
            )
        return ObjectInfo(key, size_bytes, etag(key, reply))

    @contextmanager
    def _aborting(self, key: str, upload_id: str) -> Iterator[None]:
        """Leave no parts behind on an error; those that remain all the same expire by the bucket's rule."""
        try:
            yield
        except BaseException:
            try:
                self._call(
                    key,
                    lambda: self._client().abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id),
                )
            except StorageError as error:
                _log.warning("%s/%s: parts of a broken upload remain: %s", self._bucket, key, error)
            raise


def _in_threads(one: Callable[[tuple[int, tuple[int, int]]], _T], items: list[tuple[int, tuple[int, int]]]) -> list[_T]:
    """Do all items, a few at a time; after an error no further one begins."""
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="parts")
    try:
        return list(pool.map(one, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
