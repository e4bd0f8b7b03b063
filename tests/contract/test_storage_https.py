"""The source of https URLs, against a real TLS server on loopback that misbehaves on purpose."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from structureflow.errors import (
    InputNotAllowedError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage.http import Address, HttpsSource
from structureflow.testing.storage_contract import seeded_bytes
from structureflow.testing.tls import HOST, certificate

DATA = seeded_bytes(300_000, seed=7)


def _loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def _mixed(host: str, port: int) -> list[str]:
    return ["127.0.0.1", "169.254.169.254"]


def _anyone(address: Address) -> bool:
    return True


@dataclass
class Server:
    """A running server: its port, what it was asked, and a client's context that trusts it."""

    port: int
    context: ssl.SSLContext
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"https://{HOST}:{self.port}{path}"

    def source(self, **options: object) -> HttpsSource:
        arguments: dict[str, object] = {
            "max_bytes": 1_000_000,
            "resolver": _loopback,
            "allows_address": _anyone,
            "ssl_context": self.context,
            "read_timeout_s": 5.0,
        }
        return HttpsSource([f"{HOST}:{self.port}"], **(arguments | options))  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, str]]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers["Host"]))
        route = getattr(self, "on_" + self.path.partition("?")[0].strip("/").replace(".", "_"), None)
        if route is None:
            self.answer(404, b"")
        else:
            route()
        self.close_connection = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def on_clip_mp4(self) -> None:
        self.answer(200, DATA, ETag='"v1"', Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT")

    def on_signed(self) -> None:
        """Know GET only, as a signed URL does."""
        if self.command == "HEAD":
            self.answer(403, b"")
        else:
            self.on_clip_mp4()

    def on_untagged(self) -> None:
        self.answer(200, b"no validators")

    def on_dated(self) -> None:
        """Chunked, so that the size, which its identity needs, is known at the end only."""
        self.chunked(Last_Modified="Wed, 21 Oct 2025 07:28:00 GMT")

    def on_chunked(self) -> None:
        self.chunked(ETag='"c"')

    def chunked(self, **headers: str) -> None:
        self.answer(200, b"", Content_Length="", Transfer_Encoding="chunked", **headers)
        if self.command == "GET":
            for start in range(0, len(DATA), 65_536):
                part = DATA[start : start + 65_536]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    def on_truncated(self) -> None:
        self.answer(200, DATA[:1000], Content_Length=str(len(DATA)), ETag='"t"')

    def on_flaky(self) -> None:
        if sum(path == "/flaky" for _, path, _ in self.asked) == 1:
            self.on_truncated()
        else:
            self.answer(200, DATA, ETag='"t"')

    def on_redirect(self) -> None:
        self.answer(302, b"", Location="https://169.254.169.254/latest/meta-data/")

    def on_busy(self) -> None:
        self.answer(503, b"")

    def on_denied(self) -> None:
        self.answer(403, b"")

    def on_gzip(self) -> None:
        self.answer(200, b"xx", Content_Encoding="gzip")

    def on_drip(self) -> None:
        self.answer(200, b"", Content_Length="1000", ETag='"d"')
        if self.command == "GET":
            for _ in range(20):
                self.wfile.write(b"x")
                self.wfile.flush()
                if threading.Event().wait(0.05):
                    return


class _QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away early is what these tests are about."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pem = certificate(tmp_path_factory.mktemp("tls"))
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pem)
    asked: list[tuple[str, str, str]] = []
    handler = type("Handler", (_Handler,), {"asked": asked})
    httpd = _QuietServer(("127.0.0.1", 0), handler)
    httpd.socket = server_context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    client_context = ssl.create_default_context(cafile=str(pem))
    yield Server(httpd.server_address[1], client_context, asked)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_reads_into_memory_and_into_a_file(server: Server, tmp_path: Path) -> None:
    source = server.source()
    url = server.url("/clip.mp4")
    info = source.head(url)
    assert info.size_bytes == len(DATA)
    assert source.get(url, if_match=info.etag).data == DATA
    assert source.get_to_file(url, tmp_path / "clip", if_match=info.etag) == info
    assert (tmp_path / "clip").read_bytes() == DATA
    assert {host for _, _, host in server.asked} == {f"{HOST}:{server.port}"}


@pytest.mark.parametrize("path", ["/clip.mp4", "/chunked", "/dated"])
def test_a_changed_object_is_not_read(server: Server, tmp_path: Path, path: str) -> None:
    source = server.source()
    with pytest.raises(ObjectChangedError):
        source.get(server.url(path), if_match="other")
    with pytest.raises(ObjectChangedError):
        source.get_to_file(server.url(path), tmp_path / "x", if_match="other")
    assert list(tmp_path.iterdir()) == []


def test_a_signed_url_that_knows_only_get(server: Server) -> None:
    url = server.url("/signed?X-Amz-Signature=abc")
    assert server.source().head(url).size_bytes == len(DATA)
    assert server.asked[0][:2] == ("HEAD", "/signed?X-Amz-Signature=abc")


def test_identity_follows_validators(server: Server) -> None:
    source = server.source()
    same = {source.head(server.url("/clip.mp4")).etag for _ in range(3)}
    assert len(same) == 1
    assert source.head(server.url("/signed")).etag not in same
    assert source.head(server.url("/dated")).etag == source.head(server.url("/dated")).etag


def test_bytes_that_could_change_unseen_are_refused(server: Server, tmp_path: Path) -> None:
    source = server.source()
    for call in (source.head, source.get, lambda url: source.get_to_file(url, tmp_path / "x")):
        with pytest.raises(StorageError, match="neither") as caught:
            call(server.url("/untagged"))
        assert not caught.value.transient
    assert list(tmp_path.iterdir()) == []


def test_chunked_body(server: Server, tmp_path: Path) -> None:
    source = server.source()
    assert source.head(server.url("/chunked")).size_bytes == len(DATA)
    assert source.get_to_file(server.url("/chunked"), tmp_path / "x").size_bytes == len(DATA)
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize("path", ["/clip.mp4", "/chunked"])
def test_size_cap(server: Server, tmp_path: Path, path: str) -> None:
    small = server.source(max_bytes=100_000)
    with pytest.raises(StorageError, match="100000"):
        small.get(server.url(path))
    with pytest.raises(StorageError, match="100000"):
        small.get_to_file(server.url(path), tmp_path / "x")
    with pytest.raises(StorageError, match="50000"):
        server.source().get_to_file(server.url(path), tmp_path / "x", max_bytes=50_000)
    assert list(tmp_path.iterdir()) == []


def test_broken_off_answers(server: Server, tmp_path: Path) -> None:
    source = server.source()
    with pytest.raises(TransientStorageError, match="no whole answer"):
        source.get_to_file(server.url("/truncated"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    assert source.get(server.url("/flaky")).data == DATA


def test_slow_sender_meets_the_deadline(server: Server) -> None:
    with pytest.raises(TransientStorageError, match="not finished"):
        server.source(deadline_s=0.1).get(server.url("/drip"))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/absent", ObjectNotFoundError),
        ("/redirect", InputNotAllowedError),
        ("/busy", TransientStorageError),
        ("/denied", StorageError),
        ("/gzip", StorageError),
    ],
)
def test_refusals(server: Server, path: str, error: type[Exception]) -> None:
    for call in (server.source().get, server.source().head):
        with pytest.raises(error) as caught:
            call(server.url(path))
        assert type(caught.value) is error
    assert not any("meta-data" in asked for _, asked, _ in server.asked)


def test_connects_to_the_address_that_was_checked(server: Server) -> None:
    """A resolver that answers differently the second time (DNS rebinding) is asked once per request."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    seen: list[Address] = []

    def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    def allow(address: Address) -> bool:
        seen.append(address)
        return str(address) == "127.0.0.1"

    source = server.source(resolver=resolve, allows_address=allow)
    assert source.get(server.url("/clip.mp4")).data == DATA
    with pytest.raises(InputNotAllowedError, match=r"10\.0\.0\.1"):
        source.get(server.url("/clip.mp4"))
    assert [str(address) for address in seen] == ["127.0.0.1", "10.0.0.1"]
    assert len(server.asked) == 1


def test_one_bad_address_among_good_ones_is_enough(server: Server) -> None:
    source = server.source(
        resolver=_mixed,
        allows_address=lambda address: address == ipaddress.ip_address("127.0.0.1"),
    )
    with pytest.raises(InputNotAllowedError, match=r"169\.254"):
        source.get(server.url("/clip.mp4"))
    assert server.asked == []


def test_loopback_is_refused_by_default(server: Server) -> None:
    source = HttpsSource(
        [f"{HOST}:{server.port}"],
        max_bytes=1000,
        resolver=_loopback,
        ssl_context=server.context,
    )
    with pytest.raises(InputNotAllowedError, match="not public"):
        source.get(server.url("/clip.mp4"))
    assert server.asked == []


def test_certificate_must_be_trusted_and_fit_the_name(server: Server) -> None:
    stranger = server.source(ssl_context=ssl.create_default_context())
    with pytest.raises(TransientStorageError, match="certificate"):
        stranger.get(server.url("/clip.mp4"))
    other = HttpsSource(
        [f"other.example.com:{server.port}"],
        max_bytes=1000,
        resolver=_loopback,
        allows_address=_anyone,
        ssl_context=server.context,
    )
    with pytest.raises(TransientStorageError, match=r"other\.example\.com"):
        other.get(f"https://other.example.com:{server.port}/clip.mp4")
    assert server.asked == []


def test_nobody_answers(server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    source = HttpsSource(
        [f"{HOST}:{port}"],
        max_bytes=1000,
        resolver=_loopback,
        allows_address=_anyone,
    )
    with pytest.raises(TransientStorageError):
        source.get(f"https://{HOST}:{port}/x")
