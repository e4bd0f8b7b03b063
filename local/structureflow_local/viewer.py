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
from html import escape
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from structureflow import keys
from structureflow.errors import (
    FrameNotFoundError,
    InvalidIdError,
    JobStateError,
    ObjectNotFoundError,
    StructureFlowError,
    TimelineNotFoundError,
)
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg, thumbnail
from structureflow.frames.overlays import list_overlay_frames
from structureflow.jobs.documents import get_document
from structureflow.limits import MAX_DIGITS
from structureflow.models.results import JobStatus
from structureflow.storage.base import ByteRange, ObjectInfo, Storage
from structureflow_local.doors import OBJECT_POLICY, Doors

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
            response = _page("Error", f"<p class=failed>{escape(error.code)}: {escape(error.message)}</p>", status=502)
        found: Iterable[bytes] = response(environ, start_response)
        return found

    def _home(self, request: Request) -> Response:  # noqa: ARG002
        jobs = "".join(self._job_row(task_id) for task_id in islice(self._task_ids(), _MOST_JOBS))
        timelines = "".join(self._timeline_row(timeline_id) for timeline_id in self._cache.list_timelines())
        body = (
            f"<p class=muted>{escape(self._storage.uri)}</p>"
            f"<h2>Jobs</h2>{_table(('job', 'state', 'stage', 'updated'), jobs)}"
            f"<h2>Timelines</h2>{_table(('timeline', 'frames', 'chunks'), timelines)}"
        )
        return _page("structureflow", body)

    def _task_ids(self) -> Iterable[str]:
        """Iterate over job folders, one listing request each: `list` starts behind the folder before."""
        after: str | None = None
        while True:
            found = next(iter(self._storage.list("jobs/", start_after=after)), None)
            if found is None:
                return
            task_id = found.key.split("/")[1]
            yield task_id
            after = f"jobs/{task_id}/\U0010ffff"

    def _job_row(self, task_id: str) -> str:
        try:
            key = keys.job_status(task_id)
            if not self._storage.exists(key):
                return f"<tr><td>{escape(task_id)}<td>requested<td><td>"
            status = get_document(self._storage, key, JobStatus, made_by="the orchestrator")
        except (JobStateError, InvalidIdError) as error:
            return f"<tr><td>{escape(task_id)}<td class=failed>{escape(error.code)}<td><td>"
        said = f": {status.error.code}" if status.error else ""
        return (
            f"<tr><td><a href='/jobs/{quote(task_id)}/'>{escape(task_id)}</a>"
            f"<td class={status.state}>{escape(status.state + said)}<td>{escape(status.stage)}"
            f"<td>{status.updated_at:%Y-%m-%d %H:%M:%S}"
        )

    def _timeline_row(self, timeline_id: str) -> str:
        link = f"<a href='/timelines/{quote(timeline_id)}/'>{escape(timeline_id)}</a>"
        try:
            manifest = self._cache.manifest(timeline_id)
        except StructureFlowError as error:
            return f"<tr><td>{link}<td class=failed colspan=2>{escape(error.code)}"
        return f"<tr><td>{link}<td>{manifest.total}<td>{len(manifest.chunks)}"

    def _job(self, request: Request, task_id: str) -> Response:  # noqa: ARG002
        prefix = keys.job_prefix(task_id)
        rows = [
            f"<tr><td><a href='/{quote(info.key)}'>{escape(info.key.removeprefix(prefix))}</a><td>{info.size_bytes:,}"
            for info in self._storage.list(prefix)
        ]
        if not rows:
            raise NotFound(f"no job {task_id}")
        return _page(task_id, _table(("object", "bytes"), "".join(rows)))

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
        base = f"/timelines/{quote(timeline_id)}"
        frames = "".join(
            f"<figure><a href='{base}/frames/{r.sequence}.jpg'><img loading=lazy alt='frame {r.sequence}' "
            f"src='{base}/frames/{r.sequence}.jpg?width={_THUMBNAIL_PX}'></a>"
            f"<figcaption>{r.sequence} · {r.timestamp:.3f} s · {escape(r.chunk_id)}</figcaption></figure>"
            for r in records[start : start + _PER_PAGE]
        )
        links = []
        if start:
            links.append(f"<a href='?from={max(0, start - _PER_PAGE)}'>earlier frames</a>")
        if start + _PER_PAGE < len(records):
            links.append(f"<a href='?from={start + _PER_PAGE}'>later frames</a>")
        entries = list(islice(list_overlay_frames(self._storage, timeline_id), _PER_PAGE * 4))
        overlays = "".join(
            f"<figure><img loading=lazy alt='{escape(e.stage)} {e.sequence}' "
            f"src='{base}/overlays/{quote(e.job_id)}/{quote(e.stage)}/{e.sequence:06d}_{quote(e.name)}.png'>"
            f"<figcaption>{escape(e.job_id)} · {escape(e.stage)} · {e.sequence}</figcaption></figure>"
            for e in entries
        )
        body = (
            f"<p>{len(records)} frames, from {start} on. {' · '.join(links)}</p><div class=grid>{frames}</div>"
            f"<h2>Overlays</h2><div class=grid>{overlays or '<p class=muted>none</p>'}</div>"
        )
        return _page(timeline_id, body)

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


def serve_viewer(storage: Storage, *, port: int, console: Console) -> None:
    """Serve the pages on the loopback address until the process is interrupted; port 0 takes a free one."""
    server = viewer_server(storage, port)
    console.print(f"http://127.0.0.1:{server.server_port}/  (until Ctrl-C)", highlight=False)
    try:
        server.serve_forever()
    finally:
        server.server_close()


def viewer_server(storage: Storage, port: int) -> BaseWSGIServer:
    """Return the viewer behind its door, listening on the loopback address; it answers from `serve_forever` on."""
    app = Doors(Viewer(storage), policy=PAGE_POLICY)
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)


def _table(heads: Iterable[str], rows: str) -> str:
    if not rows:
        return "<p class=muted>none</p>"
    return f"<table><tr>{''.join(f'<th>{head}' for head in heads)}{rows}</table>"


def _page(title: str, body: str, *, status: int = 200) -> Response:
    home = "<nav><a href='/'>structureflow</a></nav>" if title != "structureflow" else ""
    html = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{home}<h1>{escape(title)}</h1>{body}</html>"
    )
    return Response(html, status=status, mimetype="text/html")
