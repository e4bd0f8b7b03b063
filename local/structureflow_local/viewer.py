"""Pages in the browser for what lies in a bucket: jobs and their outputs, frames of timelines, overlays.

Reads the same store as everything else, through the same port, on the loopback address only. Nothing can be
changed from these pages, and nothing that lies in a bucket runs in them: a page among a job's files is shown without
scripts, what a browser might run otherwise (SVG, XML, anything unknown) is a download.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Template
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from structureflow import FrameCache, keys, list_overlay_frames
from structureflow.errors import (
    FrameNotFoundError,
    InvalidIdError,
    JobStateError,
    ObjectNotFoundError,
    StructureFlowError,
    TimelineNotFoundError,
)
from structureflow.frames.jpeg import encode_jpeg, thumbnail
from structureflow.limits import MAX_DIGITS
from structureflow.report.pages import page_environment
from structureflow.storage.base import ByteRange, ObjectInfo, Storage
from structureflow_local.client import JobClient
from structureflow_local.doors import OBJECT_POLICY, Doors
from structureflow_local.output import Output

_PER_PAGE = 60
_THUMBNAIL_PX = 200
_MOST_JOBS = 200
_RANGE_BYTES = 4_000_000

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 24px; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
nav, .muted { opacity: .75; } a { color: inherit; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 6px 10px 6px 0; text-align: left; }
.grid { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
figure { margin: 0; } figure img { border-radius: 6px; display: block; width: 100%; }
figcaption { font-size: 12px; font-variant-numeric: tabular-nums; opacity: .8; padding-top: 3px; }
.failed { color: #c0392b; }
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: Of the viewer's own pages: their one style sheet, and pictures of this server.
PAGE_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; media-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
#: Of a job's report: as its own, which lies in the page, says; and it may show the videos beside it.
_REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"
#: What a browser may show of a job's files; all else is a download.
_SHOWN: Final = {
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
}
_RANGE = re.compile(rf"bytes=([0-9]{{1,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})")

_ROUTES = Map(
    [
        Rule("/", endpoint="home"),
        Rule("/jobs/<task_id>/", endpoint="job"),
        Rule("/jobs/<task_id>/<path:name>", endpoint="job_file"),
        Rule("/timelines/<timeline_id>/", endpoint="timeline"),
        Rule("/timelines/<timeline_id>/frames/<string(maxlength=9):number>.jpg", endpoint="frame"),
        Rule("/timelines/<timeline_id>/overlays/<job_id>/<stage>/<name>", endpoint="overlay"),
    ]
)


class Viewer:
    """A WSGI application over one store.

    Args:
        storage: the data bucket, or a local folder laid out like it.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cache = FrameCache(storage)
        self._jobs = JobClient(storage)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request; errors of ours become pages with a fitting status."""
        request = Request(environ)
        try:
            endpoint, values = _ROUTES.bind_to_environ(environ).match()
            response: Any = getattr(self, f"_{endpoint}")(request, **values)
        except HTTPException as error:
            response = error
        except (InvalidIdError, ObjectNotFoundError, TimelineNotFoundError, FrameNotFoundError) as error:
            response = NotFound(error.message)
        except StructureFlowError as error:
            response = _page("error", "Error", status=502, message=f"{error.code}: {error.message}")
        found: Iterable[bytes] = response(environ, start_response)
        return found

    def _home(self, request: Request) -> Response:  # noqa: ARG002
        jobs = [self._job_row(task_id) for task_id in islice(self._jobs.task_ids(), _MOST_JOBS)]
        timelines = [self._timeline_row(timeline_id) for timeline_id in self._cache.list_timelines()]
        return _page("home", "structureflow", uri=self._storage.uri, jobs=jobs, timelines=timelines)

    def _job_row(self, task_id: str) -> dict[str, Any]:
        row: dict[str, Any] = {"task_id": task_id, "stage": "", "updated": "", "kind": "", "link": False}
        try:
            status = self._jobs.status(task_id)
        except (JobStateError, InvalidIdError) as error:
            return row | {"state": error.code, "kind": "failed"}
        if status is None:
            return row | {"state": "requested"}
        return row | {
            "state": f"{status.state}: {status.error.code}" if status.error else status.state,
            "stage": status.stage,
            "updated": f"{status.updated_at:%Y-%m-%d %H:%M:%S}",
            "kind": status.state,
            "link": True,
        }

    def _timeline_row(self, timeline_id: str) -> dict[str, Any]:
        try:
            manifest = self._cache.manifest(timeline_id)
        except StructureFlowError as error:
            return {"timeline_id": timeline_id, "error": error.code}
        return {"timeline_id": timeline_id, "error": "", "frames": manifest.total, "chunks": len(manifest.chunks)}

    def _job(self, request: Request, task_id: str) -> Response:  # noqa: ARG002
        prefix = keys.job_prefix(task_id)
        objects = [
            {"key": info.key, "name": info.key.removeprefix(prefix), "size_bytes": info.size_bytes}
            for info in self._storage.list(prefix)
        ]
        if not objects:
            raise NotFound(f"no job {task_id}")
        return _page("job", task_id, objects=objects)

    def _job_file(self, request: Request, task_id: str, name: str) -> Response:
        key = keys.job_prefix(task_id) + name
        suffix = PurePosixPath(name).suffix.lower()
        kind = _SHOWN.get(suffix, "application/octet-stream")
        headers = {"Accept-Ranges": "bytes"}
        if suffix not in _SHOWN:
            headers["Content-Disposition"] = "attachment"
        if kind == "text/html":
            headers["Content-Security-Policy"] = f"{_REPORT_POLICY}; {OBJECT_POLICY}"
        info = self._storage.head(key)
        wanted = _wanted_range(request)
        if wanted is None:
            headers["Content-Length"] = str(info.size_bytes)
            return Response(self._pieces(info), mimetype=kind, headers=headers)
        start, stop = wanted
        if start >= info.size_bytes:
            return Response(status=416)
        stop = min(stop, start + _RANGE_BYTES, info.size_bytes)
        found = self._storage.get(key, byte_range=ByteRange(start, stop), if_match=info.etag)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size_bytes}"
        return Response(found.data, status=206, mimetype=kind, headers=headers)

    def _pieces(self, info: ObjectInfo) -> Iterator[bytes]:
        """Read an object piece by piece: it may be larger than memory."""
        for start in range(0, info.size_bytes, _RANGE_BYTES):
            piece = ByteRange(start, min(start + _RANGE_BYTES, info.size_bytes))
            yield self._storage.get(info.key, byte_range=piece, if_match=info.etag).data

    def _timeline(self, request: Request, timeline_id: str) -> Response:
        manifest = self._cache.manifest(timeline_id)
        start = _number(request, "from") or 0
        records = manifest.select(None)
        links = []
        if start:
            links.append(("earlier frames", max(0, start - _PER_PAGE)))
        if start + _PER_PAGE < len(records):
            links.append(("later frames", start + _PER_PAGE))
        return _page(
            "timeline",
            timeline_id,
            base=f"/timelines/{quote(timeline_id)}",
            total=len(records),
            start=start,
            links=links,
            frames=records[start : start + _PER_PAGE],
            overlays=list(islice(list_overlay_frames(self._storage, timeline_id), _PER_PAGE * 4)),
            thumbnail_px=_THUMBNAIL_PX,
        )

    def _frame(self, request: Request, timeline_id: str, number: str) -> Response:
        if not (number.isascii() and number.isdigit()):
            raise NotFound(f"no frame {number}")
        width_px = _number(request, "width")
        (frame,) = self._cache.load_cached_frames(timeline_id, [int(number)])
        image = frame.image if width_px is None else thumbnail(frame.image, max(16, width_px))
        return Response(encode_jpeg(image, 80), mimetype="image/jpeg")

    def _overlay(self, request: Request, timeline_id: str, job_id: str, stage: str, name: str) -> Response:  # noqa: ARG002
        sequence, overlay_name = keys.parse_timeline_overlay(name)
        key = keys.timeline_overlay(timeline_id, job_id, stage, sequence, overlay_name)
        return Response(self._storage.get(key).data, mimetype="image/png")


def _number(request: Request, name: str) -> int | None:
    """Return a number of the query; what is none, or is longer than any here, counts as absent."""
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def _wanted_range(request: Request) -> tuple[int, int] | None:
    """Return the one range that a request asks for, or None for the whole object."""
    text = request.headers.get("Range", "")
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    start = int(match[1])
    stop = int(match[2]) + 1 if match[2] else start + _RANGE_BYTES
    return (start, stop) if stop > start else None


class _QuietHandler(WSGIRequestHandler):
    """Says nothing of requests that went well; a page asks for a hundred pictures."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


def serve_viewer(storage: Storage, *, port: int, output: Output) -> None:
    """Serve the pages on the loopback address until the process is interrupted; port 0 takes a free one."""
    server = viewer_server(storage, port)
    url = f"http://127.0.0.1:{server.server_port}/"
    output.give(url=url)
    output.say(f"{url}  (until Ctrl-C)")
    output.finish()
    try:
        server.serve_forever()
    finally:
        server.server_close()


def viewer_server(storage: Storage, port: int) -> BaseWSGIServer:
    """Return the viewer behind its door, listening on the loopback address; it answers from `serve_forever` on."""
    app = Doors(Viewer(storage), policy=PAGE_POLICY)
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)


@cache
def _template() -> Template:
    return page_environment(Path(__file__).parent).get_template("viewer.html.j2")


def _page(page: str, title: str, *, status: int = 200, **shown: Any) -> Response:
    style = Markup(_STYLE)  # noqa: S704  our own text
    html = _template().render(page=page, title=title, style=style, **shown)
    return Response(html, status=status, mimetype="text/html")
