"""A part of the contract of the storage port (`storage_contract`). Reading: bytes, keys, ranges, absence."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from structureflow.errors import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
)
from structureflow.storage.base import ByteRange, Suffix
from structureflow.testing.storage_subject import BAD_KEYS, ODD_KEYS, Subject, seeded_bytes


class ReadingContract:
    """Tests of one adapter."""

    def test_put_stores_the_bytes(self, subject: Subject) -> None:
        data = seeded_bytes(70_000)
        info = subject.storage.put("a/b.bin", data, content_type="application/octet-stream")
        assert subject.raw_get("a/b.bin") == data
        assert (info.key, info.size_bytes) == ("a/b.bin", 70_000)
        assert info.etag
        assert '"' not in info.etag

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
    def test_put_takes_any_buffer(self, subject: Subject, make: Callable[[bytes], bytes]) -> None:
        subject.storage.put("buffer", make(b"12345"))
        assert subject.raw_get("buffer") == b"12345"

    def test_get_reads_what_another_wrote(self, subject: Subject) -> None:
        data = seeded_bytes(70_000)
        subject.raw_put("a/b.bin", data)
        found = subject.storage.get("a/b.bin")
        assert found.data == data
        assert isinstance(found.data, bytes)
        assert (found.start, found.info.key, found.info.size_bytes) == (0, "a/b.bin", 70_000)

    def test_etag_is_the_same_from_every_method(self, subject: Subject, tmp_path: Path) -> None:
        storage = subject.storage
        etag = storage.put("k", b"some bytes").etag
        assert storage.get("k").info.etag == etag
        assert storage.get("k", byte_range=Suffix(3)).info.etag == etag
        assert storage.head("k").etag == etag
        assert storage.get_to_file("k", tmp_path / "k").etag == etag
        assert [entry.etag for entry in storage.list("k")] == [etag]

    def test_etag_changes_with_the_bytes(self, subject: Subject) -> None:
        first = subject.storage.put("k", b"first").etag
        second = subject.storage.put("k", b"other").etag
        assert first != second
        assert subject.storage.head("k").etag == second

    def test_overwriting_replaces(self, subject: Subject) -> None:
        subject.storage.put("k", b"a long first text")
        subject.storage.put("k", b"short")
        assert subject.raw_get("k") == b"short"
        assert subject.storage.head("k").size_bytes == 5

    def test_empty_object(self, subject: Subject) -> None:
        subject.storage.put("empty", b"")
        assert subject.storage.get("empty").data == b""
        assert subject.storage.get("empty", byte_range=Suffix(4)).data == b""
        assert subject.storage.head("empty").size_bytes == 0
        with pytest.raises(RangeNotSatisfiableError):
            subject.storage.get("empty", byte_range=ByteRange(0, 1))

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_odd_keys_round_trip(self, subject: Subject, key: str) -> None:
        subject.storage.put(key, key.encode())
        assert subject.raw_get(key) == key.encode()
        assert subject.storage.get(key).data == key.encode()
        assert subject.storage.head(key).key == key
        assert [entry.key for entry in subject.storage.list("a/")] == [key]
        subject.storage.copy(key, "copied")
        assert subject.raw_get("copied") == key.encode()
        subject.storage.delete([key])
        assert subject.raw_get(key) is None

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused(self, subject: Subject, key: str, tmp_path: Path) -> None:
        storage = subject.storage
        (tmp_path / "file").write_bytes(b"x")
        calls: list[Callable[[], object]] = [
            lambda: storage.get(key),
            lambda: storage.put(key, b"x"),
            lambda: storage.put_file(key, tmp_path / "file"),
            lambda: storage.get_to_file(key, tmp_path / "target"),
            lambda: storage.head(key),
            lambda: storage.exists(key),
            lambda: storage.delete([key]),
            lambda: storage.copy(key, "x"),
            lambda: storage.presigned_url(key),
        ]
        for call in calls:
            with pytest.raises(InvalidKeyError):
                call()

    # --- ranges ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("byte_range", "start", "stop"),
        [
            (ByteRange(0, 1), 0, 1),
            (ByteRange(0, 1000), 0, 1000),
            (ByteRange(17, 400), 17, 400),
            (ByteRange(999, 1000), 999, 1000),
            (ByteRange(900, 5000), 900, 1000),
            (Suffix(1), 999, 1000),
            (Suffix(300), 700, 1000),
            (Suffix(1000), 0, 1000),
            (Suffix(4096), 0, 1000),
        ],
    )
    def test_ranges(self, subject: Subject, byte_range: ByteRange | Suffix, start: int, stop: int) -> None:
        data = seeded_bytes(1000)
        subject.raw_put("k", data)
        found = subject.storage.get("k", byte_range=byte_range)
        assert found.data == data[start:stop]
        assert (found.start, found.info.size_bytes) == (start, 1000)

    def test_range_past_the_end(self, subject: Subject) -> None:
        subject.raw_put("k", b"0123456789")
        with pytest.raises(RangeNotSatisfiableError):
            subject.storage.get("k", byte_range=ByteRange(10, 12))

    def test_if_match(self, subject: Subject) -> None:
        etag = subject.storage.put("k", b"0123456789").etag
        assert subject.storage.get("k", byte_range=ByteRange(2, 4), if_match=etag).data == b"23"
        assert subject.storage.get("k", if_match=etag).data == b"0123456789"
        subject.storage.put("k", b"9876543210")
        with pytest.raises(ObjectChangedError):
            subject.storage.get("k", byte_range=ByteRange(2, 4), if_match=etag)
        with pytest.raises(ObjectChangedError):
            subject.storage.get("k", if_match=etag)

    # --- absence ---------------------------------------------------------------------------------

    def test_missing_object(self, subject: Subject, tmp_path: Path) -> None:
        storage = subject.storage
        target = tmp_path / "target"
        with pytest.raises(ObjectNotFoundError, match="gone"):
            storage.get("gone")
        with pytest.raises(ObjectNotFoundError):
            storage.get("gone", byte_range=ByteRange(0, 1))
        with pytest.raises(ObjectNotFoundError):
            storage.get("gone", byte_range=Suffix(1))
        with pytest.raises(ObjectNotFoundError):
            storage.head("gone")
        with pytest.raises(ObjectNotFoundError):
            storage.get_to_file("gone", target)
        with pytest.raises(ObjectNotFoundError, match="gone"):
            storage.copy("gone", "elsewhere")
        assert not storage.exists("gone")
        assert list(storage.list("gone")) == []
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_is_no_object(self, subject: Subject) -> None:
        subject.raw_put("folder/file", b"x")
        assert not subject.storage.exists("folder")
        assert not subject.storage.exists("folder/file/deeper")
        with pytest.raises(ObjectNotFoundError):
            subject.storage.get("folder")

    def test_exists(self, subject: Subject) -> None:
        subject.raw_put("a/b", b"x")
        assert subject.storage.exists("a/b")
        assert not subject.storage.exists("a/bc")
