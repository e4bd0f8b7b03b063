"""Draw filled frames: the anchors of a gap made ready once, frames under way in buffers that are used again."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Field32, FlowMeta
from structureflow.guide.gap import GapFrame
from structureflow.guide.masks import Blocks, Masking, shrunk
from structureflow.guide.pictures import Part, PictureFormat
from structureflow.guide.ports import Picture
from structureflow.guide.warp import Anchor, Geometry, Warper, expand_mask, mix


class Sheet:
    """What pictures of one size and format are drawn on: the place of each part on the flow grid."""

    def __init__(self, form: PictureFormat, meta: FlowMeta, height: int, width: int) -> None:
        """Place the parts of pictures of `height` x `width` pixels on the grid of `meta`."""
        self.form = form
        self.shape = form.shape(height, width)
        parts = form.parts(np.empty(self.shape, np.uint8))
        self.part_shapes = [part.shape for part in parts]
        self.geometry = Geometry.of(meta, height, width)
        #: Parts of one size lie alike: where that size lies, and which parts they are.
        self.layers = [
            (Geometry.of(meta, *size), [at for at, shape in enumerate(self.part_shapes) if shape[:2] == size])
            for size in dict.fromkeys(shape[:2] for shape in self.part_shapes)
        ]


class Anchors:
    """The two anchors of a gap; buffers are kept from gap to gap."""

    def __init__(self, sheet: Sheet) -> None:
        """Allocate for pictures of the sheet."""
        self._sheet = sheet
        self.start = [Anchor(shape) for shape in sheet.part_shapes]
        self.end = [Anchor(shape) for shape in sheet.part_shapes]
        self._coming: list[Future[None]] = []

    def hold(self, start: Picture | None, end: Picture | None, pool: Executor) -> None:
        """Make the pictures ready on `pool`; no frame of an earlier gap may be under way."""
        self._coming = [
            pool.submit(anchor.hold, part)
            for anchors, picture in ((self.start, start), (self.end, end))
            if picture is not None
            for anchor, part in zip(anchors, self._sheet.form.parts(picture), strict=True)
        ]

    def wait(self) -> None:
        """Return when the anchors are ready."""
        for future in self._coming:
            future.result()


class Slot:
    """The buffers of one frame under way, and what a worker needs to draw it."""

    def __init__(self, sheet: Sheet, masking: Masking, *, keeps_whole: bool = False) -> None:
        """Allocate for pictures of the sheet, masked as `masking` says.

        `keeps_whole` keeps them also as they are before what no anchor shows is painted over.
        """
        self.picture = np.empty(sheet.shape, np.uint8)
        #: What was drawn last, before anything of it was painted over.
        self.whole = np.empty(sheet.shape, np.uint8) if keeps_whole and masking.holes == "grey" else self.picture
        #: Of the frame drawn last: ``(height, width)`` uint8, 255 where no anchor shows the pixel; None if nobody asks.
        self.hidden: NDArray[np.uint8] | None = None
        #: Whether anything of that frame was left unpainted.
        self.shows = True
        self.motion = GapFrame(None, None)
        self._sheet = sheet
        self._warpers = [Warper(geometry) for geometry, _ in sheet.layers]
        self._parts = sheet.form.parts(self.picture)
        self._start = np.empty((sheet.geometry.y.grid, sheet.geometry.x.grid, 2), np.float32)
        self._others = [np.empty(shape, np.uint8) for shape in sheet.part_shapes]
        height, width = sheet.part_shapes[0][:2]
        self._grey = sheet.form.parts(sheet.form.grey(height, width))
        self._paints = masking.holes == "grey"
        self._blocks = Blocks(height, width, masking.grid)
        self._weights = [np.empty(geometry.full_shape, np.uint8) for geometry, _ in sheet.layers]

    def take(self, motion: GapFrame) -> None:
        """Keep the motion of a frame; what the next frame overwrites is copied."""
        if motion.start is not None:
            np.copyto(self._start, motion.start)
            motion = replace(motion, start=self._start)
        self.motion = motion

    def draw(self, anchors: Anchors) -> None:
        """Fill `picture` from the anchors that reach it."""
        anchors.wait()
        motion = self.motion
        for (geometry, numbers), warper, weights in zip(self._sheet.layers, self._warpers, self._weights, strict=True):
            parts = [self._parts[number] for number in numbers]
            others = [self._others[number] for number in numbers]
            if motion.start is not None:
                warper.warp([anchors.start[number] for number in numbers], motion.start, parts)
                self._tint(numbers, parts, 0)
            if motion.end is not None:
                target = parts if motion.start is None else others
                warper.warp([anchors.end[number] for number in numbers], motion.end, target)
                self._tint(numbers, target, 1)
            if motion.end_weight is not None:
                share = expand_mask(motion.end_weight, geometry, weights)
                for part, other in zip(parts, others, strict=True):
                    mix(part, other, share, part)
        self._hide()

    def _tint(self, numbers: list[int], parts: list[Part], anchor: int) -> None:
        """Give pixels of the start anchor (0) or the end anchor (1) the colours of the moment."""
        if self.motion.tables is None:
            return
        tables = self._sheet.form.part_tables(self.motion.tables[anchor])
        for number, part in zip(numbers, parts, strict=True):
            cv2.LUT(part, tables[number], dst=part)

    def _hide(self) -> None:
        """Work out the mask, and paint over what no anchor shows."""
        self.hidden = None
        self.shows = True
        if self.whole is not self.picture:
            np.copyto(self.whole, self.picture)
        if self.motion.unseen is None:
            return
        geometry, _ = self._sheet.layers[0]
        self.hidden = self._blocks.of(expand_mask(self.motion.unseen, geometry, self._weights[0]))
        if self._paints:
            self.shows = cv2.countNonZero(self.hidden) < self.hidden.size
            for part, grey in zip(self._parts, self._grey, strict=True):
                cv2.copyTo(grey, shrunk(self.hidden, *part.shape[:2]), part)

    def flow(self) -> Field32:
        """Return how content moved to this frame, ``(height, width, 2)`` float32 in output pixels; fresh memory."""
        if self.motion.step is None:
            raise GuidanceError("flow: expected the motion's step, which is there only where it was asked for")
        # what was pulled from there has moved from there
        return np.negative(self._warpers[0].expand(self.motion.step))

    def path(self) -> Field32:
        """Return the way back to the anchor, that before the gap where it reaches the frame.

        Returns:
            ``(height, width, 2)`` float32 in output pixels, valid until the next call.
        """
        way = self.motion.end if self.motion.start is None else self.motion.start
        if way is None:
            raise GuidanceError("path: expected a frame that an anchor reaches")
        return self._warpers[0].expand(way)
