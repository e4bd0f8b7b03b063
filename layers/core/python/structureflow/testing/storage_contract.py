"""The contract of the storage port, as tests that every adapter must pass.

A test class inherits `StorageContract` and offers a fixture ``subject``. The raw side of a `Subject` writes and
reads without the adapter, so that a mistake which an adapter makes in both directions is seen.
"""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from structureflow.errors import (
    TransientStorageError,
)
from structureflow.testing.storage_reading import ReadingContract
from structureflow.testing.storage_subject import Subject, seeded_bytes
from structureflow.testing.storage_writing import WritingContract

__all__ = ["StorageContract", "Subject", "seeded_bytes"]


class StorageContract(ReadingContract, WritingContract):
    """Tests of one adapter."""

    def test_list_is_in_utf8_order(self, subject: Subject) -> None:
        keys = ["p/a-b", "p/a.x/1", "p/a/b", "p/a0", "p/z", "p/ä", "p/\uffee", "p/\U0001f600"]
        for number, key in enumerate(reversed(keys)):
            subject.raw_put(key, bytes(number))
        entries = list(subject.storage.list("p/"))
        assert [entry.key for entry in entries] == keys
        assert [entry.size_bytes for entry in entries] == list(reversed(range(len(keys))))

    def test_list_keeps_to_its_prefix(self, subject: Subject) -> None:
        for key in ("t/1/x", "t/10/x", "t/1-a/x", "other"):
            subject.raw_put(key, b"x")
        assert [entry.key for entry in subject.storage.list("t/1/")] == ["t/1/x"]
        assert [entry.key for entry in subject.storage.list("t/1")] == ["t/1-a/x", "t/1/x", "t/10/x"]
        assert [entry.key for entry in subject.storage.list("")] == ["other", "t/1-a/x", "t/1/x", "t/10/x"]
        assert list(subject.storage.list("t/1/x/")) == []
        assert list(subject.storage.list("nothing/here/")) == []

    def test_list_start_after(self, subject: Subject) -> None:
        for key in ("p/a", "p/b/1", "p/b/2", "p/c"):
            subject.raw_put(key, b"x")
        listed = {
            after: [entry.key for entry in subject.storage.list("p/", start_after=after)]
            for after in ("p/a", "p/aa", "p/b/1", "p/c", "a", "z")
        }
        assert listed == {
            "p/a": ["p/b/1", "p/b/2", "p/c"],
            "p/aa": ["p/b/1", "p/b/2", "p/c"],
            "p/b/1": ["p/b/2", "p/c"],
            "p/c": [],
            "a": ["p/a", "p/b/1", "p/b/2", "p/c"],
            "z": [],
        }

    def test_folders_are_the_names_below_which_objects_lie(self, subject: Subject) -> None:
        for key in ("p/a-b/1", "p/a/1", "p/a/b/2", "p/file", "p/ä/1", "p/z/deep/er/1", "other/x/1"):
            subject.raw_put(key, b"x")
        assert list(subject.storage.folders("p/")) == ["a-b", "a", "z", "ä"]
        assert list(subject.storage.folders("p/", start_after="a-b")) == ["a", "z", "ä"]
        assert list(subject.storage.folders("p/", start_after="a")) == ["z", "ä"]
        assert list(subject.storage.folders("p/", start_after="b")) == ["z", "ä"]
        assert list(subject.storage.folders("p/", start_after="ä")) == []
        assert list(subject.storage.folders("")) == ["other", "p"]
        assert list(subject.storage.folders("nothing/")) == []

    def test_list_and_delete_more_than_a_page(self, subject: Subject) -> None:
        keys = [f"many/{number:05d}" for number in range(1203)]
        for key in keys:
            subject.raw_put(key, b"")
        subject.raw_put("many-not/x", b"")
        assert [entry.key for entry in subject.storage.list("many/")] == keys
        assert subject.storage.delete(entry.key for entry in subject.storage.list("many/")) == 1203
        assert [entry.key for entry in subject.storage.list("")] == ["many-not/x"]

    def test_delete_forgives_absence(self, subject: Subject) -> None:
        subject.raw_put("a/1", b"x")
        subject.raw_put("a/2", b"x")
        assert subject.storage.delete(["a/1", "a/never", "never/never"]) == 3
        assert subject.raw_get("a/1") is None
        assert subject.raw_get("a/2") == b"x"
        assert subject.storage.delete([]) == 0

    # --- the rest ------------------------------------------------------------------------------------

    def test_copy(self, subject: Subject) -> None:
        data = seeded_bytes(50_000)
        subject.raw_put("from/k", data)
        subject.raw_put("to/k", b"older")
        info = subject.storage.copy("from/k", "to/k")
        assert subject.raw_get("to/k") == data
        assert subject.raw_get("from/k") == data
        assert (info.key, info.size_bytes, info.etag) == ("to/k", 50_000, subject.storage.head("to/k").etag)

    def test_presigned_url_expiry(self, subject: Subject) -> None:
        subject.raw_put("k", b"x")
        assert ":" in subject.storage.presigned_url("k", expires_s=60)
        for expires_s in (0, -1, 7 * 24 * 3600 + 1):
            with pytest.raises(ValueError, match="expires_s"):
                subject.storage.presigned_url("k", expires_s=expires_s)

    def test_uri_names_the_store(self, subject: Subject) -> None:
        assert "://" in subject.storage.uri

    def test_readers_see_whole_objects_only(self, subject: Subject) -> None:
        """Overwrite with all-A and all-B while reading: never a mixture, and the ETag fits the bytes."""
        bodies = {letter: letter * 40_000 for letter in (b"A", b"B")}
        subject.storage.put("k", bodies[b"A"])
        stop = threading.Event()

        def write() -> None:
            for number in range(40):
                subject.storage.put("k", bodies[b"AB"[number % 2 : number % 2 + 1]])
            stop.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not stop.is_set() and not writing.done():
                try:
                    data = subject.storage.get("k").data
                except TransientStorageError:
                    assert not subject.steady_reads
                else:
                    assert data in bodies.values()
            writing.result()

    def test_many_threads(self, subject: Subject) -> None:
        def work(number: int) -> bool:
            data = seeded_bytes(20_000, number)
            subject.storage.put(f"threads/{number}", data)
            return subject.storage.get(f"threads/{number}").data == data

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(64)))
        assert sum(1 for _ in subject.storage.list("threads/")) == 64
