"""The contract of the storage port, as tests that every adapter must pass.

A test class inherits `StorageContract` and offers a fixture ``subject``. The raw side of a `Subject` writes and
reads without the adapter, so that a mistake which an adapter makes in both directions is seen.
"""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from structureflow.errors import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.base import ByteRange, Storage, Suffix

ODD_KEYS = (
    "a/plain.txt",
    "a/with space.txt",
    "a/plus+sign.txt",
    "a/percent%20.txt",
    "a/ümläut/日本.bin",
    "a/quote'\"&<>.bin",
    "a/(1)=[2];,@!$.bin",
    "a/...dots.bin",
    "a/~tilde^.bin",
)
BAD_KEYS = (
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    "a/./b",
    ".",
    "..",
    "a\nb",
    "a\x00b",
    "a\\b",
    "x" * 1025,
    "\ud800",
)


@dataclass(frozen=True)
class Subject:
    """An adapter under test, and a way around it.

    Attributes:
        storage: the adapter; empty at the start of every test.
        raw_put: stores bytes under a key without the adapter.
        raw_get: reads the bytes of a key without the adapter; None when there is no such object.
        atomic_creation: whether exactly one of many simultaneous creators, or swappers, can win.
        steady_reads: whether reading always succeeds while the object is being overwritten; else it may fail
            as transient.
    """

    storage: Storage
    raw_put: Callable[[str, bytes], None]
    raw_get: Callable[[str], bytes | None]
    atomic_creation: bool = True
    steady_reads: bool = True


def seeded_bytes(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that do not compress, the same ones each time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - test data


class StorageContract:
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

    # --- ranges --------------------------------------------------------------------------------------

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

    # --- absence -------------------------------------------------------------------------------------

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

    # --- conditional creation ------------------------------------------------------------------------

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

    # --- compare and swap ----------------------------------------------------------------------------

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

    # --- files ---------------------------------------------------------------------------------------

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

    # --- listing and deleting ------------------------------------------------------------------------

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
