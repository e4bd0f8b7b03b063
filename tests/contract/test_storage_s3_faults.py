"""The S3 adapter against a small S3 server on loopback that breaks off, loses replies and answers oddly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from structureflow.errors import (
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.base import ByteRange
from tests.contract.fake_s3 import DATA, FakeS3, Handler, serving


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with serving() as fake:
        yield fake


def _truncating(times: int) -> Callable[[Handler], bool]:
    left = [times]

    def script(handler: Handler) -> bool:
        if handler.command != "GET" or left[0] == 0:
            return False
        left[0] -= 1
        data = handler.fake.objects[handler.key]
        handler.answer(
            200, data[:-1000], Content_Length=str(len(data)), ETag='"e"', Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT"
        )
        handler.close_connection = True
        return True

    return script


def test_a_body_that_breaks_off_is_read_once_more(fake: FakeS3, tmp_path: Path) -> None:
    fake.objects["k"] = DATA
    fake.script = _truncating(1)
    assert fake.storage().get("k").data == DATA
    assert fake.count("GET") == 2
    fake.script = _truncating(1)
    fake.storage().get_to_file("k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == DATA


def test_a_body_that_always_breaks_off_is_transient(fake: FakeS3, tmp_path: Path) -> None:
    fake.objects["k"] = DATA
    fake.script = _truncating(100)
    with pytest.raises(TransientStorageError) as caught:
        fake.storage().get("k")
    # Lambda reports the name of the class, and the state machine retries by it.
    assert type(caught.value) is TransientStorageError
    with pytest.raises(TransientStorageError):
        fake.storage().get_to_file("k", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_is_another_one_is_refused(fake: FakeS3) -> None:
    def script(handler: Handler) -> bool:
        handler.answer(
            206,
            DATA[5:15],
            Content_Range=f"bytes 5-14/{len(DATA)}",
            ETag='"e"',
            Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT",
        )
        return True

    fake.script = script
    with pytest.raises(StorageError, match="5-14"):
        fake.storage().get("k", byte_range=ByteRange(0, 10))
    assert fake.storage().get("k", byte_range=ByteRange(5, 15)).data == DATA[5:15]


def test_a_store_without_ranges(fake: FakeS3) -> None:
    fake.objects["k"] = DATA
    found = fake.storage().get("k", byte_range=ByteRange(10, 30))
    assert (found.data, found.start, found.info.size_bytes) == (DATA[10:30], 10, len(DATA))


def _losing_the_first_reply_to_put(key: str = "k", *, instead: bytes | None = None) -> Callable[[Handler], bool]:
    lost: list[bool] = []

    def script(handler: Handler) -> bool:
        if handler.command != "PUT" or handler.key != key or lost:
            return False
        lost.append(True)
        handler.fake.objects[key] = handler.body if instead is None else instead
        handler.break_off()
        return True

    return script


def test_a_lost_reply_to_a_creation_counts_as_success(fake: FakeS3) -> None:
    """The SDK repeats the PUT and is told that the object exists: its own."""
    fake.script = _losing_the_first_reply_to_put()
    info = fake.storage(conditional_writes="yes").put("k", b"mine", if_absent=True)
    assert fake.objects["k"] == b"mine"
    assert info.etag == hashlib.md5(b"mine", usedforsecurity=False).hexdigest()
    assert fake.count("PUT") == 2


def test_a_lost_reply_while_another_won_is_a_conflict(fake: FakeS3) -> None:
    fake.script = _losing_the_first_reply_to_put(instead=b"his!")
    with pytest.raises(ObjectExistsError):
        fake.storage(conditional_writes="yes").put("k", b"mine", if_absent=True)
    assert fake.objects["k"] == b"his!"


def test_etags_that_are_no_md5_are_met_by_reading(fake: FakeS3, tmp_path: Path) -> None:
    fake.etag = lambda data: hashlib.sha256(data).hexdigest()
    storage = fake.storage(conditional_writes="yes")
    storage.put("k", b"mine", if_absent=True)
    storage.put("k", b"mine", if_absent=True)
    (tmp_path / "file").write_bytes(b"mine")
    storage.put_file("k", tmp_path / "file", if_absent=True)
    for other in (b"his!", b"of another length"):
        with pytest.raises(ObjectExistsError):
            storage.put("k", other, if_absent=True)
    assert fake.objects["k"] == b"mine"


def test_a_creation_in_progress_is_tried_again(fake: FakeS3) -> None:
    left = [2]

    def script(handler: Handler) -> bool:
        if handler.command == "PUT" and left[0]:
            left[0] -= 1
            handler.refuse(409, "ConditionalRequestConflict")
            return True
        return False

    fake.script = script
    storage = fake.storage(conditional_writes="yes")
    storage.put("k", b"mine", if_absent=True)
    assert fake.objects["k"] == b"mine"
    left[0] = 10
    with pytest.raises(TransientStorageError):
        storage.put("k2", b"mine", if_absent=True)


@pytest.mark.parametrize("refusing", [False, True])
def test_a_store_without_conditions(fake: FakeS3, caplog: pytest.LogCaptureFixture, *, refusing: bool) -> None:
    """One kind ignores the header, the other answers 501; both are found out, and neither overwrites."""
    fake.conditional = False

    def script(handler: Handler) -> bool:
        if refusing and "If-None-Match" in handler.headers:
            handler.refuse(501, "NotImplemented")
            return True
        return False

    fake.script = script
    storage = fake.storage()
    storage.put("k", b"first", if_absent=True)
    assert storage.conditional_writes is False
    assert any("does not obey conditional writes" in record.getMessage() for record in caplog.records)
    with pytest.raises(ObjectExistsError):
        storage.put("k", b"other", if_absent=True)
    storage.put("k", b"first", if_absent=True)
    assert fake.objects["k"] == b"first"


def test_reading_back_sees_that_another_wrote_last(fake: FakeS3) -> None:
    fake.conditional = False
    storage = fake.storage(conditional_writes="no")

    def script(handler: Handler) -> bool:
        if handler.command == "PUT":
            handler.answer(200, b"", ETag='"whatever"')
            handler.fake.objects[handler.key] = b"his!"
            return True
        return False

    fake.script = script
    with pytest.raises(ObjectExistsError):
        storage.put("k", b"mine", if_absent=True)


def test_the_answer_to_the_probe_is_remembered(fake: FakeS3) -> None:
    storage = fake.storage()
    for number in range(3):
        storage.put(f"k{number}", b"x", if_absent=True)
    probes = [path for method, path, _ in fake.asked if method == "PUT" and "/work/.probe/" in path]
    assert len(probes) == 2
    assert storage.conditional_writes is True


def test_a_lost_reply_to_a_swap_counts_as_success(fake: FakeS3) -> None:
    fake.objects["k"] = b"old"
    storage = fake.storage(conditional_writes="yes")
    etag = storage.head("k").etag
    fake.script = _losing_the_first_reply_to_put()
    assert storage.put("k", b"mine", if_match=etag).etag == fake.etag(b"mine")
    assert (fake.objects["k"], fake.count("PUT")) == (b"mine", 2)


def test_a_lost_reply_while_another_swapped_is_a_change(fake: FakeS3) -> None:
    fake.objects["k"] = b"old"
    storage = fake.storage(conditional_writes="yes")
    etag = storage.head("k").etag
    fake.script = _losing_the_first_reply_to_put(instead=b"his!")
    with pytest.raises(ObjectChangedError):
        storage.put("k", b"mine", if_match=etag)
    assert fake.objects["k"] == b"his!"


@pytest.mark.parametrize("refusing", [False, True])
def test_swaps_in_a_store_without_conditions(fake: FakeS3, caplog: pytest.LogCaptureFixture, *, refusing: bool) -> None:
    fake.conditional = False

    def script(handler: Handler) -> bool:
        if refusing and handler.command == "PUT" and "If-Match" in handler.headers:
            handler.refuse(501, "NotImplemented")
            return True
        return False

    fake.script = script
    storage = fake.storage()
    fake.objects["k"] = b"first"
    stale = storage.head("k").etag
    current = storage.put("k", b"second", if_match=stale).etag
    assert storage.conditional_replacement is False
    assert any("conditional writes (If-Match)" in record.getMessage() for record in caplog.records)
    with pytest.raises(ObjectChangedError):
        storage.put("k", b"third", if_match=stale)
    with pytest.raises(ObjectChangedError, match="gone"):
        storage.put("k2", b"third", if_match=current)
    assert {key: value for key, value in fake.objects.items() if "probe" not in key} == {"k": b"second"}


def test_reading_back_sees_that_another_swapped_last(fake: FakeS3) -> None:
    fake.conditional = False
    fake.objects["k"] = b"first"
    storage = fake.storage(conditional_writes="no")
    etag = storage.head("k").etag

    def script(handler: Handler) -> bool:
        if handler.command == "PUT":
            handler.answer(200, b"", ETag='"whatever"')
            handler.fake.objects[handler.key] = b"his!"
            return True
        return False

    fake.script = script
    with pytest.raises(ObjectChangedError):
        storage.put("k", b"mine", if_match=etag)


def test_a_copy_of_a_source_that_changes_meanwhile_is_said(fake: FakeS3) -> None:
    fake.objects["k"] = b"first"
    storage = fake.storage()
    etag = storage.head("k").etag

    def script(handler: Handler) -> bool:
        if handler.command == "PUT" and "x-amz-copy-source" in handler.headers:
            handler.fake.objects["k"] = handler.fake.objects[handler.key] = b"newer"
            handler.answer(200, b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")
            return True
        return False

    fake.script = script
    with pytest.raises(ObjectChangedError):
        storage.copy("k", "copied", if_match=etag)
