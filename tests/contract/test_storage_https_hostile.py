"""HTTPS servers that try to hold, flood or lead astray who reads from them; all on loopback.

A hostile server here is a script over raw TLS: what it sends is written byte by byte, where a server library would
keep to the protocol.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from structureflow.errors import StorageError, TransientStorageError
from structureflow.storage.http import HttpsSource
from structureflow.testing.tls import HOST, certificate
from tests.contract.hostile import OK, Hostile, Script, drip, source, url


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def serve(pem: Path) -> Iterator[Callable[..., Hostile]]:
    servers: list[Hostile] = []

    def start(script: Script, **options: object) -> Hostile:
        servers.append(Hostile(pem, script, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _status_line(secure: ssl.SSLSocket, _: bytes) -> None:
    drip(secure, b"HTTP/1.1 200 OK" + b"x" * 1000)


def _headers(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK)
    drip(secure, b"X-More: y\r\n")


def _continue(secure: ssl.SSLSocket, _: bytes) -> None:
    for _time in range(1000):
        secure.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.02)


def _body(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Content-Length: 1000\r\n\r\n")
    drip(secure, b"x")


def _chunk_line(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    drip(secure, b"0" * 900)


def _chunks(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _time in range(1000):
        secure.sendall(b"1\r\nx\r\n")
        time.sleep(0.02)


def _trailers(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    for _time in range(1000):
        secure.sendall(b"X-More: y\r\n")
        time.sleep(0.02)


def _silence(secure: ssl.SSLSocket, _: bytes) -> None:
    time.sleep(3)


SLOW = [_status_line, _headers, _continue, _body, _chunk_line, _chunks, _trailers, _silence]


@pytest.mark.parametrize("script", SLOW)
@pytest.mark.parametrize("method", ["get", "get_to_file", "head"])
def test_one_deadline_covers_every_part_of_an_answer(
    serve: Callable[..., Hostile], pem: Path, tmp_path: Path, script: Script, method: str
) -> None:
    if method == "head" and script is _body:
        pytest.skip("its length is announced, and no body is read")
    server = serve(script)
    reading = source(server, pem)
    begin = time.monotonic()
    with pytest.raises(TransientStorageError, match=r"not finished after 0\.6 s"):
        _read(reading, method, url(server), tmp_path)
    assert time.monotonic() - begin < 2
    assert list(tmp_path.iterdir()) == []


def _read(reading: HttpsSource, method: str, asked: str, folder: Path) -> object:
    return reading.get_to_file(asked, folder / "x") if method == "get_to_file" else getattr(reading, method)(asked)


def test_a_slow_handshake_meets_the_deadline(pem: Path) -> None:
    """A server that accepts and says nothing, before TLS begins."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        reading = HttpsSource(
            [f"{HOST}:{port}"],
            max_bytes=1000,
            resolver=lambda host, port: ["127.0.0.1"],  # noqa: ARG005 - the resolver's signature
            allows_address=lambda address: True,  # noqa: ARG005 - as above
            deadline_s=0.5,
        )
        begin = time.monotonic()
        with pytest.raises(TransientStorageError):
            reading.head(f"https://{HOST}:{port}/x")
        assert time.monotonic() - begin < 2


def test_a_resolver_that_hangs_meets_the_deadline(serve: Callable[..., Hostile], pem: Path) -> None:
    released = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        released.wait(10)
        return ["127.0.0.1"]

    server = serve(_silence)
    begin = time.monotonic()
    with pytest.raises(TransientStorageError, match="not finished"):
        source(server, pem, resolver=hang).get(url(server))
    released.set()
    assert time.monotonic() - begin < 2
    assert server.asked == []


def test_tries_share_the_deadline(serve: Callable[..., Hostile], pem: Path) -> None:
    """Time is the injected clock's: a second try begins only while some is left."""

    def break_off(secure: ssl.SSLSocket, _: bytes) -> None:
        now[0] += 400
        secure.close()

    now = [1000.0]
    server = serve(break_off)
    with pytest.raises(TransientStorageError):
        source(server, pem, deadline_s=600.0, clock=lambda: now[0], sleep=lambda _: None).get(url(server))
    assert len(server.asked) == 2
    now[0], server.asked = 1000.0, []
    with pytest.raises(TransientStorageError, match="not finished after 300 s"):
        source(server, pem, deadline_s=300.0, clock=lambda: now[0], sleep=lambda _: None).get(url(server))
    assert len(server.asked) == 1


def _flood_chunked(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    block = b"10000\r\n" + bytes(65_536) + b"\r\n"
    for _time in range(4000):
        secure.sendall(block)


def _flood_to_the_end(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"\r\n")
    for _time in range(4000):
        secure.sendall(bytes(65_536))


def _flood_trailers(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    for _time in range(40_000):
        secure.sendall(b"X-More: " + b"y" * 8000 + b"\r\n")


def _flood_continue(secure: ssl.SSLSocket, _: bytes) -> None:
    for _time in range(40_000):
        secure.sendall(b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 8000 + b"\r\n\r\n")


def _long_header(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"X-Long: ")
    for _time in range(4000):
        secure.sendall(b"y" * 65_536)


def _many_headers(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK)
    for number in range(100_000):
        secure.sendall(b"X-%d: y\r\n" % number)


@pytest.mark.parametrize(
    "script", [_flood_chunked, _flood_to_the_end, _flood_trailers, _flood_continue, _long_header, _many_headers]
)
@pytest.mark.parametrize("method", ["get", "get_to_file", "head"])
def test_a_flood_ends_early_and_takes_no_memory(
    serve: Callable[..., Hostile], pem: Path, tmp_path: Path, script: Script, method: str
) -> None:
    server = serve(script)
    reading = source(server, pem, deadline_s=30.0)
    tracemalloc.start()
    try:
        with pytest.raises(StorageError):
            _read(reading, method, url(server), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # `get` keeps up to its bound of 1 MB, in pieces and joined.
    assert peak < 6_000_000
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_learned_without_keeping_the_body(serve: Callable[..., Hostile], pem: Path) -> None:
    """HEAD is refused and no length announced: 24 MB pass by, a few are held."""

    def script(secure: ssl.SSLSocket, request: bytes) -> None:
        if request.startswith(b"HEAD"):
            secure.sendall(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
        else:
            secure.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            for _time in range(24):
                secure.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            secure.sendall(b"0\r\n\r\n")

    server = serve(script)
    reading = source(server, pem, max_bytes=30 << 20, deadline_s=30.0)
    tracemalloc.start()
    try:
        assert reading.head(url(server)).size_bytes == 24 << 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


def test_an_announced_length_is_believed_without_reading_the_body(serve: Callable[..., Hostile], pem: Path) -> None:
    def script(secure: ssl.SSLSocket, request: bytes) -> None:
        if request.startswith(b"HEAD"):
            secure.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        else:
            secure.sendall(OK + b"Content-Length: 900000\r\n\r\n")
            time.sleep(3)

    server = serve(script)
    begin = time.monotonic()
    assert source(server, pem, deadline_s=30.0).head(url(server)).size_bytes == 900_000
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nETag: e\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\nETag: e\r\n\r\n",
        b"HTTP/1.1 204 No\r\nETag: e\r\n\r\n",
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\nETag: e\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: e\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: e\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: e\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: e\r\n\r\nabc",
    ],
)
def test_nonsense_is_a_typed_error(serve: Callable[..., Hostile], pem: Path, tmp_path: Path, answer: bytes) -> None:
    server = serve(lambda secure, _: secure.sendall(answer))
    with pytest.raises(StorageError):
        source(server, pem, deadline_s=5.0).get_to_file(url(server), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_connection_is_not_the_end_of_a_body(
    serve: Callable[..., Hostile], pem: Path, tmp_path: Path
) -> None:
    """Nothing announces a length, and TLS is not closed: more was to come."""

    def drop(secure: ssl.SSLSocket, _: bytes) -> None:
        secure.sendall(OK + b"\r\nhalf of the")
        socket.socket(fileno=secure.detach()).close()

    server = serve(drop)
    with pytest.raises(TransientStorageError):
        source(server, pem, deadline_s=5.0).get_to_file(url(server), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_query_of_a_url_is_in_no_error(serve: Callable[..., Hostile], pem: Path) -> None:
    server = serve(lambda secure, _: secure.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
    with pytest.raises(TransientStorageError) as caught:
        source(server, pem, deadline_s=5.0).get(url(server, "/clip.mp4?X-Amz-Signature=SECRET"))
    assert b"SECRET" in server.asked[0]
    assert "SECRET" not in f"{caught.value!r} {caught.value.as_dict()} {caught.value.__cause__!r}"
