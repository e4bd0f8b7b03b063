"""What of a frame the generator keeps, and what it makes: clean masks, aligned to what a model packs into one place.

Every mask is 0 or 255: white (255) = generate, black (0) = keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.arguments import index_of
from structureflow.errors import GuidanceError
from structureflow.models.job import Holes, MaskMode

MaskValue = Literal[0, 255]

#: Mask value of what the generator keeps: guided frames, and what of filled ones an anchor really shows.
KEEP: Final = 0
#: Mask value of what the generator makes.
GENERATE: Final = 255
#: Every channel of the pixels that nothing is known of.
MID_GREY: Final = 128

#: A pixel is kept where this much of it, of 255, comes from anchors that show it.
_KNOWN: Final = 217
#: On the evidence's grid: a pixel is what most are around it, so specks vanish and holes close; then white grows
#: by half the second number. Measured on drawn scenes, see `docs/decisions.md`.
_AROUND_PX: Final = 7
_MARGIN_PX: Final = 3
_CROSS: Final = np.asarray(cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), np.uint8)
_GROWN: Final = np.ones((_MARGIN_PX, _MARGIN_PX), np.uint8)
#: A block is white where more than this share of it is: less is the margin's own edge.
_BLOCK_SHARE: Final = 1 / 16


@dataclass(frozen=True, slots=True)
class Masking:
    """What of motion-filled frames is masked.

    Attributes:
        mode: `visibility`: white where no anchor really shows the pixel; `keyframes`: filled frames are all white,
            motion is a hint; `filled`: they are all black.
        holes: what the guide shows where no anchor shows the pixel and the frame is not all kept: mid-`grey`, or what
            the `warp` gives there.
        grid: masks are made of blocks of so many pixels, counted from the top left corner.
        group: after the first frame, filled frames have one mask for every group of so many, as the model does.
    """

    mode: MaskMode = "visibility"
    holes: Holes = "grey"
    grid: int = 16
    group: int = 1

    def __post_init__(self) -> None:
        """Refuse what no request can ask for.

        Raises:
            GuidanceError: an unknown mode or filling, or a grid or group below 1.
        """
        for name, known in (("mode", get_args(MaskMode)), ("holes", get_args(Holes))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise GuidanceError(f"masking.{name}: expected one of {', '.join(known)}, got {value!r:.40}")
        for name in ("grid", "group"):
            value = getattr(self, name)
            if index_of(value) is None or value < 1:
                raise GuidanceError(f"masking.{name}: expected a whole number from 1 on, got {value!r:.40}")

    @property
    def needs_evidence(self) -> bool:
        """Whether it must be known what anchors show."""
        return self.mode == "visibility" or (self.mode == "keyframes" and self.holes == "grey")


FILLED: Final = Masking("filled", "warp")


def grey_frame(height: int, width: int) -> NDArray[np.uint8]:
    """Return a frame that says nothing: ``(height, width, 3)`` uint8 RGB, all 128."""
    return np.full((height, width, 3), MID_GREY, np.uint8)


def mask_frame(height: int, width: int, value: MaskValue, out: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Return a mask frame of one value: ``(height, width, 3)`` uint8, white (255) = generate, black (0) = keep.

    Args:
        height, width: in pixels.
        value: 0 or 255.
        out: ``(height, width, 3)`` uint8 to write to and return.
    """
    if out is None:
        return np.full((height, width, 3), value, np.uint8)
    out[...] = value
    return out


# --- on the grid of the evidence ----------------------------------------------------------------------


def unseen(known_share: NDArray[np.uint8], undecided: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Return a clean mask of what is not known: closed, without specks, grown by a margin.

    Args:
        known_share: ``(h, w)`` uint8, 255 = wholly known.
        undecided: ``(h, w)`` bool, where it does not count.

    Returns:
        ``(h, w)`` uint8, 255 or 0.
    """
    _, white = cv2.threshold(known_share, _KNOWN, 255, cv2.THRESH_BINARY_INV)
    if undecided is not None:
        white = cv2.bitwise_or(white, undecided.view(np.uint8) * np.uint8(255))
    white = cv2.medianBlur(white, _AROUND_PX)
    return np.asarray(cv2.dilate(white, _GROWN), np.uint8)


# --- on the grid of the output ------------------------------------------------------------------------


class Blocks:
    """Makes masks of whole blocks of the output."""

    def __init__(self, height: int, width: int, grid: int) -> None:
        """Prepare for masks of `height` x `width` pixels, in blocks of `grid` pixels from the top left corner."""
        self._grid = grid
        self._rows, self._columns = -(-height // grid), -(-width // grid)
        self._below, self._right = self._rows * grid - height, self._columns * grid - width
        self._shape = (height, width)

    def of(self, hidden: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the mask of a soft picture of what is hidden: ``(height, width)`` uint8, 255 or 0, not to be changed.

        Args:
            hidden: ``(height, width)`` uint8, 255 = wholly hidden.
        """
        _, white = cv2.threshold(hidden, 127, 255, cv2.THRESH_BINARY)
        if self._grid == 1:
            return np.asarray(white, np.uint8)
        if self._below or self._right:
            white = cv2.copyMakeBorder(white, 0, self._below, 0, self._right, cv2.BORDER_REPLICATE)
        shares = cv2.resize(white, (self._columns, self._rows), interpolation=cv2.INTER_AREA)
        _, blocks = cv2.threshold(shares, int(255 * _BLOCK_SHARE), 255, cv2.THRESH_BINARY)
        # single black blocks between white ones are of no use to a model
        blocks = cv2.morphologyEx(blocks, cv2.MORPH_CLOSE, _CROSS)
        size = (self._columns * self._grid, self._rows * self._grid)
        whole = cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(whole[: self._shape[0], : self._shape[1]], np.uint8)


def shrunk(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask for samples that stand for several pixels each: white where all of them are."""
    if mask.shape == (height, width):
        return mask
    shares = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.threshold(shares, 254, 255, cv2.THRESH_BINARY)[1], np.uint8)
