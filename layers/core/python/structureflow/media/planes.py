"""Pictures as the encoder takes them: luma at full size, colour at half of it."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint8]
"""``(H * 3 // 2, W)`` uint8, H and W even: H rows of Y, then U and V at half height and width, without gaps (I420).

BT.709 limited range (Y 16 to 235, U and V 16 to 240). A chroma sample is the mean of its four pixels: players
differ in where they place it, but FFmpeg's default conversion, by which OpenCV, PyAV and so the generators read,
spreads it over just these four (measured: 22 to 29 % less squared error than with H.264's nominal left siting).
"""

NEUTRAL_CHROMA: Final = 128

# ITU-R BT.709-6, items 3.2 to 3.5: luma weights, colour differences, 8-bit limited-range quantisation.
_KR: Final = 0.2126
_KB: Final = 0.0722
_KG: Final = 1 - _KR - _KB
_RGB_TO_YUV: Final = np.array(
    [
        [219 * _KR, 219 * _KG, 219 * _KB, 16 * 255],
        [-112 * _KR / (1 - _KB), -112 * _KG / (1 - _KB), 112, 128 * 255],
        [112, -112 * _KG / (1 - _KR), -112 * _KB / (1 - _KR), 128 * 255],
    ]
) / 255  # fmt: skip
_YUV_TO_RGB: Final = np.linalg.inv(np.vstack([_RGB_TO_YUV, [0, 0, 0, 1]]))[:3]
#: Of masks: so far below black and above white that what an encoder changes is clipped by whoever reads RGB or grey.
_MASK_LUMA: Final = (4, 247)
_GREY_TO_LUMA: Final = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)
_MASK_TO_LUMA: Final = np.where(np.arange(256) > 127, _MASK_LUMA[1], _MASK_LUMA[0]).astype(np.uint8)


def planes_shape(height: int, width: int) -> tuple[int, int]:
    """Return the shape of the `Planes` of a picture of `height` x `width` pixels, both even."""
    return height * 3 // 2, width


def luma(planes: Planes) -> NDArray[np.uint8]:
    """View Y as ``(H, W)``."""
    return planes[: planes.shape[0] * 2 // 3]


def chroma(planes: Planes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """View U and V, each as ``(H // 2, W // 2)``; `planes` is contiguous."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    both = planes[height:].reshape(2, height // 2, width // 2)
    return both[0], both[1]


def rgb_to_planes(rgb: NDArray[np.uint8], out: Planes | None = None) -> Planes:
    """Convert a picture to what the encoder takes.

    Args:
        rgb: ``(H, W, 3)`` uint8 RGB 0 to 255, full range; H and W even.
        out: contiguous `Planes` to write to.

    Returns:
        `out`, or a new array; each value within 1.0 of the exact conversion (OpenCV's 10-bit coefficients).
    """
    height, width = rgb.shape[:2]
    planes = np.empty(planes_shape(height, width), np.uint8) if out is None else out
    cv2.transform(rgb, _RGB_TO_YUV[:1], dst=luma(planes))
    # The conversion is linear, so RGB is averaged first: a quarter of the work, and one rounding less.
    mean = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    for weights, samples in zip(_RGB_TO_YUV[1:], chroma(planes), strict=True):
        cv2.transform(mean, weights[None], dst=samples)
    return planes


def planes_to_rgb(planes: Planes, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
    """Convert planes to a picture that is looked at: full size, or smaller.

    Args:
        planes: see `Planes`.
        height, width: of the result, in pixels, at most the picture's own, which is the default.

    Returns:
        ``(height, width, 3)`` uint8 RGB, full range, fresh memory.
    """
    bright: NDArray[Any] = luma(planes)
    colour: NDArray[Any] = cv2.merge(chroma(planes))
    size = (width or bright.shape[1], height or bright.shape[0])
    if size != (bright.shape[1], bright.shape[0]):
        bright = cv2.resize(bright, size, interpolation=cv2.INTER_AREA)
    shrinks = size[0] <= colour.shape[1] and size[1] <= colour.shape[0]
    colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(cv2.transform(cv2.merge([bright, colour]), _YUV_TO_RGB), np.uint8)


def grey_to_planes(grey: NDArray[np.uint8], out: Planes | None = None) -> Planes:
    """Convert ``(H, W)`` uint8, 0 (black) to 255 (white), H and W even; to `out`, or to a new array."""
    height, width = grey.shape
    planes = np.empty(planes_shape(height, width), np.uint8) if out is None else out
    cv2.LUT(grey, _GREY_TO_LUMA, dst=luma(planes))
    planes[height:] = NEUTRAL_CHROMA
    return planes


def mask_to_planes(mask: NDArray[np.uint8], out: Planes | None = None) -> Planes:
    """Convert a mask so that it comes back from an encoder as it was, to the byte.

    Args:
        mask: ``(H, W)`` uint8, 0 or 255 only; H and W even.
        out: contiguous `Planes` to write to.

    Returns:
        `out`, or a new array: black and white beyond the limited range.
    """
    height, width = mask.shape
    planes = np.empty(planes_shape(height, width), np.uint8) if out is None else out
    cv2.LUT(mask, _MASK_TO_LUMA, dst=luma(planes))
    planes[height:] = NEUTRAL_CHROMA
    return planes


def flat_planes(height: int, width: int, grey: int) -> Planes:
    """Return a read-only picture of one grey, 0 (black) to 255 (white)."""
    planes = grey_to_planes(np.full((height, width), grey, np.uint8))
    planes.flags.writeable = False
    return planes


def frozen(picture: NDArray[Any]) -> NDArray[Any]:
    """Make an array read-only, which tells whoever takes it that it may be kept; return it."""
    picture.flags.writeable = False
    return picture
