"""A part of the contract of the storage port (`storage_contract`). Writing under conditions, and files."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from structureflow.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.pieces import ObjectPart, Piece
from structureflow.testing.storage_subject import Subject, seeded_bytes


class WritingContract:
    """Tests of one adapter."""

    def test_if_absent_creates(self, subject: Subject) -> None:
        info = subject.storage.put("k", b"mine", if_absent=True)
        assert subject.raw_get("k") == b"mine"
        assert info.etag == subject.storage.head("k").etag

    def test_if_absent_never_overwrites(self, subject: Subject, tmp_path: Path) -> None:
        subject.raw_put("k", b"theirs")
        with pytest.raises(ObjectExistsError, match="k"):
            subject.storage.put("k", b"mine", if_absent=True)
        (tmp_path / "file").write_bytes(b"mine!!")
        with pytest.raises(ObjectExistsError):
            subject.storage.put_file("k", tmp_path / "file", if_absent=True)
        assert subject.raw_get("k") == b"theirs"

    def test_if_absent_of_the_same_bytes_succeeds(self, subject: Subject, tmp_path: Path) -> None:
        subject.raw_put("k", b"the same")
        info = subject.storage.put("k", b"the same", if_absent=True)
        assert info.etag == subject.storage.head("k").etag
        (tmp_path / "file").write_bytes(b"the same")
        assert subject.storage.put_file("k", tmp_path / "file", if_absent=True).size_bytes == 8

    def test_one_creator_wins(self, subject: Subject) -> None:
        barrier = threading.Barrier(8)

        def create(number: int) -> int | None:
            barrier.wait()
            try:
                subject.storage.put("claim", f"claimant {number}".encode(), if_absent=True)
            except ObjectExistsError:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(create, range(8)) if number is not None]
        stored = subject.raw_get("claim")
        assert stored in [f"claimant {number}".encode() for number in range(8)]
        if subject.atomic_creation:
            assert [f"claimant {number}".encode() for number in winners] == [stored]

    # --- compare and swap ------------------------------------------------------------------------

    def test_if_match_replaces_the_object_it_names(self, subject: Subject, tmp_path: Path) -> None:
        first = subject.storage.put("k", b"first")
        second = subject.storage.put("k", b"second", if_match=first.etag)
        assert subject.raw_get("k") == b"second"
        assert second.etag == subject.storage.head("k").etag != first.etag
        (tmp_path / "file").write_bytes(b"third")
        third = subject.storage.put_file("k", tmp_path / "file", if_match=second.etag)
        assert subject.raw_get("k") == b"third"
        assert third.etag == subject.storage.head("k").etag

    def test_if_match_never_replaces_another_object(self, subject: Subject, tmp_path: Path) -> None:
        stale = subject.storage.put("k", b"first").etag
        subject.storage.put("k", b"theirs")
        (tmp_path / "file").write_bytes(b"mine!!")
        with pytest.raises(ObjectChangedError, match="k: expected ETag"):
            subject.storage.put("k", b"mine", if_match=stale)
        with pytest.raises(ObjectChangedError):
            subject.storage.put_file("k", tmp_path / "file", if_match=stale)
        assert subject.raw_get("k") == b"theirs"

    def test_if_match_does_not_bring_back_what_is_gone(self, subject: Subject) -> None:
        stale = subject.storage.put("k", b"first").etag
        subject.storage.delete(["k"])
        with pytest.raises(ObjectChangedError, match="gone"):
            subject.storage.put("k", b"mine", if_match=stale)
        with pytest.raises(ObjectChangedError, match="gone"):
            subject.storage.put("never/there", b"mine", if_match=stale)
        assert subject.raw_get("k") is None
        assert list(subject.storage.list("")) == []

    def test_if_match_of_the_same_bytes_succeeds(self, subject: Subject) -> None:
        """A reply that was lost looks like this to the one who asks again."""
        stale = subject.storage.put("k", b"first").etag
        subject.storage.put("k", b"mine", if_match=stale)
        assert subject.storage.put("k", b"mine", if_match=stale).etag == subject.storage.head("k").etag

    def test_a_write_has_one_condition(self, subject: Subject, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(ValueError, match="if_absent or if_match"):
            subject.storage.put("k", b"x", if_absent=True, if_match="e")
        with pytest.raises(ValueError, match="if_absent or if_match"):
            subject.storage.put_file("k", tmp_path / "file", if_absent=True, if_match="e")

    def test_no_swap_is_lost(self, subject: Subject) -> None:
        """Six threads count in one object: every success counts once."""
        subject.storage.put("count", b"0 nobody")
        barrier = threading.Barrier(6)

        def count(thread: int) -> int:
            swaps = 0
            barrier.wait()
            for turn in range(8):
                try:
                    found = subject.storage.get("count")
                    number = int(found.data.split()[0])
                    claim = f"{number + 1} {thread}.{turn}".encode()
                    subject.storage.put("count", claim, if_match=found.info.etag)
                except ObjectChangedError:
                    continue
                except TransientStorageError:
                    assert not subject.steady_reads
                    continue
                swaps += 1
            return swaps

        with ThreadPoolExecutor(6) as pool:
            swaps = sum(pool.map(count, range(6)))
        assert swaps >= 1
        if subject.atomic_creation:
            assert int((subject.raw_get("count") or b"").split()[0]) == swaps

    def test_downloads_and_copies_of_the_object_that_is_meant(self, subject: Subject, tmp_path: Path) -> None:
        etag = subject.storage.put("k", b"0123456789").etag
        assert subject.storage.get_to_file("k", tmp_path / "same", if_match=etag).etag == etag
        subject.storage.copy("k", "copied", if_match=etag)
        assert subject.raw_get("copied") == b"0123456789"
        subject.storage.put("k", b"9876543210")
        with pytest.raises(ObjectChangedError):
            subject.storage.get_to_file("k", tmp_path / "other", if_match=etag)
        with pytest.raises(ObjectChangedError):
            subject.storage.copy("k", "copied", if_match=etag)
        with pytest.raises(ObjectNotFoundError):
            subject.storage.copy("never", "copied", if_match=etag)
        assert subject.raw_get("copied") == b"0123456789"
        assert [entry.name for entry in tmp_path.iterdir()] == ["same"]

    # --- files -----------------------------------------------------------------------------------

    def test_assemble_puts_bytes_and_parts_of_objects_together(self, subject: Subject) -> None:
        storage = subject.storage
        subject.raw_put("parts/a", b"0123456789")
        subject.raw_put("parts/b", b"abcdef")
        a, b = storage.head("parts/a").etag, storage.head("parts/b").etag
        pieces: list[Piece] = [b"<", ObjectPart("parts/a", a, 2, 5), ObjectPart("parts/b", b, 0, 6), b"|", b">"]
        pieces.append(ObjectPart("parts/a", a, 9, 10))
        info = storage.assemble("whole", pieces, content_type="application/zip")
        assert subject.raw_get("whole") == b"<234abcdef|>9"
        assert (info.key, info.size_bytes, info.etag) == ("whole", 13, storage.head("whole").etag)
        storage.assemble("whole", [b"again"])
        assert subject.raw_get("whole") == b"again"

    def test_assemble_takes_parts_of_the_objects_that_are_meant(self, subject: Subject) -> None:
        storage = subject.storage
        subject.raw_put("part", b"0123456789")
        etag = storage.head("part").etag
        storage.put("part", b"overwritten")
        with pytest.raises(ObjectChangedError):
            storage.assemble("whole", [b"x", ObjectPart("part", etag, 0, 4)])
        with pytest.raises(ObjectNotFoundError):
            storage.assemble("whole", [ObjectPart("gone", etag, 0, 4)])
        with pytest.raises(StorageError):
            storage.assemble("whole", [ObjectPart("part", storage.head("part").etag, 4, 99)])
        assert subject.raw_get("whole") is None

    def test_assemble_creates_only_if_it_shall(self, subject: Subject) -> None:
        subject.raw_put("whole", b"theirs")
        with pytest.raises(ObjectExistsError):
            subject.storage.assemble("whole", [b"mine"], if_absent=True)
        assert subject.raw_get("whole") == b"theirs"
        subject.storage.assemble("other", [b"mine"], if_absent=True)
        assert subject.raw_get("other") == b"mine"

    def test_put_file_and_get_to_file(self, subject: Subject, tmp_path: Path) -> None:
        data = seeded_bytes(3_500_000)
        (tmp_path / "source").write_bytes(data)
        info = subject.storage.put_file("big/file.bin", tmp_path / "source")
        assert info.size_bytes == len(data)
        assert hashlib.sha256(subject.raw_get("big/file.bin") or b"").digest() == hashlib.sha256(data).digest()
        (tmp_path / "out").mkdir()
        got = subject.storage.get_to_file("big/file.bin", tmp_path / "out" / "target", max_bytes=len(data))
        assert got.size_bytes == len(data)
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["target"]
        assert (tmp_path / "out" / "target").read_bytes() == data

    def test_get_to_file_obeys_the_cap(self, subject: Subject, tmp_path: Path) -> None:
        subject.raw_put("k", bytes(1000))
        with pytest.raises(StorageError, match="999"):
            subject.storage.get_to_file("k", tmp_path / "target", max_bytes=999)
        assert list(tmp_path.iterdir()) == []

    def test_get_to_file_replaces_an_older_file(self, subject: Subject, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"older and longer")
        subject.raw_put("k", b"newer")
        subject.storage.get_to_file("k", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"newer"

    def test_files_that_cannot_be_used(self, subject: Subject, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            subject.storage.put_file("k", tmp_path / "absent")
        assert subject.raw_get("k") is None
        subject.raw_put("k", b"x")
        with pytest.raises(StorageError, match="nowhere"):
            subject.storage.get_to_file("k", tmp_path / "nowhere" / "target")
