"""A store on loopback that answers as a test says."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from structureflow.storage.s3 import S3Storage
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
    script: Callable[[Handler], bool] = field(default=lambda _: False)
    conditional: bool = True
    etag: Callable[[bytes], str] = lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest()
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def storage(self, **options: Any) -> S3Storage:
        return S3Storage("bucket", settings=replace(loopback_settings(self.url), **options))

    def count(self, method: str, key: str = "k") -> int:
        return sum(1 for asked, path, _ in self.asked if asked == method and path == f"/bucket/{key}")


class Handler(http.server.BaseHTTPRequestHandler):
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


@contextmanager
def serving() -> Iterator[FakeS3]:
    fake = FakeS3()
    handler = type("Handler", (Handler,), {"fake": fake})
    server = _QuietServer(("127.0.0.1", 0), handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()
