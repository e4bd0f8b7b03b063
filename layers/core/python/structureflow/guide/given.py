"""The frames that guides give: held images, pieces of videos, cross-fades."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from structureflow.errors import GuidanceError
from structureflow.guide.ports import GuideSource, Picture
from structureflow.guide.seams import Fade
from structureflow.guide.settings import RenderSettings
from structureflow.models.job import Guide, Segment


class GivenFrames:
    """The guided frames of one segment, checked."""

    def __init__(self, segment: Segment, guides: GuideSource, settings: RenderSettings) -> None:
        """Take pictures from `guides`."""
        self._segment = segment
        self._guides = guides
        self._settings = settings

    def guide_at(self, index: int) -> Guide:
        """Return the guide that begins at frame `index`."""
        return next(guide for guide in self._segment.guides if guide.first == index)

    def of(self, guide: Guide) -> Iterator[Picture]:
        """Yield the frames of a guide; what is not read-only is valid until the next one is asked for.

        Raises:
            GuidanceError: a picture is not of the resolution, or a guide video ends early.
        """
        count = guide.last - guide.first + 1
        if guide.image is not None:
            yield from itertools.repeat(self._checked(self._guides.image(guide.image), guide), count)
        elif guide.fade is not None:
            before, after = (self._checked(self._guides.image(reference), guide) for reference in guide.fade)
            yield from self._fade(before, after, count)
        elif guide.video is not None:
            given = 0
            for frame in itertools.islice(self._guides.video(guide.video, guide.from_frame, count), count):
                given += 1
                yield self._checked(frame, guide)
            if given < count:
                raise GuidanceError(
                    f"guide at {guide.at}: expected {count} frames from frame {guide.from_frame} of {guide.video}, "
                    f"got {given}"
                )

    def _fade(self, before: Picture, after: Picture, count: int) -> Iterator[Picture]:
        shares = [number / count for number in range(1, count + 1)]
        mixed = np.empty_like(before)
        if self._settings.seams == "average":
            yield from (cross_fade(before, after, share, out=mixed) for share in shares)
            return
        fade = Fade(self._settings.form, before, after, shares)
        yield from (fade.frame(number, share, mixed) for number, share in enumerate(shares))

    def _checked(self, frame: Picture, guide: Guide) -> Picture:
        expected = self._settings.form.shape(self._settings.height, self._settings.width)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise GuidanceError(f"guide at {guide.at}: expected {expected} uint8, got {frame.shape} {frame.dtype}")
        return np.ascontiguousarray(frame)


def cross_fade(before: Picture, after: Picture, share: float, out: Picture | None = None) -> Picture:
    """Mix two pictures of one format: `share` 0 is all `before`, 1 is exactly `after`; to `out`, or to a new array."""
    mixed = np.empty_like(before) if out is None else out
    cv2.addWeighted(before, 1 - share, after, share, 0, dst=mixed)
    return mixed
