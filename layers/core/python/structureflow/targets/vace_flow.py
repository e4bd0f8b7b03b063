"""The flow control video of VACE, as its annotator makes it, and the white mask that goes with it.

VACE's ``FlowVisAnnotator`` (vace/annotators/flow.py) takes N frames and gives N pictures: the flow from each frame to
the next, in Middlebury colours, every picture normalised by its own longest vector, the first one doubled.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.colors import flow_to_rgb
from structureflow.flow.fields import Field32, FlowMeta
from structureflow.guide.masks import GENERATE, MID_GREY
from structureflow.guide.ports import Mask
from structureflow.guide.travel import Move
from structureflow.guide.warp import Geometry
from structureflow.media.planes import Planes, flat_planes, frozen, mask_to_planes, rgb_to_planes
from structureflow.targets.output import Clip, EncodedOutput, Made

_CONSUMER: Final = "VACE (Wan 2.1, 2.2) flow control: src_video and src_mask"
#: RAFT's ``flow_viz`` adds it to the longest vector, so that a still picture is white.
_EPSILON_PX: Final = 1e-5
#: Vectors beyond are strays: one pixel in two hundred.
_STRAY_PERCENTILE: Final = 99.5
#: Where so few pixels move that the percentile is below this, the longest of them count.
_LEAST_PX: Final = 0.5


class VaceFlow(EncodedOutput):
    """Paints the motion into each frame; still where a guide holds a frame (white), grey where nothing is known."""

    wants_steps = True

    def __init__(self, clip: Clip, meta: FlowMeta) -> None:
        """Paint for `clip`; flows are those that `meta` describes."""
        super().__init__(clip)
        self._geometry = Geometry.of(meta, clip.height, clip.width)
        self._flow = np.empty((*self._geometry.part_shape, 2), np.float32)
        self._colours = np.empty((*self._geometry.full_shape, 3), np.uint8)
        self._grey = flat_planes(clip.height, clip.width, MID_GREY)
        self._white = flat_planes(clip.height, clip.width, 255)
        self._all = frozen(mask_to_planes(np.full((clip.height, clip.width), GENERATE, np.uint8)))
        self._painted: Planes = self._white
        self._scratch = np.empty_like(self._white)
        self._video = self._encoder("vace_flow.mp4")
        self._mask = self._encoder("vace_flow_mask.mp4", is_mask=True)

    def move(self, index: int, move: Move | None) -> None:  # noqa: ARG002 - moves come in order
        """See `SegmentOutput.move`."""
        if move is None:
            self._painted = self._white
        elif move.step is None:
            self._painted = self._grey
        else:
            self._painted = rgb_to_planes(self._picture(move.step), self._scratch)

    def _picture(self, step: Field32) -> NDArray[np.uint8]:
        """Paint a step on its own grid, and bring the colours to the output's size."""
        geometry, flow = self._geometry, self._flow
        geometry.part(step, flow)
        flow *= np.array([geometry.x.scale, geometry.y.scale], np.float32)
        geometry.enlarge(paint(without_strays(flow)), self._colours)
        return np.ascontiguousarray(geometry.shown(self._colours), np.uint8)

    def write(self, index: int, guide: Planes, mask: Mask) -> None:  # noqa: ARG002 - only that it is a frame
        """See `SegmentOutput.write`."""
        self._mask.write(self._all)
        if index == 0:
            return
        if index == 1:
            self._video.write(self._painted)
        self._video.write(self._painted)

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        colours = (
            "RGB, Middlebury colours of the motion into each frame, normalised by its longest vector; the first "
            "picture is the second's; white: still; grey 128: nothing known"
        )
        white = f"{GENERATE} everywhere: all is generated, the video is a control picture"
        made = []
        for encoder, meaning in ((self._video, colours), (self._mask, white)):
            encoder.finish()
            made.append(Made(encoder.path.name, encoder.path, self._clip.video(_CONSUMER, meaning)))
        return made


def without_strays(flow: Field32) -> Field32:
    """Cut the longest vectors, which few pixels have, to the length of the next.

    RAFT, of which VACE learned, errs by little; a search by patches errs by much at a few places, where things come
    into view, and one such vector would leave all others white.

    Args:
        flow: ``(H, W, 2)`` float32, changed and returned.
    """
    length = cv2.magnitude(flow[..., 0], flow[..., 1])
    longest = np.float32(max(float(np.percentile(length[::4, ::4], _STRAY_PERCENTILE)), _LEAST_PX))
    flow *= np.minimum(1, longest / np.maximum(length, longest))[..., None]
    return flow


def paint(flow: Field32) -> NDArray[np.uint8]:
    """Paint a flow, ``(H, W, 2)`` float32 in pixels, as RAFT's ``flow_viz``: ``(H, W, 3)`` uint8 RGB."""
    longest = float(cv2.magnitude(flow[..., 0], flow[..., 1]).max())
    if longest == 0:
        return np.full((*flow.shape[:2], 3), 255, np.uint8)
    return flow_to_rgb(flow, longest + _EPSILON_PX)
