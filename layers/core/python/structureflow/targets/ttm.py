"""The output `ttm`: the folder that Time-to-Move's own scripts take (``run_wan.py --input-path``, ``run_cog.py``).

They read ``first_frame.png``, ``motion_signal.mp4``, ``mask.mp4`` and ``prompt.txt`` by these names, as many frames of
both videos as they generate, and the mask as white (above one half) where the motion signal is to be followed. Where
it is not, denoising still begins with the signal's picture, so what an anchor does not show is filled with the
nearest pixels that one does, smoothed (Singer et al., "Time-to-Move", ICLR 2026).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from structureflow.guide.ports import Mask
from structureflow.media.planes import Planes, chroma, luma, mask_to_planes, planes_to_rgb
from structureflow.models.outputs import OutputDescription
from structureflow.targets.output import Clip, EncodedOutput, Made

FIRST_FRAME: Final = "ttm/first_frame.png"
MOTION_SIGNAL: Final = "ttm/motion_signal.mp4"
MASK_VIDEO: Final = "ttm/mask.mp4"
PROMPT: Final = "ttm/prompt.txt"

_CONSUMER: Final = "Time-to-Move --input-path, the folder"
#: Specks and slits up to this many pixels are closed: the mask is sampled once for 8x8 pixels.
_SPECK_PX: Final = 9
_NEAREST: Final = 5
_SMOOTH_PX: Final = 33


class TimeToMove(EncodedOutput):
    """Encodes the motion signal and where it is to be followed."""

    wants_visibility = True
    wants_whole = True

    def __init__(self, clip: Clip, prompt: str) -> None:
        """Make the folder of a segment; `prompt` is what ``prompt.txt`` says."""
        super().__init__(clip)
        self._prompt = prompt
        self._signal = self._encoder(MOTION_SIGNAL)
        self._mask = self._encoder(MASK_VIDEO, is_mask=True)
        self._kernel = np.ones((_SPECK_PX, _SPECK_PX), np.uint8)
        self._followed: NDArray[np.uint8] = np.full((clip.height, clip.width), 255, np.uint8)
        self._shown: Planes | None = None
        #: Of a filled frame: what the guide may show as grey is part of the signal.
        self._whole: Planes | None = None
        self._scratch = np.empty((clip.height * 3 // 2, clip.width), np.uint8)

    def visibility(self, index: int, visibility: NDArray[np.uint8]) -> None:  # noqa: ARG002 - frames come in order
        """See `SegmentOutput.visibility`."""
        _, seen = cv2.threshold(visibility, 127, 255, cv2.THRESH_BINARY)
        closed = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, self._kernel)
        self._followed = np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, self._kernel), np.uint8)

    def whole(self, index: int, picture: Planes) -> None:  # noqa: ARG002 - frames come in order
        """See `SegmentOutput.whole`."""
        self._whole = picture

    def write(self, index: int, guide: Planes, mask: Mask) -> None:  # noqa: ARG002 - its own mask is made of what is seen
        """See `SegmentOutput.write`."""
        picture, self._whole = guide if self._whole is None else self._whole, None
        if index == 0:
            Image.fromarray(planes_to_rgb(picture)).save(self._clip.file(FIRST_FRAME))
        least = int(self._followed.min())
        if least:
            self._shown = picture.copy()
        elif self._followed.any():
            self._shown = filled(picture, self._followed)
        # a frame of which nothing is known goes on with the last one: grey would be taken for a picture
        self._signal.write(picture if self._shown is None else self._shown)
        self._mask.write(mask_to_planes(self._followed, self._scratch))

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        self._signal.finish()
        self._mask.finish()
        prompt = self._clip.file(PROMPT)
        prompt.write_text(self._prompt.strip() + "\n", encoding="utf-8")
        clip = self._clip
        image = OutputDescription(
            kind="image",
            consumer=_CONSUMER,
            meaning="RGB, the frame to begin with",
            axes="height width rgb",
            shape=(clip.height, clip.width, 3),
            dtype="uint8",
        )
        said = "the request's prompt" if self._prompt.strip() else "empty: the request has no prompt"
        text = OutputDescription(kind="text", consumer=_CONSUMER, meaning=f"UTF-8, {said}")
        signal = clip.video(_CONSUMER, "RGB, the moved pictures; what no anchor shows has the nearest pixels")
        white = clip.video(_CONSUMER, "white (255): follow the motion signal, black (0): leave it to the generator")
        return [
            Made(FIRST_FRAME, clip.file(FIRST_FRAME), image),
            Made(MOTION_SIGNAL, self._signal.path, signal),
            Made(MASK_VIDEO, self._mask.path, white),
            Made(PROMPT, prompt, text),
        ]


def filled(picture: Planes, known: NDArray[np.uint8]) -> Planes:
    """Return a picture whose unknown pixels are those of the nearest known ones.

    Args:
        picture: `Planes`; not changed.
        known: ``(H, W)`` uint8, 255 known and 0 unknown, some of each.
    """
    result = picture.copy()
    height, width = known.shape
    half = cv2.resize(known, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    _fill([luma(result)], known)
    # a sample of colour is known if the four pixels that it is of are
    _fill(list(chroma(result)), np.where(half == 255, 255, 0).astype(np.uint8))
    return result


def _fill(parts: list[NDArray[np.uint8]], known: NDArray[np.uint8]) -> None:
    if not known.any() or known.all():
        return
    _, labels = cv2.distanceTransformWithLabels(
        cv2.bitwise_not(known), cv2.DIST_L2, _NEAREST, labelType=cv2.DIST_LABEL_PIXEL
    )
    unknown = known == 0
    for part in parts:
        by_label = np.zeros(int(labels.max()) + 1, np.uint8)
        by_label[labels[~unknown]] = part[~unknown]
        part[unknown] = by_label[labels[unknown]]
        # streaks from the edge would be taken for content
        part[unknown] = cv2.blur(part, (_SMOOTH_PX, _SMOOTH_PX), borderType=cv2.BORDER_REPLICATE)[unknown]
