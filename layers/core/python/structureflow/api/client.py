"""The API from Python, typed: over HTTP, with the standard library alone; botocore signs where it must be."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode, urljoin

from pydantic import BaseModel, ValidationError

from structureflow import arguments, errors
from structureflow.api import media_replies, replies, timeline_replies
from structureflow.api.client_arguments import CHECKS, check_header, check_url
from structureflow.errors import ApiReplyError, ApiUnreachableError, InputNotFoundError, StructureFlowError
from structureflow.extras import importing
from structureflow.frames.pages import FramePage
from structureflow.models.results import Manifest

__all__ = ["ApiClient"]

Signer = Callable[[str, str, Mapping[str, str], bytes], Mapping[str, str]]
"""Called as ``sign(method, url, headers, body)``; gives the headers to send."""
_Reply = TypeVar("_Reply", bound=BaseModel)

#: API Gateway gives up after 30 seconds.
_TIMEOUT_S: Final = 35.0
_POLL_S: Final = 1.0
_JSON: Final = "application/json"


@arguments.checking(CHECKS)
class ApiClient:
    """Asks an API of structureflow: that of a stack (`signed`), or that of `structureflow viewer` on this machine.

    Every method raises the typed error that the API answers with, as the library itself would, and
    `ApiUnreachableError` where there is no answer.

    Args:
        url: of the API, such as ``http://127.0.0.1:8400`` or a stack's output ``ApiUrl``.
        token: sent as a bearer token, where the API asks for one.
        sign: signs requests, where they must be signed.
        timeout_s: of one request.

    >>> client = ApiClient("http://127.0.0.1:8400")
    >>> [(job.task_id, job.state) for job in client.jobs()]
    [('walk-1', 'done')]
    >>> client.job("walk-1").segments
    1
    >>> (segment,) = client.segments("walk-1")
    >>> segment.guided, segment.filled, segment.generated
    (((0, 0), (16, 16)), ((1, 15),), ())
    """

    def __init__(
        self, url: str, *, token: str | None = None, sign: Signer | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        check_url(url, "url")
        arguments.number(above=0)(timeout_s, "timeout_s")
        self._url = url.rstrip("/") + "/"
        self._token = token
        self._sign = sign
        self._timeout_s = timeout_s

    @classmethod
    @arguments.checked(url=check_url, region=check_header, timeout_s=arguments.number(above=0))
    def signed(cls, url: str, *, region: str, timeout_s: float = _TIMEOUT_S) -> Self:
        """Return a client that signs with the credentials that the AWS SDK finds (extra ``aws``).

        Args:
            url: of the API.
            region: where the stack is.
            timeout_s: of one request.
        """
        with importing("ApiClient.signed"):
            import botocore.session
            from botocore.auth import SigV4Auth
            from botocore.awsrequest import AWSRequest

        session = botocore.session.get_session()

        def sign(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
            request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
            credentials = session.get_credentials()
            if credentials is None:
                raise errors.SettingsError("ApiClient.signed: expected credentials where the AWS SDK looks, got none")
            SigV4Auth(credentials, "execute-api", region).add_auth(request)
            return dict(request.headers)

        return cls(url, sign=sign, timeout_s=timeout_s)

    # --- jobs ----------------------------------------------------------------------------------------

    def about(self) -> replies.About:
        """Return what is there, and what a request may name."""
        return self._get(replies.About, "about")

    def jobs(self) -> Iterator[replies.JobRow]:
        """Iterate over all jobs, in the order of their ids; a page at a time."""
        for page in self._pages(replies.JobPage, "jobs"):
            yield from page.jobs

    def job(self, task_id: str) -> replies.JobView:
        """Return where a job is, and how far."""
        return self._get(replies.JobView, f"jobs/{_name(task_id)}")

    def wait(
        self,
        task_id: str,
        *,
        timeout_s: float,
        watch: Callable[[replies.JobView], None] = lambda _: None,
        poll_s: float = _POLL_S,
    ) -> replies.JobView:
        """Poll until a job is done or failed; `watch` sees every poll. A job just sent may have no status yet.

        Raises:
            DeadlineError: it did not end within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                job = self.job(task_id)
            except errors.ObjectNotFoundError:
                job = None
            if job is not None:
                watch(job)
                if job.state != "running":
                    return job
            if time.monotonic() > deadline:
                where = "not started" if job is None else job.stage
                raise errors.DeadlineError(f"job {task_id}: expected an end within {timeout_s:g} s, but it is {where}")
            time.sleep(poll_s)

    def request(self, task_id: str) -> replies.RequestView:
        """Return what a job was asked for, as it took it."""
        return self._get(replies.RequestView, f"jobs/{_name(task_id)}/request")

    def manifest(self, task_id: str) -> Manifest:
        """Return every output of a finished job."""
        return self._get(Manifest, f"jobs/{_name(task_id)}/manifest")

    def segments(self, task_id: str) -> Iterator[replies.SegmentView]:
        """Iterate over the segments of a finished job, a page at a time."""
        for page in self._pages(replies.SegmentPage, f"jobs/{_name(task_id)}/segments"):
            yield from page.segments

    def segment_frames(self, task_id: str, index: int) -> replies.SegmentFrames:
        """Return the frames of a finished segment: whose each is, and how well it is known."""
        return self._get(replies.SegmentFrames, f"jobs/{_name(task_id)}/segments/{index}/frames")

    def downloads(self, task_id: str) -> replies.Downloads:
        """Return every file of a finished job by who takes it."""
        return self._get(replies.Downloads, f"jobs/{_name(task_id)}/downloads")

    # --- new jobs --------------------------------------------------------------------------------------

    def upload(self, task_id: str, path: Path | str) -> str:
        """Send a video, an image or an archive for a job, and return the key that a request then names.

        Raises:
            InputNotFoundError: there is no such file.
        """
        file = Path(path)
        if not file.is_file():
            raise InputNotFoundError(f"{file}: there is no such file")
        wish = {"name": file.name, "size_bytes": file.stat().st_size}
        ticket = self._send(replies.UploadTicket, "POST", f"jobs/{_name(task_id)}/uploads", wish)
        with file.open("rb") as body:
            length = {"Content-Length": str(wish["size_bytes"])}
            request = urllib.request.Request(  # noqa: S310 - checked
                self._joined(ticket.url), data=body, headers={**ticket.headers, **length}, method=ticket.method
            )
            _open(request, self._timeout_s)
        return ticket.key

    def check(self, task_id: str, request: Mapping[str, Any]) -> replies.CheckedRequest:
        """Return everything that is wrong with a request, without what it names being looked at."""
        return self._send(replies.CheckedRequest, "POST", f"jobs/{_name(task_id)}/check", request)

    def send(self, task_id: str, request: Mapping[str, Any], *, again: bool = False) -> replies.SentJob:
        """Put a request; its arrival starts the job. `again` puts it over an earlier one of that name."""
        path = f"jobs/{_name(task_id)}" + ("?again=true" if again else "")
        return self._send(replies.SentJob, "PUT", path, request)

    def inputs(self) -> Iterator[replies.InputView]:
        """Iterate over files that were uploaded for jobs; a page at a time."""
        for page in self._pages(replies.InputPage, "inputs"):
            yield from page.inputs

    def preview(
        self, request: Mapping[str, Any], *, segment: int = 0, gap: tuple[int, int] | None = None, frames: int = 12
    ) -> media_replies.PreviewReply:
        """Return a gap of a segment at a quarter of its size; without `gap` the first one."""
        wish = {"request": request, "segment": segment, "gap": gap, "frames": frames}
        return self._send(media_replies.PreviewReply, "POST", "previews", wish)

    def forecast(self, request: Mapping[str, Any]) -> media_replies.ForecastReply:
        """Return what a job will take, about: seconds and US dollars."""
        return self._send(media_replies.ForecastReply, "POST", "forecasts", {"request": request})

    # --- timelines -------------------------------------------------------------------------------------

    def timelines(self) -> Iterator[timeline_replies.TimelineRow]:
        """Iterate over all timelines, in the order of their ids; a page at a time."""
        for page in self._pages(timeline_replies.TimelinePage, "timelines"):
            yield from page.timelines

    def timeline(self, timeline_id: str) -> timeline_replies.TimelineView:
        """Return what a timeline's frame cache holds."""
        return self._get(timeline_replies.TimelineView, f"timelines/{_name(timeline_id)}")

    @arguments.checked(width_px=arguments.whole(1))
    def thumbnails(
        self, timeline_id: str, sequences: Sequence[int], *, width_px: int = 160, leave_out_damaged: bool = False
    ) -> FramePage:
        """Return the first frames of `sequences` that fit into one reply, as base64 JPEGs."""
        asked = {
            "sequences": ",".join(str(one) for one in sequences),
            "width_px": width_px,
            "damaged": "list" if leave_out_damaged else "refuse",
        }
        return self._get(FramePage, f"timelines/{_name(timeline_id)}/frames", asked)

    def frame(self, timeline_id: str, sequence: int, *, width_px: int | None = None) -> bytes:
        """Return one frame as a JPEG."""
        asked = {} if width_px is None else {"width_px": width_px}
        return self._bytes(f"timelines/{_name(timeline_id)}/frames/{sequence}", asked)

    def damaged(self, timeline_id: str) -> timeline_replies.DamagedFrames:
        """Return which of a timeline's frames are gone, or are not those that were cached."""
        return self._get(timeline_replies.DamagedFrames, f"timelines/{_name(timeline_id)}/damaged")

    def overlays(
        self, timeline_id: str, *, job_id: str | None = None, stage: str | None = None
    ) -> Iterator[timeline_replies.OverlayUrl]:
        """Iterate over a timeline's overlays: of all jobs, of one, or of one stage of one; a page at a time."""
        asked = {name: value for name, value in (("job_id", job_id), ("stage", stage)) if value is not None}
        for page in self._pages(timeline_replies.OverlayPage, f"timelines/{_name(timeline_id)}/overlays", asked):
            yield from page.overlays

    def clear(self, timeline_id: str, *, overlays: bool = False) -> int:
        """Remove a timeline's cached frames, and its overlays if asked; return how many objects."""
        path = f"timelines/{_name(timeline_id)}?overlays={str(overlays).lower()}"
        return self._send(timeline_replies.ClearedTimeline, "DELETE", path, None).removed

    def rebuild(self, timeline_id: str, *, quality: int | None = None) -> timeline_replies.StartedRebuild:
        """Have a timeline's frames written anew from its chunks; `timeline` tells how that goes."""
        body = {} if quality is None else {"quality": quality}
        return self._send(timeline_replies.StartedRebuild, "POST", f"timelines/{_name(timeline_id)}/rebuild", body)

    # --- files and archives ----------------------------------------------------------------------------

    def archive(self, key: str) -> media_replies.ArchiveView:
        """Return what an archive of flows holds."""
        return self._get(media_replies.ArchiveView, "archives/meta", {"key": key})

    @arguments.checked(width_px=arguments.whole(1))
    def flow_picture(self, key: str, flow: int, *, width_px: int = 480) -> bytes:
        """Return one flow of an archive in colours, as a JPEG."""
        return self._bytes("archives/flow", {"key": key, "flow": flow, "width_px": width_px})

    def fetch(self, url: str) -> bytes:
        """Return the bytes of a file by a `url` of a reply; the store's URLs are signed already."""
        return _open(urllib.request.Request(self._joined(url)), self._timeout_s)  # noqa: S310 - checked

    # --- requests --------------------------------------------------------------------------------------

    def _joined(self, url: str) -> str:
        """Return a URL of a reply in full: the API's own, or its store's, but never a file of this machine."""
        try:
            whole = urljoin(self._url, url)
        except ValueError:
            whole = url
        check_url(whole, "url")
        return whole

    def _pages(self, model: type[_Reply], path: str, asked: Mapping[str, Any] | None = None) -> Iterator[_Reply]:
        page: str | None = None
        while True:
            found = self._get(model, path, {**(asked or {}), **({} if page is None else {"page": page})})
            yield found
            page = getattr(found, "next_page", None)
            if page is None:
                return

    def _get(self, model: type[_Reply], path: str, asked: Mapping[str, Any] | None = None) -> _Reply:
        return _parsed(model, self._bytes(path, asked))

    def _bytes(self, path: str, asked: Mapping[str, Any] | None = None) -> bytes:
        query = f"?{urlencode(asked)}" if asked else ""
        return self._ask("GET", path + query, b"")

    def _send(self, model: type[_Reply], method: str, path: str, body: Mapping[str, Any] | None) -> _Reply:
        data = b"" if body is None else json.dumps(body).encode()
        return _parsed(model, self._ask(method, path, data))

    def _ask(self, method: str, path: str, body: bytes) -> bytes:
        url = urljoin(self._url, path)
        headers: Mapping[str, str] = {"Content-Type": _JSON} if body else {}
        if self._token is not None:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        if self._sign is not None:
            headers = self._sign(method, url, headers, body)
        request = urllib.request.Request(url, body or None, dict(headers), method=method)  # noqa: S310 - checked above
        return _open(request, self._timeout_s)


def _name(value: str) -> str:
    return quote(value, safe="")


def _open(request: urllib.request.Request, timeout_s: float) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310 - as its makers say
            data: bytes = reply.read()
            return data
    except urllib.error.HTTPError as error:
        with error:
            raise _typed(error.code, error.read()) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        where = f"{request.get_method()} {request.full_url.partition('?')[0]}"
        raise ApiUnreachableError(f"{where}: {getattr(error, 'reason', None) or error}") from error


def _parsed(model: type[_Reply], data: bytes) -> _Reply:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise ApiReplyError(
            f"expected {model.__name__}, got {data[:80]!r} with {error.error_count()} problems; of another version?"
        ) from error


def _typed(status: int, data: bytes) -> StructureFlowError:
    """Return the error that the API answers with, of its own type where this version knows it."""
    try:
        found = json.loads(data)
        code, message, detail = str(found["code"]), str(found["message"]), dict(found["detail"])
    except (ValueError, KeyError, TypeError):
        return ApiReplyError(f"HTTP status {status}: {data[:200].decode('utf-8', 'replace')}", status=status)
    kind: object = getattr(errors, code, None)
    if isinstance(kind, type) and issubclass(kind, StructureFlowError):
        return kind(message, **{name: value for name, value in detail.items() if name != "message"})
    return ApiReplyError(f"{code}: {message}", status=status)
