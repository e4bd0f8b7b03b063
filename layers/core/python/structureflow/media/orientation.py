"""From stored pictures to displayed ones: cropping, square pixels, rotation and mirroring."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

_MATRIX: Final = struct.Struct("=9i")
_CROPPING: Final = struct.Struct("=4I")


@dataclass(frozen=True, slots=True)
class Orientation:
    """A multiple of a quarter turn, with or without a mirror, as three steps in this order.

    Attributes:
        transpose: swap rows and columns.
        mirror: then swap left and right.
        flip: then swap top and bottom.
    """

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def from_matrix(cls, data: bytes) -> Orientation:
        """Read a display matrix.

        A stored pixel (x, y) is displayed at ``(a x + c y + …, b x + d y + …)``, where a, b, c and d are the
        numbers 0, 1, 3 and 4 of the matrix (ISO/IEC 14496-12, 6.2.2). Angles between quarter turns, which no player
        but FFmpeg's shows, are rounded to the nearest one.

        Args:
            data: nine 32-bit integers in the machine's byte order, as FFmpeg hands them out.

        Returns:
            The orientation; upright for data of another length or a matrix of zeros.
        """
        if len(data) != _MATRIX.size:
            return cls()
        a, b, _, c, d, *_ = _MATRIX.unpack(data)
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror=c < 0, flip=b < 0)
        return cls(mirror=a < 0, flip=d < 0)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the displayed picture."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture ``(H, W, 3) uint8``; one that is upright already is returned as it is."""
        turned = cv2.transpose(image) if self.transpose else image
        if self.mirror or self.flip:
            turned = cv2.flip(turned, -1 if self.mirror and self.flip else 1 if self.mirror else 0)
        return cast("NDArray[np.uint8]", turned)


@dataclass(frozen=True, slots=True)
class Cropping:
    """Rows and columns at the edges of a stored picture that are not displayed."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @classmethod
    def from_side_data(cls, data: bytes, height: int, width: int) -> Cropping:
        """Read a container's cropping of a picture of that size; one that leaves nothing counts as none."""
        if len(data) != _CROPPING.size:
            return cls()
        top, bottom, left, right = _CROPPING.unpack(data)
        if top + bottom >= height or left + right >= width:
            return cls()
        return cls(top, bottom, left, right)

    def scaled(self, down: float, across: float) -> Cropping:
        """Return the cropping of the same picture scaled by these factors."""
        return Cropping(
            round(self.top * down), round(self.bottom * down), round(self.left * across), round(self.right * across)
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of what is left."""
        return height - self.top - self.bottom, width - self.left - self.right

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the edges off a picture ``(H, W, 3) uint8``; the result is a view of it."""
        height, width = image.shape[:2]
        return image[self.top : height - self.bottom, self.left : width - self.right]


def square_size(height: int, width: int, sample_aspect_ratio: float) -> tuple[int, int]:
    """Return the (height, width) at which a picture has square pixels.

    The smaller scale stays, as mpv, VLC and Chromium do: pixels twice as wide as high double the width, pixels
    twice as high as wide double the height, and no detail is lost.

    Args:
        height, width: as stored, in pixels.
        sample_aspect_ratio: width of a stored pixel by its height; 0 where it is not known.
    """
    if sample_aspect_ratio <= 0 or sample_aspect_ratio == 1:
        return height, width
    if sample_aspect_ratio > 1:
        return height, max(1, round(width * sample_aspect_ratio))
    return max(1, round(height / sample_aspect_ratio)), width
