"""The formats that a segment can be rendered in: RGB for libraries, the encoder's planes for videos.

A picture is one array, made of parts that are drawn each for itself: RGB is one part of three channels; planes are
luma at full size and twice chroma at half of it: half as many samples, and nothing to convert afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from structureflow.guide.masks import MID_GREY, grey_frame
from structureflow.media.planes import chroma, flat_planes, frozen, luma, planes_shape

Part = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """How a picture lies in memory.

    Attributes:
        name: ``rgb``: ``(H, W, 3)`` uint8 RGB, full range; ``planes``: see `structureflow.media.planes.Planes`.
    """

    name: Literal["rgb", "planes"]

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the array of a picture of `height` x `width` pixels."""
        return (height, width, 3) if self.name == "rgb" else planes_shape(height, width)

    def parts(self, picture: NDArray[np.uint8]) -> tuple[Part, ...]:
        """View what is drawn each for itself, ``(h, w)`` or ``(h, w, channels)``; the first is of full size."""
        return (picture,) if self.name == "rgb" else (luma(picture), *chroma(picture))

    def part_tables(self, tables: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Return tables of the three channels, ``(3, 256)`` uint8, as ``cv2.LUT`` takes them for each part."""
        return (np.ascontiguousarray(tables.T[None]),) if self.name == "rgb" else tuple(tables)

    def grey(self, height: int, width: int) -> NDArray[np.uint8]:
        """Return a read-only picture that says nothing: mid-grey."""
        if self.name == "rgb":
            return frozen(grey_frame(height, width))
        return flat_planes(height, width, MID_GREY)


RGB: Final = PictureFormat("rgb")
PLANES: Final = PictureFormat("planes")
