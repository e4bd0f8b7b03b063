"""The web page and its API in this process, over any store: a bucket, or a folder laid out like it.

The routes are those of the function on AWS (`structureflow.api`). Links lead to this server, not to the store. It
listens on the loopback address only, and nothing that lies in a store runs in its pages.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from structureflow.api.app import whole_api
from structureflow.api.serving import error_body, status_code
from structureflow.errors import JobStateError, StructureFlowError
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.jobs.services import Services
from structureflow.limits import MAX_VIDEO_FRAMES
from structureflow.processors import usable_cpus
from structureflow.storage.base import Storage
from structureflow_local.doors import Doors, content_length
from structureflow_local.http_event import http_event, sent_reply, wsgi_path
from structureflow_local.objects import PREFIX, LinkedStorage, object_response, receive

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)

#: Of answers that say nothing themselves.
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
#: Larger files are no structure videos of at most 15 minutes.
_MAX_INPUT_BYTES: Final = 32 * 10**9
#: Of a request's body: what API Gateway hands to a function.
_MAX_BODY_BYTES: Final = 6 * 2**20


class PageServer:
    """A WSGI application over one store.

    Args:
        storage: the data bucket, or a local folder laid out like it.
        bucket: by which name requests may call it.
        sent: carries out a job whose request was put, by its id, or knows that somebody does; None: nobody does.
    """

    def __init__(self, storage: Storage, *, bucket: str = "data", sent: Callable[[str], None] | None = None) -> None:
        self._storage = LinkedStorage(storage)
        services = Services(
            storage=self._storage,
            inputs=Inputs(self._storage, bucket, max_bytes=_MAX_INPUT_BYTES),
            max_video_frames=MAX_VIDEO_FRAMES,
            max_input_bytes=_MAX_INPUT_BYTES,
            workers=usable_cpus(),
            work_dir=Path(tempfile.gettempdir()),
            start_segments=_refuse_segments,
            count=lambda _name, _value: None,
            sent=sent,
            rebuild=self._rebuild,
        )
        self._services = services
        self._rebuilding = ThreadPoolExecutor(1, thread_name_prefix="rebuild")
        self._api = whole_api(lambda: services)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = wsgi_path(environ)
        if path.startswith(PREFIX) and environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            found: Iterable[bytes] = self._object(path.removeprefix(PREFIX), environ)(environ, start_response)
            return found
        if path.startswith(PREFIX) and environ["REQUEST_METHOD"] == "PUT":
            stored: Iterable[bytes] = self._receive(path.removeprefix(PREFIX), environ)(environ, start_response)
            return stored
        length = content_length(environ)
        if length > _MAX_BODY_BYTES:
            refused = Response('{"message":"Request Too Long"}', 413, {"Connection": "close"}, "application/json")
            return refused(environ, start_response)
        body = bytes(environ["wsgi.input"].read(length)) if length else b""
        event = http_event(environ, body, key="$default", path=path)
        status, headers, data = sent_reply(self._api.answer(event, None))
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", [*headers, ("Content-Length", str(len(data)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]

    def _receive(self, key: str, environ: WSGIEnvironment) -> Response:
        try:
            info = receive(self._storage, key, Request(environ), _MAX_INPUT_BYTES)
        except StructureFlowError as error:
            # what of the body was not read stays on the connection
            return Response(error_body(error), status_code(error), {"Connection": "close"}, "application/json")
        return Response(status=200, headers={"ETag": f'"{info.etag}"'})

    def _rebuild(self, timeline_id: str, quality: int | None) -> None:
        event = RebuildTimelineInput(timeline_id=timeline_id, **({} if quality is None else {"quality": quality}))

        def work() -> None:
            try:
                rebuild_timeline(event, self._services)
            except StructureFlowError as error:
                # the timeline says it too
                _log.warning("timeline %s: %s", timeline_id, error)

        self._rebuilding.submit(work)

    def _object(self, key: str, environ: WSGIEnvironment) -> Response:
        try:
            return object_response(self._storage, key, Request(environ))
        except StructureFlowError as error:
            return Response(error_body(error), status_code(error), mimetype="application/json")


def _refuse_segments(name: str, payload: Any) -> None:
    raise JobStateError(f"{name}: expected no segments to be started here, got {payload!r:.200}")


class _QuietHandler(WSGIRequestHandler):
    """Says nothing of requests that went well; a page asks for a hundred pictures."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


def page_server(storage: Storage, port: int, *, sent: Callable[[str], None] | None = None) -> BaseWSGIServer:
    """Return the server behind its door, listening on the loopback address; it answers from `serve_forever` on.

    Args:
        storage, sent: as of `PageServer`.
        port: 0 takes a free one.
    """
    app = Doors(PageServer(storage, sent=sent), policy=_POLICY)
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)
