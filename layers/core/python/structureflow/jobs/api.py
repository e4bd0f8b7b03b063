"""What screens ask for: a job's state and outputs, pages of a timeline's frames and overlays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from structureflow import __version__, keys
from structureflow.errors import (
    ForeignOriginError,
    FrameCorruptError,
    InvalidRequestError,
    JobStateError,
    ObjectNotFoundError,
    SettingsError,
    StorageError,
    StructureFlowError,
    TransientError,
    shortened,
)
from structureflow.frames.overlays import list_overlay_frames
from structureflow.frames.pages import FramePage, FrameUrlPage
from structureflow.frames.screens import THUMBNAIL_QUALITY, frame_page, frame_url_page
from structureflow.frames.slot import clear_timeline as remove_timeline
from structureflow.jobs.documents import get_document
from structureflow.jobs.services import Services
from structureflow.limits import MAX_FIELD_NAME_CHARS, MAX_PAGE, MAX_PROBLEMS, MAX_SEQUENCES
from structureflow.models.job import OverlayStage
from structureflow.models.problems import problems_of_details
from structureflow.models.results import JobStatus, Manifest, Model
from structureflow.storage.base import MAX_PRESIGN_S

#: Signed by a Lambda role a URL ends with the role's session at the latest, whatever it says itself.
DEFAULT_EXPIRY_S: Final = 3600
VERSION: Final = __version__
#: Said at the top of ``/openapi.json``.
SIGNED: Final = "Jobs, timelines and their frames. Every request is signed (AWS SigV4, service execute-api)."
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
#: How browsers are to take every answer: as what it says it is, nothing in it runs, and its URLs are not kept.
ANSWER_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class _Parameters(BaseModel):
    """Query parameters: text, as it comes. The resolver validates them, and describes them in ``/openapi.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_names(query: BaseModel, given: Mapping[str, str] | None) -> None:
    """Refuse query parameters that a route does not have; the resolver passes them over.

    Args:
        query: what the resolver made of those that it has.
        given: all of them.

    Raises:
        InvalidRequestError: there are others; the first of them are named.
    """
    known = type(query).model_fields
    unknown = [name for name in given or () if name not in known]
    if unknown:
        problems = [f"{shortened(name, MAX_FIELD_NAME_CHARS)}: unknown" for name in unknown[:MAX_PROBLEMS]]
        raise InvalidRequestError(f"{'; '.join(problems)}; expected {', '.join(known) or 'none'}", problems=problems)


def refusal(errors: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Return the error for what the resolver found wrong with a request."""
    problems = [
        f"{shortened('.'.join(_place(place)), MAX_FIELD_NAME_CHARS) or 'query'}: {sentence}"
        for place, sentence in problems_of_details(errors[:MAX_PROBLEMS])
    ]
    return InvalidRequestError("; ".join(problems), problems=problems)


def _place(loc: Sequence[Any]) -> list[str]:
    """Return the names of a field without where it was looked for (``query``, ``path``, and the model's own)."""
    return [str(part) for part in loc if part not in ("query", "path")]


class OutputsQuery(_Parameters):
    """How long URLs are valid."""

    expires_s: int = Field(default=DEFAULT_EXPIRY_S, ge=1, le=MAX_PRESIGN_S)


class FramesQuery(_Parameters):
    """Which frames; `sequences` as ``0-20,30``, both ends inclusive, `page` the `next_page` of the page before."""

    sequences: str | None = None
    page: str | None = None

    @property
    def numbers(self) -> list[int] | None:
        """The sequence numbers asked for, in their order; None means all."""
        return None if self.sequences is None else parse_sequences(self.sequences)


class ThumbnailsQuery(FramesQuery):
    """Which frames, how many in a page, and how large."""

    limit: int = Field(default=200, ge=1, le=1000)
    width_px: int | None = Field(default=None, ge=8, le=8192)
    quality: int = Field(default=THUMBNAIL_QUALITY, ge=1, le=100)


class UrlsQuery(FramesQuery, OutputsQuery):
    """Which frames, and how long their URLs are valid."""

    limit: int = Field(default=1000, ge=1, le=2000)


class OverlaysQuery(OutputsQuery):
    """Whose overlays: of all jobs, of one, or of one stage of one."""

    job_id: str | None = None
    stage: OverlayStage | None = None
    page: int = Field(default=0, ge=0, le=MAX_PAGE)
    limit: int = Field(default=500, ge=1, le=2000)


class ClearQuery(_Parameters):
    """Whether the overlays go too."""

    overlays: bool = False

    @field_validator("overlays", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        if value in ("true", "false"):
            return value == "true"
        raise ValueError(f"expected true or false, got {value!r:.20}")


class JobOutputs(Model):
    """URLs of a finished job's objects, by their path in the job's folder."""

    task_id: str
    run_id: str
    expires_s: int
    urls: dict[str, str]


class OverlayUrl(Model):
    """An overlay for screens."""

    job_id: str
    stage: str
    sequence: int
    name: str
    size_bytes: int
    url: str


class OverlayPage(Model):
    """A page of overlays; `next_page` is None on the last one."""

    timeline_id: str
    overlays: tuple[OverlayUrl, ...]
    next_page: str | None


class ClearedTimeline(Model):
    """How many objects were removed."""

    timeline_id: str
    removed: int


#: What the routes answer with, by the name of their function.
ANSWERS: Final[dict[str, type[BaseModel]]] = {
    "job_status": JobStatus,
    "job_manifest": Manifest,
    "job_outputs": JobOutputs,
    "timeline_frames": FramePage,
    "timeline_frame_urls": FrameUrlPage,
    "timeline_overlays": OverlayPage,
    "clear_timeline": ClearedTimeline,
}


def check_origin(origin: str | None, host: str, allowed: Sequence[str] = ()) -> None:
    """Refuse a request that a page of another site makes in somebody's browser.

    Args:
        origin: the ``Origin`` header; programs send none.
        host: by which the API was called.
        allowed: further origins, as browsers send them.

    Raises:
        ForeignOriginError: the page is neither of this host nor of one of those.
    """
    known = {f"https://{host}", f"http://{host}", *(one.rstrip("/") for one in allowed)}
    if origin is not None and origin.lower() not in {one.lower() for one in known}:
        raise ForeignOriginError(
            f"expected no Origin, that of {host}, or one that the stack allows, got {origin!r:.80}"
        )


def parse_sequences(text: str) -> list[int]:
    """Turn ``0-20,30`` into sequence numbers; ranges are inclusive.

    Raises:
        InvalidRequestError: another form, a range that falls, or more than 100,000 numbers.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InvalidRequestError(f"sequences: expected numbers and ranges as in 0-20,30, got {part!r:.40}")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or len(numbers) + last - first >= MAX_SEQUENCES:
            raise InvalidRequestError(
                f"sequences: expected a rising range of at most {MAX_SEQUENCES}, got {part!r:.60}"
            )
        numbers.extend(range(first, last + 1))
    return numbers


def job_status(task_id: str, services: Services) -> JobStatus:
    """Return where a job is.

    Raises:
        ObjectNotFoundError: no such job.
    """
    return _document(services, keys.job_status(task_id), JobStatus, made_by="the orchestrator")


def job_manifest(task_id: str, services: Services) -> Manifest:
    """Return every output of a finished job.

    Raises:
        ObjectNotFoundError: no such job, or it is not done.
    """
    return _document(services, keys.job_manifest(task_id), Manifest, made_by="AssembleJob")


def job_outputs(task_id: str, query: OutputsQuery, services: Services) -> JobOutputs:
    """Return URLs that read a finished job's objects without credentials; errors as `job_manifest`."""
    manifest = job_manifest(task_id, services)
    objects = [manifest.flows, manifest.report]
    objects += [output for segment in manifest.segments for output in segment.outputs.values()]
    prefix = keys.job_prefix(task_id)
    return JobOutputs(
        task_id=task_id,
        run_id=manifest.run_id,
        expires_s=query.expires_s,
        urls={
            one.key.removeprefix(prefix): services.storage.presigned_url(one.key, expires_s=query.expires_s)
            for one in objects
            if one is not None
        },
    )


def timeline_frames(timeline_id: str, query: ThumbnailsQuery, services: Services) -> FramePage:
    """Return a page of frames as base64 JPEGs, small enough for one reply.

    Raises:
        FrameCacheError: no such timeline or frame, a bad page, a corrupt frame.
    """
    return frame_page(
        services.storage,
        timeline_id,
        query.numbers,
        page=query.page,
        limit=query.limit,
        width_px=query.width_px,
        quality=query.quality,
        workers=services.workers,
    )


def timeline_frame_urls(timeline_id: str, query: UrlsQuery, services: Services) -> FrameUrlPage:
    """Return a page of URLs that read frames without credentials; errors as `timeline_frames`."""
    return frame_url_page(
        services.storage,
        timeline_id,
        query.numbers,
        page=query.page,
        limit=query.limit,
        expires_s=query.expires_s,
    )


def timeline_overlays(timeline_id: str, query: OverlaysQuery, services: Services) -> OverlayPage:
    """Return a page of a timeline's overlays with URLs; a timeline without any gives an empty page."""
    entries = list_overlay_frames(services.storage, timeline_id, query.job_id, query.stage)
    stop = query.page + query.limit
    wanted = list(islice(entries, query.page, stop + 1))
    return OverlayPage(
        timeline_id=timeline_id,
        overlays=tuple(
            OverlayUrl(
                job_id=entry.job_id,
                stage=entry.stage,
                sequence=entry.sequence,
                name=entry.name,
                size_bytes=entry.size_bytes,
                url=services.storage.presigned_url(entry.key, expires_s=query.expires_s),
            )
            for entry in wanted[: query.limit]
        ),
        next_page=str(stop) if len(wanted) > query.limit else None,
    )


def clear_timeline(timeline_id: str, query: ClearQuery, services: Services) -> ClearedTimeline:
    """Remove a timeline's cached frames, and its overlays if asked."""
    removed = remove_timeline(services.storage, timeline_id, overlays=query.overlays)
    return ClearedTimeline(timeline_id=timeline_id, removed=removed)


_Document = TypeVar("_Document", bound=Model)


def _document(services: Services, key: str, model: type[_Document], *, made_by: str) -> _Document:
    """Read a document; that it is not there is no fault of an earlier step here, but the answer."""
    if not services.storage.exists(key):
        raise ObjectNotFoundError(f"{key}: there is no such object", key=key)
    return get_document(services.storage, key, model, made_by=made_by)


#: The first kind that fits wins: those that are also a ValueError come before it.
_STATUS_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (TransientError, 503),
    (FileNotFoundError, 404),
    (FrameCorruptError, 500),
    (PermissionError, 403),
    (JobStateError, 409),
    (SettingsError, 500),
    (StorageError, 500),
    (ValueError, 400),
)


def status_code(error: Exception) -> int:
    """Return the HTTP status of a typed error: whose fault it is, and whether a later try may help."""
    return next((status for kind, status in _STATUS_CODES if isinstance(error, kind)), 500)


def error_body(error: StructureFlowError) -> str:
    """Return the JSON of a typed error, as it also stands in ``status.json``: code, message, detail."""
    return json.dumps(error.as_dict(), default=str)
