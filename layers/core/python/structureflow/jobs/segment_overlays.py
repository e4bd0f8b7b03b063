"""The pictures per frame that a segment leaves in the frame cache, and what is drawn on them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32
from structureflow.frames.overlays import Overlay, save_overlays
from structureflow.jobs.services import Services
from structureflow.models.job import OverlayStage
from structureflow.models.results import JobRecord

Image = NDArray[np.uint8]

_AT_ONCE: Final = 16
#: Pixels between the arrows of `path_picture`.
PATH_STEP_PX: Final = 24


class SegmentOverlays:
    """Stores a segment's overlays beside the rendering, those that the request asks for."""

    def __init__(self, record: JobRecord, index: int, services: Services) -> None:
        """Store overlays of segment `index`."""
        self.stages: tuple[OverlayStage, ...] = record.request.overlays
        self._record = record
        self._index = index
        self._services = services
        self._pool = ThreadPoolExecutor(services.workers, thread_name_prefix="overlays")
        self._pending: list[Future[int]] = []

    def add(self, stage: OverlayStage, index: int, image: Image) -> None:
        """Store a picture of frame `index` in the background, if its stage is asked for; `image` must stay as it is."""
        if stage not in self.stages:
            return
        while len(self._pending) >= _AT_ONCE:
            self._pending.pop(0).result()
        overlay = Overlay(index, f"segment{self._index:03d}", image)
        self._pending.append(
            self._pool.submit(
                save_overlays,
                self._services.storage,
                self._record.timeline_id,
                self._record.task_id,
                stage,
                [overlay],
            )
        )

    def wait(self) -> None:
        """Return when all are stored; raise what went wrong."""
        for pending in self._pending:
            pending.result()
        self._pending.clear()

    def close(self, *, cancel: bool) -> None:
        """Wait for what is under way; leave out what is not, if `cancel`."""
        self._pool.shutdown(wait=True, cancel_futures=cancel)


def guidance_picture(picture: Image, *, generated: bool, filled: bool) -> Image:
    """Frame a picture in the colour of its state: green given, blue filled by motion, red generated.

    Args:
        picture: ``(H, W, 3) uint8 RGB``; changed, and returned.
        generated: whether the generator makes it, whole.
        filled: whether motion filled it.
    """
    colour = (208, 56, 56) if generated else (64, 112, 224) if filled else (48, 168, 88)
    height, width = picture.shape[:2]
    thickness = max(2, min(height, width) // 40)
    cv2.rectangle(picture, (0, 0), (width - 1, height - 1), colour, 2 * thickness)
    return picture


def path_picture(picture: Image, ways: Field32) -> Image:
    """Draw into a picture where its pixels come from: an arrow from the place in the anchor to the place here.

    Args:
        picture: ``(H, W, 3) uint8 RGB``; changed, and returned.
        ways: ``(h, w, 2)`` float32, the way back to the anchor of every `PATH_STEP_PX`-th pixel, the first one half
            a step from the corner.
    """
    half = PATH_STEP_PX // 2
    limit = np.float32(2 * max(picture.shape))
    for (row, column), (dx, dy) in zip(
        np.ndindex(*ways.shape[:2]), ways.reshape(-1, 2).clip(-limit, limit), strict=True
    ):
        here = half + column * PATH_STEP_PX, half + row * PATH_STEP_PX
        there = round(here[0] + float(dx)), round(here[1] + float(dy))
        cv2.arrowedLine(picture, there, here, (255, 220, 64), 1, cv2.LINE_AA, tipLength=0.2)
    return picture
