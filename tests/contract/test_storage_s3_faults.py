"""The S3 adapter against a small S3 server on loopback that breaks off, loses replies and answers oddly."""

from __future__ import annotations

import base64
import hashlib
import http.server
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StructureFlowError,
    TransientStorageError,
)
from structureflow.storage.base import ByteRange, ObjectInfo
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow.storage.verified import fetch_verified
from structureflow.testing.storage_contract import seeded_bytes
from structureflow.testing.storage_servers import loopback_settings

DATA = seeded_bytes(200_000, seed=3)


@dataclass
class FakeS3:
    """One bucket in memory; `script` is asked first and may answer a request itself, returning True.

    `conditional` tells whether ``If-None-Match`` is obeyed, `etag` how bytes are tagged.
    """

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    script: Callable[[_Handler], bool] = field(default=lambda _: False)
    conditional: bool = True
    etag: Callable[[bytes], str] = lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest()
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def storage(self, **options: Any) -> S3Storage:
        return S3Storage("bucket", settings=replace(loopback_settings(self.url), **options))

    def count(self, method: str, key: str = "k") -> int:
        return sum(1 for asked, path, _ in self.asked if asked == method and path == f"/bucket/{key}")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeS3
    body = b""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        return True

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, _ = self.path.partition("?")
        self.key = path.removeprefix("/bucket/")
        self.fake.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        if self.fake.script(self):
            return
        if self.command == "PUT":
            if self.fake.conditional and "If-None-Match" in self.headers and self.key in self.fake.objects:
                self.refuse(412, "PreconditionFailed")
                return
            if self.fake.conditional and "If-Match" in self.headers:
                present = self.fake.objects.get(self.key)
                if present is None or self.headers["If-Match"].strip('"') != self.fake.etag(present):
                    self.refuse(
                        404 if present is None else 412, "NoSuchKey" if present is None else "PreconditionFailed"
                    )
                    return
            self.fake.objects[self.key] = self.body
            self.answer(200, b"", ETag=f'"{self.fake.etag(self.body)}"')
        elif self.command == "DELETE":
            self.answer(204, b"")
        elif self.key not in self.fake.objects:
            self.refuse(404, "NoSuchKey")
        else:
            data = self.fake.objects[self.key]
            self.answer(200, data, ETag=f'"{self.fake.etag(data)}"', Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the base class

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>said {code}</Message></Error>".encode())

    def break_off(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class _QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what these tests are about."""


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    fake = FakeS3()
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = _QuietServer(("127.0.0.1", 0), handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def _truncating(times: int) -> Callable[[_Handler], bool]:
    left = [times]

    def script(handler: _Handler) -> bool:
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


# --- bodies that break off ---------------------------------------------------------------------------


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
    def script(handler: _Handler) -> bool:
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


# --- lost replies and conditions ---------------------------------------------------------------------


def _losing_the_first_reply_to_put(key: str = "k", *, instead: bytes | None = None) -> Callable[[_Handler], bool]:
    lost: list[bool] = []

    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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


# --- compare and swap --------------------------------------------------------------------------------


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

    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
        if handler.command == "PUT" and "x-amz-copy-source" in handler.headers:
            handler.fake.objects["k"] = handler.fake.objects[handler.key] = b"newer"
            handler.answer(200, b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")
            return True
        return False

    fake.script = script
    with pytest.raises(ObjectChangedError):
        storage.copy("k", "copied", if_match=etag)


# --- replies that lack what they must have -----------------------------------------------------------


@pytest.mark.parametrize("missing", ["ETag", "Last-Modified"])
def test_replies_without_a_validator_are_refused(fake: FakeS3, tmp_path: Path, missing: str) -> None:
    def script(handler: _Handler) -> bool:
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
    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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
    def script(handler: _Handler) -> bool:
        handler.answer(200, _listing("a/1", token=None, truncated=False, entry=entry))
        return True

    fake.script = script
    with pytest.raises(StorageError, match=name):
        list(fake.storage().list("a/"))


# --- what vouches for bytes --------------------------------------------------------------------------


def _answering(**headers: str) -> Callable[[_Handler], bool]:
    def script(handler: _Handler) -> bool:
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

    def script(handler: _Handler) -> bool:
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


# --- kinds of errors ---------------------------------------------------------------------------------


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
    def script(handler: _Handler) -> bool:
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
    def script(handler: _Handler) -> bool:
        handler.refuse(403, "AccessDenied")
        return True

    fake.script = script
    with pytest.raises(StorageError) as caught:
        fake.storage().exists("k")
    assert not isinstance(caught.value, ObjectNotFoundError)


def test_objects_that_cannot_be_deleted_are_named(fake: FakeS3) -> None:
    def script(handler: _Handler) -> bool:
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


# --- what is sent ------------------------------------------------------------------------------------


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
    assert config.s3["addressing_style"] == "auto"
    assert config.request_checksum_calculation == "when_supported"
    assert config.response_checksum_validation == "when_supported"


def test_secrets_are_not_shown() -> None:
    shown = repr(S3Settings(access_key_id="key", secret_access_key="hush", session_token="hush too"))
    assert "hush" not in shown
