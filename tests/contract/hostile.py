"""A server on loopback that speaks TLS and then does as a script says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from structureflow.storage.http import HttpsSource
from structureflow.testing.tls import HOST

Script = Callable[[ssl.SSLSocket, bytes], None]
OK = b'HTTP/1.1 200 OK\r\nETag: "e"\r\n'


class Hostile:
    """Plays a script to every connection, after its request was read."""

    def __init__(self, pem: Path, script: Script, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.asked: list[bytes] = []
        self._script = script
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listening = socket.create_server((address, port))
        self.port = self._listening.getsockname()[1]
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connected,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connected: socket.socket) -> None:
        # Clients that hang up in the middle are what these tests are about.
        with contextlib.suppress(OSError), self._context.wrap_socket(connected, server_side=True) as secure:
            request = b""
            while b"\r\n\r\n" not in request:
                request += secure.recv(4096)
            self.asked.append(request)
            self._script(secure, request)

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(timeout=10)


def source(server: Hostile, pem: Path, **options: object) -> HttpsSource:
    arguments: dict[str, object] = {
        "max_bytes": 1_000_000,
        "resolver": lambda host, port: ["127.0.0.1"],  # noqa: ARG005 - the resolver's signature
        "allows_address": lambda address: True,  # noqa: ARG005 - as above
        "ssl_context": ssl.create_default_context(cafile=str(pem)),
        "read_timeout_s": 5.0,
        "deadline_s": 0.6,
    }
    return HttpsSource([f"{HOST}:{server.port}"], **(arguments | options))  # type: ignore[arg-type]


def url(server: Hostile, path: str = "/clip.mp4") -> str:
    return f"https://{HOST}:{server.port}{path}"


def drip(secure: ssl.SSLSocket, data: bytes, pause_s: float = 0.02) -> None:
    """Send so slowly that no silence is long, and the whole takes 20 seconds or more."""
    for start in range(1000):
        secure.sendall(data[start % len(data) : start % len(data) + 1])
        time.sleep(pause_s)
