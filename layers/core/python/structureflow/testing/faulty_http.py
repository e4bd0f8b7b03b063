"""An HTTP server under faults by seed: in front of a real store, or serving files itself; on loopback."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from structureflow.testing.faults import Faults

_VALIDATORS: Final = ("etag", "last-modified", "content-length")
#: S3 calls a listing so in its query.
_IS_LISTING: Final = "list-type=2"
#: Of a hop, not of the object (RFC 9110, 7.6.1), or set anew here.
_OF_A_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a client asked."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What it is told when nothing goes wrong; the length is added."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    #: Of the whole object, for HEAD, which has no body.
    length: int | None = None


Answer = Callable[[HttpRequest], HttpReply]


def forward_to(url: str) -> Answer:
    """Return what hands a request on to a server, as it is: its host stays the one that was signed."""
    parts = urlsplit(url)

    def answer(request: HttpRequest) -> HttpReply:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            reply = connection.getresponse()
            body = reply.read()
            length = reply.headers.get("Content-Length")
            return HttpReply(reply.status, tuple(reply.headers.items()), body, int(length) if length else None)
        finally:
            connection.close()

    return answer


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are part of what is tried."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Answer
    faults: Faults
    listings: dict[str, list[HttpReply]]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
        """Say nothing."""

    def handle_any(self) -> None:
        """Answer any method."""
        faults, key = self.faults, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        number = faults.count(self.command, key)
        faults.wait(self.command, key, number)
        if faults.in_burst(self.command, key, number):
            self._send(HttpReply(503, (), b"<Error><Code>SlowDown</Code><Message>injected</Message></Error>"))
            return
        dropped = faults.strikes("drop", self.command, key, number)
        if dropped and faults.chance("early", key, number) < 0.5:
            self._hang_up()
            return
        reply = type(self).answer(HttpRequest(self.command, self.path, tuple(self.headers.items()), body))
        if dropped or faults.strikes("lost", self.command, key, number):
            self._hang_up()
            return
        if self.command == "GET" and _IS_LISTING in self.path:
            reply = self._stale(reply, key, number)
        self._send(reply, key, number)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the base class

    def _stale(self, reply: HttpReply, key: str, number: int) -> HttpReply:
        """Return a listing, or an earlier answer to the same question."""
        earlier = self.listings.setdefault(self.path, [])
        if earlier and self.faults.strikes("stale", "listing", key, number):
            return earlier[int(self.faults.chance("which", key, number) * len(earlier))]
        earlier.append(reply)
        return reply

    def _send(self, reply: HttpReply, key: str = "", number: int = 0) -> None:
        faults = self.faults
        reading = self.command == "GET" and reply.status in (200, 206) and bool(key)
        data = faults.flipped(reply.body, "body", key, number) if reading else reply.body
        whole = reply.length if self.command == "HEAD" and reply.length is not None else len(data)
        headers = [(name, value) for name, value in reply.headers if name.lower() not in _OF_A_HOP]
        headers.append(("Content-Length", str(whole)))
        if key and faults.strikes("header", self.command, key, number):
            gone = _VALIDATORS[int(faults.chance("which", key, number) * len(_VALIDATORS))]
            headers = [(name, value) for name, value in headers if name.lower() != gone]
            if gone == "content-length":
                # The body then ends with the connection.
                self.close_connection = True
        short = reading and len(data) > 1 and faults.strikes("truncate", "body", key, number)
        self.send_response(reply.status)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if short else data)
        if short:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            # A reset, as of a process that died, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_server(answer: Answer, faults: Faults, *, ssl_context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `answer` under `faults` on loopback while the block lasts; yields the URL."""
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer), "faults": faults, "listings": {}})
    server = _Server(("127.0.0.1", 0), handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        scheme = "http" if ssl_context is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
