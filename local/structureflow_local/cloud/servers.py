"""Loopback servers of the local cloud: one WSGI application on one or more addresses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structureflow_local.cloud.errors import LocalCloudError
from structureflow_local.cloud.requests import reply

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer


class Servers:
    """The same application on one or more addresses, each served by threads of its own.

    Args:
        hosts: addresses; all get the same port.
        log_path: where the servers write what went wrong; nothing goes to the console.
        port: 0 takes a free one, found on the first address.

    Raises:
        LocalCloudError: an address cannot be bound.
    """

    def __init__(self, hosts: Iterable[str], log_path: Path, *, port: int = 0) -> None:
        self._hosts = list(hosts)
        self._log_path = log_path
        self._servers: list[BaseWSGIServer] = []
        self._threads: list[threading.Thread] = []
        self._app: WSGIApplication | None = None
        self.port = port
        for host in self._hosts:
            try:
                server = _make_server(host, self.port, self._serve, log_path)
            except (OSError, SystemExit) as error:
                self.close()
                raise LocalCloudError(f"cannot listen on {host} port {self.port or 'any'}: {error}") from error
            self.port = server.server_port
            self._servers.append(server)

    def start(self, app: WSGIApplication) -> None:
        """Begin to answer with `app`."""
        self._app = app
        for server in self._servers:
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.05}, name=f"server-{server.host}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            if self._threads:
                server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(timeout=5)
        self._servers, self._threads = [], []

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._app is None:
            return reply(start_response, 503, {}, b"")
        return self._app(environ, start_response)


def _make_server(host: str, port: int, app: WSGIApplication, log_path: Path) -> BaseWSGIServer:
    # werkzeug and moto cost a quarter of a second: not before a cloud is started
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import ThreadedWSGIServer

    logger = logging.getLogger(f"structureflow_local.server.{log_path}")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.FileHandler(log_path, delay=True))

    class Handler(MotoRequestHandler):
        """Keeps connections open, and writes to the log file, never to the console."""

        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
            if type == "error":
                logger.error(message, *args)

    class Server(ThreadedWSGIServer):
        """Writes to the log file, never to the console."""

        daemon_threads = True
        block_on_close = False

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
            if type == "error":
                logger.error(message, *args)

    return Server(host, port, app, Handler)
