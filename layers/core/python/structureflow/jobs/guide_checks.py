"""Every guide of a request is looked at before any work is done: a missing or broken one fails the job at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from structureflow.errors import MediaError
from structureflow.guide.images import check_guide_image
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.limits import MAX_IMAGE_BYTES
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.still import FILES_IN_FLIGHT, PIXELS_IN_FLIGHT
from structureflow.models.job import JobRequest
from structureflow.references import Reference

_IMAGE_CHECKS: Final = 8


def check_guides(request: JobRequest, services: Services) -> list[Source]:
    """Open every guide image and guide video of a request; return them in the order of its references.

    Raises:
        MediaError, InputNotFoundError, InputNotAllowedError: one cannot be used; the message names it.
        TransientError: the store broke off.
    """
    videos = {guide.video for segment in request.segments for guide in segment.guides if guide.video is not None}

    def check(reference: Reference) -> Source:
        found = services.inputs.find(reference)
        if reference in videos:
            return _check_video(found, services)
        with FILES_IN_FLIGHT.hold(min(found.size_bytes, MAX_IMAGE_BYTES)):
            data, source = found.read(max_bytes=MAX_IMAGE_BYTES)
            check_guide_image(data, what=str(reference))
        return source

    with ThreadPoolExecutor(min(_IMAGE_CHECKS, services.requests_at_once), thread_name_prefix="guides") as pool:
        return list(pool.map(check, request.references()))


def _check_video(found: Source, services: Services) -> Source:
    """Open a guide video; that it is as long as asked for shows when its frames are decoded."""
    with services.scratch() as folder:
        path = folder / "guide_video"
        source = found.fetch(path)
        limits = DecodeLimits(max_frames=services.max_video_frames, min_frames=1)
        try:
            # One at a time: what a decoder takes for its first picture is known only when it has it.
            with PIXELS_IN_FLIGHT.hold(PIXELS_IN_FLIGHT.capacity_bytes):
                VideoReader(path, limits, threads=1).close()
        except MediaError as error:
            raise error.within(f"guide video {found.reference}", instead_of=path.name) from error
    return source
