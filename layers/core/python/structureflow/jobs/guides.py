"""Guides of a segment as fitted frames, each file read once, videos decoded as they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError, MediaError
from structureflow.guide.images import MAX_IMAGE_BYTES, fit, load_guide_image
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.references import Reference

#: Fitted images kept at once; a held image or a cross-fade asks for the same one again and again.
_KEPT_IMAGES = 4


class FittedGuides:
    """A `GuideSource` of the renderer over what a request names.

    Args:
        sources: the guides of the job, as the orchestrator found them.
        folder: where guide videos are downloaded to; the caller removes it.
        height, width: every frame's size in pixels.
    """

    def __init__(
        self, services: Services, sources: Mapping[Reference, Source], folder: Path, *, height: int, width: int
    ) -> None:
        self._services = services
        self._sources = sources
        self._folder = folder
        self._height = height
        self._width = width
        self._images: dict[Reference, NDArray[np.uint8]] = {}

    def image(self, reference: Reference) -> NDArray[np.uint8]:
        """Return a guide image, cover-fitted: ``(height, width, 3) uint8 RGB``, not to be changed."""
        if reference not in self._images:
            while len(self._images) >= _KEPT_IMAGES:
                self._images.pop(next(iter(self._images)))
            data, _ = self._sources[reference].read(max_bytes=MAX_IMAGE_BYTES)
            self._images[reference] = load_guide_image(
                data, height=self._height, width=self._width, what=str(reference)
            )
        return self._images[reference]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[NDArray[np.uint8]]:
        """Iterate over `count` frames of a guide video from frame `first`, cover-fitted, RGB.

        Raises:
            GuidanceError: the video ends before that.
            MediaError: it is no video, is damaged or beyond the limits; the message names the reference.
        """
        path = self._folder / hashlib.sha256(reference.reveal().encode()).hexdigest()[:16] / "guide_video"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self._sources[reference].fetch(path)
        limits = DecodeLimits(max_frames=self._services.max_video_frames, min_frames=1)
        try:
            with VideoReader(path, limits) as reader:
                given = reader.skip(first)
                for frame in reader:
                    if given == first + count:
                        return
                    given += 1
                    yield fit(frame.image, self._height, self._width)
        except MediaError as error:
            raise error.within(str(reference)) from error
        if given < first + count:
            raise GuidanceError(
                f"guide video {reference}: expected frames {first} to {first + count - 1}, but it has {given}"
            )
