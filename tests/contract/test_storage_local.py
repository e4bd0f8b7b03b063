"""What only a folder can get wrong."""

from __future__ import annotations

import errno
import fcntl
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from structureflow.errors import InvalidKeyError, ObjectNotFoundError, StorageError
from structureflow.storage.base import ByteRange
from structureflow.storage.local import SCRATCH, LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def test_symbolic_links_lead_nowhere(storage: LocalStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    storage.put("a/inside", b"x")
    (storage.root / "folder").symlink_to(outside)
    (storage.root / "a" / "file").symlink_to(outside / "secret")
    for key in ("folder/secret", "a/file"):
        for call in (storage.get, storage.head, storage.exists, lambda key: storage.put(key, b"y")):
            with pytest.raises(InvalidKeyError, match="symbolic link"):
                call(key)
    assert [info.key for info in storage.list("")] == ["a/inside"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_root_behind_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStorage(tmp_path / "link").put("k", b"x")
    assert (tmp_path / "real" / "k").read_bytes() == b"x"


def test_scratch_files_are_no_objects(storage: LocalStorage) -> None:
    storage.put("k", b"x")
    (storage.root / SCRATCH / "leftover").write_bytes(b"of a process that was killed")
    assert [info.key for info in storage.list("")] == ["k"]
    for key in (SCRATCH, f"{SCRATCH}/leftover"):
        with pytest.raises(InvalidKeyError):
            storage.get(key)
        with pytest.raises(InvalidKeyError):
            storage.put(key, b"x")


def test_an_object_cannot_be_a_folder_too(storage: LocalStorage) -> None:
    storage.put("a/b", b"x")
    storage.put("c", b"x")
    for key in ("a", "c/d"):
        with pytest.raises(StorageError):
            storage.put(key, b"y")
        with pytest.raises(StorageError):
            storage.put(key, b"y", if_absent=True)
    assert [info.key for info in storage.list("")] == ["a/b", "c"]
    assert storage.delete(["a", "c/d"]) == 2
    assert storage.get("a/b").data == b"x"
    assert list((storage.root / SCRATCH).iterdir()) == []


def test_a_failed_write_leaves_the_old_object(storage: LocalStorage, tmp_path: Path) -> None:
    storage.put("k", b"old")
    with pytest.raises(StorageError):
        storage.put_file("k", tmp_path / "absent")
    assert storage.get("k").data == b"old"
    assert list((storage.root / SCRATCH).iterdir()) == []


def test_etags_survive_a_copy_that_keeps_times(storage: LocalStorage, tmp_path: Path) -> None:
    etag = storage.put("a/k", b"0123456789").etag
    shutil.copytree(storage.root, tmp_path / "copy")
    copy = LocalStorage(tmp_path / "copy")
    assert copy.get("a/k", byte_range=ByteRange(1, 3), if_match=etag).data == b"12"


def test_equal_bytes_written_twice_have_two_etags(storage: LocalStorage) -> None:
    assert len({storage.put("k", b"same").etag for _ in range(50)}) == 50


def test_a_missing_root_is_empty(storage: LocalStorage) -> None:
    assert list(storage.list("")) == []
    assert not storage.exists("k")
    with pytest.raises(ObjectNotFoundError):
        storage.get("k")
    assert storage.delete(["k"]) == 1
    assert not storage.root.exists()


def test_writing_while_folders_are_pruned(storage: LocalStorage) -> None:
    """A delete that leaves a folder empty removes it, under the hands of a writer that just made it."""
    stop = threading.Event()

    def prune() -> None:
        while not stop.is_set():
            storage.delete(["deep/er/other"])
            storage.put("deep/er/other", b"x")

    with ThreadPoolExecutor(2) as pool:
        pruning = [pool.submit(prune) for _ in range(2)]
        for number in range(300):
            storage.put(f"deep/er/{number}", b"y")
            storage.delete([f"deep/er/{number}"])
        stop.set()
        for future in pruning:
            future.result()
    assert {info.key for info in storage.list("")} <= {"deep/er/other"}


def test_listing_while_others_write_and_delete(storage: LocalStorage) -> None:
    for number in range(50):
        storage.put(f"keep/{number:02d}", b"x")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            storage.put("keep/00-extra/file", b"x")
            storage.delete(["keep/00-extra/file"])

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        for _ in range(50):
            found = [info.key for info in storage.list("keep/") if "extra" not in info.key]
            assert found == [f"keep/{number:02d}" for number in range(50)]
        stop.set()
        churning.result()


_COUNTER = """
import sys
from structureflow.errors import ObjectChangedError
from structureflow.storage.local import LocalStorage
storage = LocalStorage(sys.argv[1])
swaps = 0
for turn in range(150):
    found = storage.get("count")
    try:
        claim = f"{int(found.data.split()[0]) + 1} {sys.argv[2]}.{turn}".encode()
        storage.put("count", claim, if_match=found.info.etag)
    except ObjectChangedError:
        continue
    swaps += 1
print(swaps)
"""


def test_no_swap_of_another_process_is_lost(storage: LocalStorage) -> None:
    """Three processes count in one object; without the lock between them several swap the same number."""
    storage.put("count", b"0 nobody")
    processes = [
        subprocess.Popen([sys.executable, "-c", _COUNTER, str(storage.root), str(number)], stdout=subprocess.PIPE)
        for number in range(3)
    ]
    swaps = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert all(swaps)
    assert int(storage.get("count").data.split()[0]) == sum(swaps)


def test_a_file_system_without_locks_is_said(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    etag = storage.put("k", b"x").etag
    storage.put("k", b"y", if_match=etag)
    assert storage.get("k").data == b"y"
    assert [record.message for record in caplog.records if "knows no locks" in record.message] != []
    assert len(caplog.records) == 1
