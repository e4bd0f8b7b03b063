"""What the renderer takes its pictures from and gives its frames to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32
from structureflow.guide.masks import MaskValue
from structureflow.references import Reference

Picture = NDArray[np.uint8]
"""Pixels in the format of the rendering (`structureflow.guide.pictures`)."""

Mask = MaskValue | NDArray[np.uint8]
"""255 = generate, 0 = keep: one value for the whole frame, or ``(height, width)`` uint8 of just these two."""


Gray = NDArray[np.uint8]
"""``(h, w)`` uint8 BT.601 luma over the area of the flow grid, and of its size."""


class StructureFrames(Protocol):
    """The frames of the structure video at the size of the flow grid, as often as they are asked for.

    They are asked for from several threads, but never by two at once.
    """

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """Return the frames of these numbers, in the order asked for.

        Args:
            indices: frame numbers from the start of the video, a few dozen at a time; any order, no doubles.

        Raises:
            StructureFramesError: they cannot be had.
        """
        ...


class GuideSource(Protocol):
    """Where the pictures of guides come from, fitted to the resolution (`images.fit`), in the rendering's format.

    An array that is read-only never changes, and is passed on by reference; any other one is copied before the
    next is asked for.
    """

    def image(self, reference: Reference) -> Picture:
        """Return a guide image; the renderer never changes it."""
        ...

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Picture]:
        """Yield `count` frames of a guide video from frame `first`."""
        ...


class SegmentSink(Protocol):
    """Where the frames of a segment go."""

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        """Take frame `index`; called once per frame, in order, from one thread.

        Args:
            index: 0 to the number of frames minus 1.
            guide: in the format of the rendering; change nothing. A read-only array never changes and may be kept;
                any other one is valid during the call only: copy what you keep.
            mask: of the frame; an array is valid during the call only.
        """
        ...


@runtime_checkable
class MotionSink(SegmentSink, Protocol):
    """A sink that may want to see the motion too; each hook is called for every frame, before its `write`."""

    @property
    def wants_flow(self) -> bool:
        """Whether `flow` is to be called."""
        ...

    @property
    def wants_visibility(self) -> bool:
        """Whether `visibility` is to be called."""
        ...

    def flow(self, index: int, flow: Field32) -> None:
        """Take the motion that leads from frame ``index - 1`` to `index`, as far as motion strength lets it.

        Args:
            index: the frame.
            flow: ``(height, width, 2)`` float32, (dx, dy) in output pixels, content to the right is positive
                dx; zero where no motion was applied (guided and unguided frames). Valid during the call only.
        """
        ...

    def visibility(self, index: int, visibility: NDArray[np.uint8]) -> None:
        """Take how far the pixels of a frame are known from guided frames.

        Args:
            index: the frame.
            visibility: ``(height, width)`` uint8: 255 seen in an anchor (or guided), 0 made up by warping what
                an anchor does not show (or left unguided); soft between. Valid during the call only.
        """
        ...


@runtime_checkable
class PathSink(SegmentSink, Protocol):
    """A sink that may want to see where pixels come from; the hook is called for filled frames, before `write`."""

    @property
    def wants_path(self) -> bool:
        """Whether `path` is to be called."""
        ...

    def path(self, index: int, displacement: Field32) -> None:
        """Take the way from a filled frame back to its anchor: the one before the gap where that reaches it.

        Args:
            index: the frame.
            displacement: ``(height, width, 2)`` float32, in output pixels: pixel x shows what the anchor has at
                ``x + displacement(x)``. Valid during the call only.
        """
        ...


@runtime_checkable
class WholeSink(SegmentSink, Protocol):
    """A sink that may want filled frames before holes are painted over; the hook is called before their `write`."""

    @property
    def wants_whole(self) -> bool:
        """Whether `whole` is to be called."""
        ...

    def whole(self, index: int, picture: Picture) -> None:
        """Take a filled frame as motion makes it, also where no anchor shows it.

        Args:
            index: the frame.
            picture: in the format of the rendering; valid until the frame's `write` is over.
        """
        ...
