"""The structure video itself as control: its pictures as they are, or their edges."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.guide.images import fit
from structureflow.media.planes import Planes, flat_planes, grey_to_planes, rgb_to_planes
from structureflow.models.outputs import CannyOptions
from structureflow.targets.output import Clip, EncodedOutput, Made

ControlKind = Literal["canny", "raw"]

_CONSUMER: Final = "control video of VACE, Wan Fun Control, LTX and ControlNets"
_MEANINGS: Final[dict[ControlKind, str]] = {
    "canny": "edges of the structure video's frames (OpenCV Canny), white (255) on black; all black: no guidance",
    "raw": "RGB, the structure video's frames, covered and cropped; all black: no guidance",
}


class ControlVideo(EncodedOutput):
    """Shows, for each frame of the segment, the frame of the structure video that stands there."""

    def __init__(self, kind: ControlKind, clip: Clip, options: CannyOptions) -> None:
        """Make a `kind` of video of `clip`'s size; `options` are for edges."""
        super().__init__(clip)
        self._kind = kind
        self._options = options
        self._black = flat_planes(clip.height, clip.width, 0)
        self._scratch = np.empty_like(self._black)
        self._video = self._encoder(f"{kind}.mp4")

    def show(self, picture: NDArray[np.uint8] | None) -> None:
        """Append a frame: ``(H, W, 3)`` uint8 RGB of the structure video, of any size; None: no guidance."""
        self._video.write(self._black if picture is None else self._planes(picture))

    def _planes(self, picture: NDArray[np.uint8]) -> Planes:
        fitted = fit(picture, self._clip.height, self._clip.width)
        if self._kind == "raw":
            return rgb_to_planes(fitted, self._scratch)
        edges = cv2.Canny(fitted, self._options.low, self._options.high)
        if self._options.intensity < 1:
            edges = np.rint(edges * np.float32(self._options.intensity))
        return grey_to_planes(np.asarray(edges, np.uint8), self._scratch)

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        self._video.finish()
        return [Made(self._video.path.name, self._video.path, self._clip.video(_CONSUMER, _MEANINGS[self._kind]))]
