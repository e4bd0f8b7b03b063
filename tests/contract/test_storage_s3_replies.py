"""Replies of stores: validators, listings, and what vouches for a download."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from structureflow.errors import (
    StorageError,
    TransientStorageError,
)
from structureflow.storage.base import ByteRange, ObjectInfo
from structureflow.storage.verified import fetch_verified
from tests.contract.fake_s3 import DATA, FakeS3, Handler, serving


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with serving() as fake:
        yield fake


@pytest.mark.parametrize("missing", ["ETag", "Last-Modified"])
def test_replies_without_a_validator_are_refused(fake: FakeS3, tmp_path: Path, missing: str) -> None:
    def script(handler: Handler) -> bool:
        headers = {"ETag": '"e"', "Last-Modified": "Wed, 21 Oct 2025 07:28:00 GMT"}
        del headers[missing]
        handler.answer(200, b"bytes", **headers)
        return True

    fake.script = script
    storage = fake.storage()
    name = missing.replace("-", "")
    for read in (
        lambda: storage.get("k"),
        lambda: storage.get("k", byte_range=ByteRange(0, 2)),
        lambda: storage.head("k"),
        lambda: storage.get_to_file("k", tmp_path / "k"),
    ):
        with pytest.raises(StorageError, match=name) as caught:
            read()
        assert not caught.value.transient
    assert list(tmp_path.iterdir()) == []


def test_a_write_whose_reply_has_no_etag_is_refused(fake: FakeS3) -> None:
    def script(handler: Handler) -> bool:
        handler.answer(200, b"")
        return True

    fake.script = script
    with pytest.raises(StorageError, match="ETag"):
        fake.storage().put("k", b"x")


def _listing(*keys: str, token: str | None, truncated: bool = True, entry: str = "") -> bytes:
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size>"
        + (entry or '<ETag>"e"</ETag><LastModified>2025-10-21T07:28:00.000Z</LastModified>')
        + "</Contents>"
        for key in keys
    )
    following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f"<ListBucketResult><IsTruncated>{str(truncated).lower()}</IsTruncated>{following}{contents}</ListBucketResult>"
    ).encode()


@pytest.mark.parametrize("token", ["again", None])
def test_a_listing_that_cannot_go_on_is_an_error(fake: FakeS3, token: str | None) -> None:
    """A token that comes again would list for ever, one that is absent would lose keys in silence."""

    def script(handler: Handler) -> bool:
        handler.answer(200, _listing("a/1", "a/2", token=token))
        return True

    fake.script = script
    seen: list[ObjectInfo] = []
    with pytest.raises(StorageError, match="continuation token"):
        seen.extend(fake.storage().list("a/"))
    # What came before the error was handed on.
    assert [info.key for info in seen] == ["a/1", "a/2"] * (2 if token else 1)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ('<ETag>"e"</ETag>', "LastModified"),
        ("<LastModified>2025-10-21T07:28:00.000Z</LastModified>", "ETag"),
    ],
)
def test_listed_objects_without_a_validator_are_refused(fake: FakeS3, entry: str, name: str) -> None:
    def script(handler: Handler) -> bool:
        handler.answer(200, _listing("a/1", token=None, truncated=False, entry=entry))
        return True

    fake.script = script
    with pytest.raises(StorageError, match=name):
        list(fake.storage().list("a/"))


def _answering(**headers: str) -> Callable[[Handler], bool]:
    def script(handler: Handler) -> bool:
        if handler.command == "GET":
            handler.answer(200, DATA, Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT", **headers)
            return True
        return False

    return script


MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
CRC32 = base64.b64encode(zlib.crc32(DATA).to_bytes(4)).decode()


@pytest.mark.parametrize(
    ("headers", "by"),
    [
        ({"ETag": f'"{MD5}"'}, "etag"),
        ({"ETag": f'"{MD5}"', "x_amz_server_side_encryption": "AES256"}, "etag"),
        # Under a key of KMS an ETag looks like an MD5 and is none.
        ({"ETag": f'"{MD5[::-1]}"', "x_amz_server_side_encryption": "aws:kms"}, "two reads"),
        (
            {
                "ETag": f'"{MD5[::-1]}"',
                "x_amz_server_side_encryption": "aws:kms",
                "x_amz_checksum_crc32": CRC32,
                "x_amz_checksum_type": "FULL_OBJECT",
            },
            "checksum",
        ),
        (
            {"ETag": '"opaque"', "x_amz_checksum_sha256": base64.b64encode(hashlib.sha256(DATA).digest()).decode()},
            "checksum",
        ),
        # A checksum of the parts' checksums says nothing of the bytes as they come.
        ({"ETag": '"opaque"', "x_amz_checksum_crc32": CRC32, "x_amz_checksum_type": "COMPOSITE"}, "two reads"),
        # S3's own default, which only the SDK with its C library computes.
        ({"ETag": '"opaque"', "x_amz_checksum_crc64nvme": "PrbuOj827N0="}, "two reads"),
    ],
)
@pytest.mark.parametrize("validating", ["when_required", "when_supported"])
def test_what_vouches_for_a_download(
    fake: FakeS3, tmp_path: Path, headers: dict[str, str], by: str, validating: str
) -> None:
    fake.script = _answering(**headers)
    storage = fake.storage(response_checksums=validating)
    verified = fetch_verified(storage, "k", tmp_path / "k")
    assert verified.verified_by == by
    assert verified.sha256 == hashlib.sha256(DATA).hexdigest()
    assert fake.count("GET") == (2 if by == "two reads" else 1)


def test_a_checksum_that_contradicts_is_never_believed(fake: FakeS3, tmp_path: Path) -> None:
    fake.script = _answering(ETag='"opaque"', x_amz_checksum_crc32="AAAAAA==", x_amz_checksum_type="FULL_OBJECT")
    with pytest.raises(TransientStorageError):
        fetch_verified(fake.storage(), "k", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_that_is_none_is_an_error(fake: FakeS3, tmp_path: Path) -> None:
    fake.script = _answering(ETag='"opaque"', x_amz_checksum_crc32="?")
    with pytest.raises(StorageError, match="base64"):
        fetch_verified(fake.storage(), "k", tmp_path / "k")


@pytest.mark.parametrize(
    ("part", "by"), [(90_000, "etag"), (70_000, "two reads"), (None, "two reads"), (0, "two reads")]
)
def test_multipart_etags_are_checked_by_the_size_of_a_part(
    fake: FakeS3, tmp_path: Path, part: int | None, by: str
) -> None:
    """Parts of 90,000 bytes; other sizes are of stores that tell the whole object's, or refuse."""
    sums = [hashlib.md5(DATA[start : start + 90_000], usedforsecurity=False).digest() for start in (0, 90_000, 180_000)]
    tag = f'"{hashlib.md5(b"".join(sums), usedforsecurity=False).hexdigest()}-3"'
    tagged = _answering(ETag=tag)

    def script(handler: Handler) -> bool:
        if handler.command == "HEAD" and "partNumber=1" in handler.path:
            if part is None:
                handler.refuse(400, "NotSupported")
            else:
                handler.answer(206, b"", Content_Length=str(part or len(DATA)), ETag=tag)
            return True
        return tagged(handler)

    fake.script = script
    assert fetch_verified(fake.storage(), "k", tmp_path / "k").verified_by == by
    assert fake.count("HEAD") == (1 if by == "etag" else 2)
