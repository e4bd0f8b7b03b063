"""Objects of several parts: beyond what one request of S3 takes, or put together from other objects of the bucket."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from structureflow.errors import ObjectChangedError, ObjectNotFoundError, StorageError, TransientStorageError
from structureflow.limits import MAX_S3_PARTS, MAX_S3_PUT_BYTES, MIN_S3_PART_BYTES
from structureflow.storage._s3_replies import etag, part_count
from structureflow.storage._s3_writes import Body
from structureflow.storage.base import Checksum, ObjectInfo
from structureflow.storage.pieces import ObjectPart, Piece

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_R = TypeVar("_R")

#: Parts in flight at a time, each held in memory while it is written.
_AT_ONCE: Final = 4
#: Parts that are copied: nothing of them is held, and each takes S3 a tenth of a second or more.
_COPIES_AT_ONCE: Final = 16
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

        def send(upload_id: str, number: int, span: tuple[int, int]) -> Mapping[str, Any]:
            return self._client().upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body.part(*span)
            )

        reply = self._transfer(key, list(self._spans(body.size_bytes)), rest, conditions, send)
        return ObjectInfo(key, body.size_bytes, etag(key, reply))

    def copy(self, source: ObjectInfo, target_key: str, content_type: str) -> ObjectInfo:
        """Copy an object inside the bucket; every part is of the object that `source` describes.

        Raises:
            ObjectChangedError: the source is another object by now.
        """

        def send(upload_id: str, number: int, span: tuple[int, int]) -> Mapping[str, Any]:
            return self._copied(target_key, upload_id, number, ObjectPart(source.key, source.etag, *span))

        spans = list(self._spans(source.size_bytes))
        reply = self._transfer(target_key, spans, {"ContentType": content_type}, {}, send)
        return ObjectInfo(target_key, source.size_bytes, etag(target_key, reply))

    def assemble(
        self, key: str, pieces: Sequence[Piece], extra: Mapping[str, Any], read: Callable[[Sequence[Piece]], bytes]
    ) -> ObjectInfo:
        """Write an object of `pieces`: long parts of objects are copied, what is too short for that is read.

        Args:
            key: the object.
            pieces: in order.
            extra: as for `upload`.
            read: returns the bytes of a few pieces.

        Raises:
            ObjectChangedError: an object of which a part is wanted is another one by now; or a condition of `extra`
                does not hold.
        """
        conditions = {name: extra[name] for name in _CONDITIONS if name in extra}
        rest = {name: value for name, value in extra.items() if name not in _CONDITIONS}

        def send(upload_id: str, number: int, group: Sequence[Piece]) -> Mapping[str, Any]:
            only = group[0]
            if len(group) == 1 and isinstance(only, ObjectPart) and only.size_bytes >= MIN_S3_PART_BYTES:
                return self._copied(key, upload_id, number, only)
            body = read(group)
            return self._client().upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            )

        groups = grouped(pieces, MIN_S3_PART_BYTES, MAX_S3_PUT_BYTES)
        reply = self._transfer(key, groups, rest, conditions, send, at_once=_COPIES_AT_ONCE)
        return ObjectInfo(key, sum(map(size_of, pieces)), etag(key, reply))

    def _copied(self, key: str, upload_id: str, number: int, part: ObjectPart) -> Mapping[str, Any]:
        reply = self._client().upload_part_copy(
            Bucket=self._bucket,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self._bucket, "Key": part.key},
            CopySourceIfMatch=f'"{part.etag}"',
            CopySourceRange=f"bytes={part.start}-{part.stop - 1}",
        )
        return reply["CopyPartResult"]

    def _spans(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        step = self.part_bytes(size_bytes)
        return ((start, min(start + step, size_bytes)) for start in range(0, size_bytes, step))

    def _transfer(
        self,
        key: str,
        items: Sequence[_T],
        rest: Mapping[str, Any],
        conditions: Mapping[str, Any],
        send: Callable[[str, int, _T], Mapping[str, Any]],
        *,
        at_once: int = _AT_ONCE,
    ) -> Mapping[str, Any]:
        """Write an object whose parts are what `send` makes of `items`; return the reply to the last request."""
        begun = self._call(key, lambda: self._client().create_multipart_upload(Bucket=self._bucket, Key=key, **rest))
        upload_id: str = begun["UploadId"]

        def one(numbered: tuple[int, _T]) -> Any:
            number, item = numbered
            reply = self._call(key, lambda: send(upload_id, number, item))
            # S3 wants back the checksums that the SDK had it compute.
            sums = {
                name: value for name, value in reply.items() if name.startswith("Checksum") and name != "ChecksumType"
            }
            return {"PartNumber": number, "ETag": f'"{etag(key, reply)}"', **sums}

        with self._aborting(key, upload_id):
            parts = _in_threads(one, list(enumerate(items, start=1)), at_once)
            reply: Mapping[str, Any] = self._call(
                key,
                lambda: self._client().complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **conditions
                ),
            )
        return reply

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


def size_of(piece: Piece) -> int:
    """Return how many bytes a piece has."""
    return len(piece) if isinstance(piece, bytes) else piece.size_bytes


def grouped(pieces: Sequence[Piece], least_bytes: int, most_bytes: int) -> list[list[Piece]]:
    """Cut pieces into the parts of an upload, each of `least_bytes` or more but for the last one.

    Parts of objects that are long enough stand alone, so that they can be copied, up to `most_bytes`. All others are
    put together, with as little of the next one as it takes to reach `least_bytes`.
    """
    groups: list[list[Piece]] = []
    waiting: list[Piece] = []
    held = 0
    left = deque(piece for piece in pieces if size_of(piece))
    while left:
        piece = left.popleft()
        if not waiting and isinstance(piece, ObjectPart) and piece.size_bytes >= least_bytes:
            taken, rest = _split(piece, most_bytes)
            groups.append([taken])
        else:
            taken, rest = _split(piece, least_bytes - held)
            waiting.append(taken)
            held += size_of(taken)
            if held == least_bytes:
                groups.append(waiting)
                waiting, held = [], 0
        if rest is not None:
            left.appendleft(rest)
    return [*groups, waiting] if waiting else groups


def _split(piece: Piece, size_bytes: int) -> tuple[Piece, Piece | None]:
    """Return the first `size_bytes` of a piece, and what is left, if anything is."""
    if size_of(piece) <= size_bytes:
        return piece, None
    if isinstance(piece, bytes):
        return piece[:size_bytes], piece[size_bytes:]
    middle = piece.start + size_bytes
    return replace(piece, stop=middle), replace(piece, start=middle)


def _in_threads(one: Callable[[tuple[int, _T]], _R], items: list[tuple[int, _T]], at_once: int) -> list[_R]:
    """Do all items, a few at a time; after an error no further one begins."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="parts")
    try:
        return list(pool.map(one, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
