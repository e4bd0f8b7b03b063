"""A frame of a timeline in memory, and how it goes to a screen."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments, keys
from structureflow.arguments import check_fields, number
from structureflow.frames.jpeg import check_image, encode_jpeg, perceptual_hash, thumbnail
from structureflow.frames.pages import FrameB64


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of a timeline.

    Attributes:
        sequence: its number, zero-based.
        chunk_id: the source chunk it comes from.
        timestamp: presentation time in seconds, on the clock of the whole timeline.
        image: ``(H, W, 3) uint8 RGB``.
        perceptual_hash: 16 hex digits; empty in a frame that is yet to be written.
    """

    sequence: int
    chunk_id: str
    timestamp: float
    image: NDArray[np.uint8]
    perceptual_hash: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no frame.

        Raises:
            InvalidArgumentError, NotAnImageError, InvalidKeyError: which attribute it is, the message says.
        """
        keys.check_sequence(self.sequence)
        check_fields(
            self, chunk_id=arguments.text, timestamp=number(), image=arguments.array, perceptual_hash=arguments.text
        )
        check_image(self.image)


def frame_b64(frame: Frame, quality: int, width_px: int | None) -> FrameB64:
    """Encode a frame for a screen, scaled down to `width_px` if given.

    Raises:
        NotAnImageError: its image is no ``(H, W, 3) uint8``.
    """
    image = frame.image if width_px is None else thumbnail(frame.image, width_px)
    return FrameB64(
        sequence=frame.sequence,
        chunk_id=frame.chunk_id,
        timestamp=frame.timestamp,
        perceptual_hash=frame.perceptual_hash or perceptual_hash(frame.image),
        width_px=image.shape[1],
        height_px=image.shape[0],
        jpeg_base64=base64.b64encode(encode_jpeg(image, quality)).decode(),
    )
