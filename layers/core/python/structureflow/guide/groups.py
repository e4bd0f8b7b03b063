"""Frames that a model takes as one: the first by itself, then groups of a few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from structureflow.guide.gap import GapFrame
from structureflow.guide.masks import GENERATE


def in_groups(frames: Iterator[GapFrame | None], first: int, group: int) -> Iterator[GapFrame | None]:
    """Give the filled frames of each of the model's groups one mask: white where one of them is.

    A frame that is left to the generator makes the whole group so. Up to `group` frames are held back.

    Args:
        frames: of a gap, in order; None: left to the generator.
        first: the number of the first in the segment.
        group: 1: every frame has its own mask.
    """
    if group == 1:
        yield from frames
        return
    held: list[GapFrame | None] = []
    for index, frame in enumerate(frames, first):
        # what the next frame overwrites is copied
        held.append(frame if frame is None or frame.step is None else replace(frame, step=frame.step.copy()))
        if index % group == 0:
            yield from _alike(held)
            held = []
    yield from _alike(held)


def _alike(frames: list[GapFrame | None]) -> Iterator[GapFrame | None]:
    masks = [frame.unseen for frame in frames if frame is not None and frame.unseen is not None]
    if not masks:
        yield from frames
        return
    white = masks[0]
    for other in masks[1:]:
        white = np.asarray(cv2.max(white, other), np.uint8)
    if None in frames:
        white = np.full_like(white, GENERATE)
    for frame in frames:
        yield None if frame is None else replace(frame, unseen=white)
