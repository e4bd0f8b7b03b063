"""Guides of a segment as fitted frames in the encoder's format; each file is fetched once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError, MediaError
from structureflow.guide.images import fit, load_guide_image
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.limits import MAX_IMAGE_BYTES
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.planes import Planes, frozen, rgb_to_planes
from structureflow.media.still import FILES_IN_FLIGHT
from structureflow.models.job import Segment
from structureflow.references import Reference

#: Fitted images kept in memory; those that are asked for again later wait in files.
_KEPT_IMAGES = 4
#: Guide videos open at once; one that must be opened again is decoded from its start.
_OPEN_VIDEOS = 4
#: What a fetched guide video is called here, which nobody asked for it by.
_LOCAL_NAME = "guide_video"


class FittedGuides:
    """A `GuideSource` of the renderer over what a segment's guides name, as `Planes`; a context manager.

    Args:
        segment: whose guides are asked for, in order.
        sources: the guides of the job, as the orchestrator found them.
        folder: where guide videos, and images that come again, are kept; the caller removes it.
        height, width: every frame's size in pixels.
    """

    def __init__(
        self,
        segment: Segment,
        services: Services,
        sources: Mapping[Reference, Source],
        folder: Path,
        *,
        height: int,
        width: int,
    ) -> None:
        self._services = services
        self._sources = sources
        self._folder = folder
        self._height = height
        self._width = width
        self._images: dict[Reference, Planes] = {}
        self._videos: dict[Reference, _OpenVideo] = {}
        self._uses = Counter(reference for guide in segment.guides for reference in guide.fade or (guide.image,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._videos:
            self._videos.popitem()[1].close()

    def image(self, reference: Reference) -> Planes:
        """Return a guide image, cover-fitted; read-only."""
        self._uses[reference] -= 1
        if reference not in self._images:
            while len(self._images) >= _KEPT_IMAGES:
                self._put_away(next(iter(self._images)))
            stored = self._stored(reference)
            self._images[reference] = self._load(reference) if stored is None else stored
        return self._images[reference]

    def _load(self, reference: Reference) -> Planes:
        source = self._sources[reference]
        with FILES_IN_FLIGHT.hold(min(source.size_bytes, MAX_IMAGE_BYTES)):
            data, _ = source.read(max_bytes=MAX_IMAGE_BYTES)
            picture = load_guide_image(data, height=self._height, width=self._width, what=str(reference))
        return frozen(rgb_to_planes(picture))

    def _put_away(self, reference: Reference) -> None:
        picture = self._images.pop(reference)
        path = self._image_file(reference)
        if self._uses[reference] > 0 and not path.exists():
            np.save(path, picture)

    def _stored(self, reference: Reference) -> Planes | None:
        path = self._image_file(reference)
        return frozen(np.load(path)) if path.exists() else None

    def _image_file(self, reference: Reference) -> Path:
        return self._folder / f"{_digest(reference)}.npy"

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Planes]:
        """Iterate over `count` frames of a guide video from frame `first`, cover-fitted; each valid until the next.

        Where an earlier guide stopped at or before `first`, decoding goes on from there.

        Raises:
            GuidanceError: the video ends before that.
            MediaError: it is no video, is damaged or beyond the limits; the message names the reference.
        """
        try:
            opened = self._open(reference, first)
            planes: Planes | None = None
            for index in range(first, first + count):
                frame = opened.frame(index)
                if frame is None:
                    raise GuidanceError(
                        f"guide video {reference}: expected frames {first} to {first + count - 1}, "
                        f"but it has {opened.position}"
                    )
                planes = rgb_to_planes(fit(frame, self._height, self._width), planes)
                yield planes
        except MediaError as error:
            raise error.within(str(reference), instead_of=_LOCAL_NAME) from error

    def _open(self, reference: Reference, first: int) -> _OpenVideo:
        opened = self._videos.pop(reference, None)
        if opened is None or opened.position > first:
            if opened is not None:
                opened.close()
            while len(self._videos) >= _OPEN_VIDEOS:
                self._videos.pop(next(iter(self._videos))).close()
            limits = DecodeLimits(max_frames=self._services.max_video_frames, min_frames=1)
            opened = _OpenVideo(VideoReader(self._fetched(reference), limits))
        self._videos[reference] = opened
        return opened

    def _fetched(self, reference: Reference) -> Path:
        path = self._folder / _digest(reference) / _LOCAL_NAME
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self._sources[reference].fetch(path)
        return path


class _OpenVideo:
    """A guide video that is read forwards."""

    def __init__(self, reader: VideoReader) -> None:
        self.position = 0
        self._reader = reader
        self._frames = iter(reader)

    def frame(self, index: int) -> NDArray[np.uint8] | None:
        """Return frame `index`, not before `position`; None where the video ends before it."""
        if index > self.position:
            self.position += self._reader.skip(index - self.position)
        if self.position < index:
            return None
        frame = next(self._frames, None)
        if frame is None:
            return None
        self.position += 1
        return frame.image

    def close(self) -> None:
        self._reader.close()


def _digest(reference: Reference) -> str:
    return hashlib.sha256(reference.reveal().encode()).hexdigest()[:16]
