"""Refusals and settings of S3 stores."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import (
    ObjectNotFoundError,
    StorageError,
    StructureFlowError,
    TransientStorageError,
)
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow.testing.storage_servers import loopback_settings
from tests.contract.fake_s3 import DATA, FakeS3, Handler, serving


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with serving() as fake:
        yield fake


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        (403, "AccessDenied", StorageError, False),
        (404, "NoSuchBucket", StorageError, False),
        (404, "NoSuchKey", ObjectNotFoundError, False),
        (400, "InvalidArgument", StorageError, False),
        (501, "NotImplemented", StorageError, False),
        (429, "TooManyRequests", TransientStorageError, True),
        (503, "SlowDown", TransientStorageError, True),
        (500, "InternalError", TransientStorageError, True),
        (400, "RequestTimeout", TransientStorageError, True),
        (502, "", TransientStorageError, True),
    ],
)
def test_refusals_become_the_fitting_error(
    fake: FakeS3, status: int, code: str, kind: type[StructureFlowError], *, transient: bool
) -> None:
    def script(handler: Handler) -> bool:
        handler.refuse(status, code)
        return True

    fake.script = script
    storage = fake.storage(max_attempts=1)
    calls: list[Callable[[], object]] = [lambda: storage.get("k"), lambda: storage.put("k", b"x")]
    if not transient:
        calls += [lambda: list(storage.list("k")), lambda: storage.delete(["k"]), lambda: storage.copy("k", "k2")]
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == kind.__name__
        assert caught.value.transient is transient


def test_denied_is_not_absent(fake: FakeS3) -> None:
    def script(handler: Handler) -> bool:
        handler.refuse(403, "AccessDenied")
        return True

    fake.script = script
    with pytest.raises(StorageError) as caught:
        fake.storage().exists("k")
    assert not isinstance(caught.value, ObjectNotFoundError)


def test_objects_that_cannot_be_deleted_are_named(fake: FakeS3) -> None:
    def script(handler: Handler) -> bool:
        if handler.command != "POST":
            return False
        handler.answer(
            200,
            b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>",
        )
        return True

    fake.script = script
    with pytest.raises(StorageError, match=r"1 remain \(AccessDenied\), the first is b"):
        fake.storage().delete(["a", "b"])


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = S3Storage("bucket", settings=loopback_settings(f"http://127.0.0.1:{port}"))
    with pytest.raises(TransientStorageError, match="bucket/k"):
        storage.head("k")


def test_missing_credentials_are_permanent(fake: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage = S3Storage("bucket", settings=S3Settings(endpoint_url=fake.url, region="us-east-1"))
    with pytest.raises(StorageError, match="credentials") as caught:
        storage.get("k")
    assert not caught.value.transient
    assert fake.asked == []


def test_other_stores_get_no_checksum_trailers(fake: FakeS3, tmp_path: Path) -> None:
    storage = fake.storage()
    (tmp_path / "file").write_bytes(DATA)
    storage.put("k", b"x", content_type="image/jpeg")
    storage.put_file("k", tmp_path / "file")
    assert fake.objects["k"] == DATA
    for _, path, headers in fake.asked:
        assert path == "/bucket/k"
        assert "x-amz-trailer" not in headers
        assert "aws-chunked" not in headers.get("content-encoding", "")
    assert fake.asked[0][2]["content-type"] == "image/jpeg"


def test_nothing_happens_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a client was built")

    monkeypatch.setattr(S3Settings, "build_client", fail)
    storage = S3Storage("bucket", settings=S3Settings(endpoint_url="http://127.0.0.1:9"))
    assert storage.uri == "s3://bucket"
    with pytest.raises(AssertionError, match="was built"):
        storage.head("k")


def test_settings_reach_the_client() -> None:
    client = S3Settings(
        endpoint_url="http://127.0.0.1:9000",
        region="eu-test-1",
        access_key_id="key",
        secret_access_key="secret",
        max_connections=7,
        connect_timeout_s=1.5,
        read_timeout_s=2.5,
        max_attempts=3,
    ).build_client()
    config: Any = client.meta.config
    assert client.meta.endpoint_url == "http://127.0.0.1:9000"
    assert client.meta.region_name == "eu-test-1"
    assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (7, 1.5, 2.5)
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert config.s3["addressing_style"] == "path"
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"


def test_settings_of_aws_keep_checksums_and_virtual_hosts() -> None:
    client = S3Settings(region="us-east-1", access_key_id="key", secret_access_key="secret").build_client()
    config: Any = client.meta.config
    assert config.s3["addressing_style"] == "virtual"
    assert config.request_checksum_calculation == "when_supported"
    assert config.response_checksum_validation == "when_supported"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "s3.us-east-1.amazonaws.com"),
        ("eu-central-1", "s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
    ],
)
def test_urls_name_the_regions_own_host(region: str, host: str) -> None:
    """The global host sends a reader on to the region's, and the signature is for another host then."""
    settings = S3Settings(region=region, access_key_id="key", secret_access_key="secret")
    plain, dotted = (S3Storage(name, settings=settings).presigned_url("a b") for name in ("data", "my.data"))
    assert plain.startswith(f"https://data.{host}/a%20b?")
    # A certificate of *.s3.… does not fit a name with dots.
    assert dotted.startswith(f"https://{host}/my.data/a%20b?")


def test_secrets_are_not_shown() -> None:
    shown = repr(S3Settings(access_key_id="key", secret_access_key="hush", session_token="hush too"))
    assert "hush" not in shown
