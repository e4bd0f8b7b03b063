"""New jobs, from screens and programs: files to upload, a request to check, and the request that starts it."""

from __future__ import annotations

import secrets
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any, Final

from structureflow import keys
from structureflow.api.queries import InputsQuery, SendQuery, UploadWish
from structureflow.api.replies import CheckedRequest, CheckedSegment, InputPage, InputView, SentJob, UploadTicket
from structureflow.errors import (
    InvalidRequestError,
    JobExistsError,
    NothingRunsError,
    ObjectExistsError,
)
from structureflow.jobs.services import Services
from structureflow.limits import MAX_IMAGE_BYTES
from structureflow.models.bounds import check_request_bytes
from structureflow.models.job import JobRequest, Segment

#: Long enough for the largest video on a slow line.
_UPLOAD_S: Final = 3600
_VIDEOS: Final = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mxf", ".gif"})
_IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"})
_ARCHIVES: Final = frozenset({".npz"})


def _kind(name: str) -> str | None:
    suffix = PurePosixPath(name).suffix.lower()
    kinds = (("video", _VIDEOS), ("image", _IMAGES), ("flows", _ARCHIVES))
    return next((kind for kind, suffixes in kinds if suffix in suffixes), None)


def upload_ticket(task_id: str, wish: UploadWish, services: Services) -> UploadTicket:
    """Return where and how a file is to be sent, of exactly the size that it is said to have.

    Raises:
        InvalidIdError: the job cannot have that name.
        InvalidRequestError: the file is no video, image or archive by its name, or larger than those may be.
    """
    keys.check_id(task_id, "task_id")
    kind = _kind(wish.name)
    if kind is None:
        known = ", ".join(sorted(_VIDEOS | _IMAGES | _ARCHIVES))
        raise InvalidRequestError(f"name: expected a file that ends in one of {known}, got {wish.name!r:.80}")
    most = MAX_IMAGE_BYTES if kind == "image" else services.max_input_bytes
    if wish.size_bytes > most:
        raise InvalidRequestError(f"size_bytes: expected at most {most} of {kind}, got {wish.size_bytes}")
    key = keys.job_input(task_id, f"{secrets.token_hex(4)}_{plain_name(wish.name)}")
    upload = services.storage.upload_url(
        key, size_bytes=wish.size_bytes, content_type="application/octet-stream", expires_s=_UPLOAD_S
    )
    return UploadTicket(
        key=key, method=upload.method, url=upload.url, headers=dict(upload.headers), expires_s=_UPLOAD_S
    )


def plain_name(name: str) -> str:
    """Return a name of ASCII letters, digits and ``._-`` that ends as `name` does."""
    plain = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in name)
    return plain.replace("..", "_.")[-100:].lstrip(".-")


def input_page(query: InputsQuery, services: Services) -> InputPage:
    """Return a page of files that were uploaded for jobs, by job; each job is a listing."""
    found: list[InputView] = []
    jobs = list(islice(services.storage.folders("jobs/", start_after=query.page), query.limit + 1))
    for task_id in jobs[: query.limit]:
        for info in islice(services.storage.list(f"jobs/{task_id}/inputs/"), query.most):
            name = PurePosixPath(info.key).name
            kind = _kind(name)
            if kind is not None:
                found.append(
                    InputView(
                        key=info.key,
                        name=name.partition("_")[2] or name,
                        task_id=task_id,
                        kind=kind,
                        size_bytes=info.size_bytes,
                        updated_at=info.last_modified,
                        url=services.storage.presigned_url(info.key),
                    )
                )
    return InputPage(inputs=tuple(found), next_page=jobs[query.limit - 1] if len(jobs) > query.limit else None)


def check_request(task_id: str, body: bytes) -> CheckedRequest:
    """Say everything that is wrong with a request, without looking at what it names."""
    try:
        request = _parsed(task_id, body)
    except InvalidRequestError as error:
        problems: list[Any] = error.detail.get("problems") or [error.message]
        return CheckedRequest(valid=False, problems=tuple(str(one) for one in problems), request=None, segments=())
    return CheckedRequest(
        valid=True,
        problems=(),
        request=request.model_dump(mode="json", by_alias=True, exclude_none=True),
        segments=tuple(
            CheckedSegment(frames=segment.frames, unguided=_unguided(segment)) for segment in request.segments
        ),
    )


def send_job(task_id: str, body: bytes, query: SendQuery, services: Services) -> SentJob:
    """Put a request; its arrival starts the job.

    Raises:
        NothingRunsError: nothing here carries jobs out.
        InvalidRequestError: the request is wrong; nothing is put.
        JobExistsError: there is a request of that name, and it is not to be put again.
    """
    if services.sent is None:
        raise NothingRunsError("this store is only shown: nothing here carries jobs out")
    _parsed(task_id, body)
    key = keys.job_request(task_id)
    try:
        services.storage.put(key, body, content_type="application/json", if_absent=not query.again)
    except ObjectExistsError as error:
        raise JobExistsError(
            f"job {task_id}: there is one already; expected another name, or ?again=true", key=key
        ) from error
    services.sent(task_id)
    return SentJob(task_id=task_id, state="requested")


def _unguided(segment: Segment) -> tuple[tuple[int, int], ...]:
    """Return the runs of frames that no guide covers, both ends inclusive; `guide.spans` needs numpy."""
    given = {frame for guide in segment.guides for frame in range(guide.first, guide.last + 1)}
    free = (frame for frame in range(segment.frames) if frame not in given)
    runs = [[frame for _, frame in run] for _, run in groupby(enumerate(free), lambda one: one[1] - one[0])]
    return tuple((run[0], run[-1]) for run in runs)


def _parsed(task_id: str, body: bytes) -> JobRequest:
    check_request_bytes(len(body))
    return JobRequest.parse_json(body, expected_task_id=keys.check_id(task_id, "task_id"))
