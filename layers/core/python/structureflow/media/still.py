"""Decode an image file: bounded before its pixels, upright, in sRGB, 8 bits a channel, without transparency."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from structureflow.errors import MediaLimitError, NotAnImageError
from structureflow.limits import (
    MAX_FILE_BYTES_IN_FLIGHT,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_PIXEL_BYTES_IN_FLIGHT,
)
from structureflow.media.grey import on_grey
from structureflow.media.memory import MemoryBudget
from structureflow.media.orientation import Orientation

__all__ = ["open_image"]

#: Shared by all who decode images in this process.
PIXELS_IN_FLIGHT: Final = MemoryBudget(MAX_PIXEL_BYTES_IN_FLIGHT)
#: Shared by all who read image files whole; asked for before `PIXELS_IN_FLIGHT`.
FILES_IN_FLIGHT: Final = MemoryBudget(MAX_FILE_BYTES_IN_FLIGHT)

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "HEIF", "BMP", "GIF", "TIFF")
#: Measured peak of the most demanding decoders, WebP's and progressive JPEG's, with the result beside them.
_BYTES_PER_PIXEL: Final = 16
_STRIP_PIXELS: Final = 2**20

# what Pillow's decoders raise on damaged files; it has no root of its own
_DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)
# EXIF 2.32, tag 274
_ORIENTATIONS: Final = {
    2: Orientation(mirror=True),
    3: Orientation(mirror=True, flip=True),
    4: Orientation(flip=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, mirror=True),
    7: Orientation(transpose=True, mirror=True, flip=True),
    8: Orientation(transpose=True, flip=True),
}
_SRGB: Final = "sRGB"
#: ICC's name of the colour space that a profile must have, by Pillow's mode.
_SPACES: Final = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}

Strip = Callable[[Image.Image], Image.Image]


class StillImage:
    """An image file whose pixels are decoded, upright size known; made by `open_image`."""

    def __init__(self, image: Image.Image, what: str) -> None:
        self._image = image
        self._what = what
        self._orientation = _ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1), Orientation())

    @property
    def size(self) -> tuple[int, int]:
        """Upright (height, width) in pixels."""
        return self._orientation.size(self._image.height, self._image.width)

    def pixels(self) -> NDArray[np.uint8]:
        """Return ``(H, W, 3) uint8 RGB``, fresh memory; transparent pixels are laid on mid-grey (128).

        Strip by strip, so that no second copy of a large image is made on the way.

        Raises:
            NotAnImageError: its colours cannot be converted.
        """
        image = self._image
        result = np.empty((image.height, image.width, 3), np.uint8)
        rows = max(1, _STRIP_PIXELS // image.width)
        try:
            convert = _to_srgb(image)
            for top in range(0, image.height, rows):
                bottom = min(top + rows, image.height)
                result[top:bottom] = _strip(image.crop((0, top, image.width, bottom)), convert)
        except (ImageCms.PyCMSError, *_DECODER_ERRORS) as error:
            raise NotAnImageError(f"{self._what}: colours of mode {image.mode} cannot be converted: {error}") from error
        return np.ascontiguousarray(self._orientation.apply(result))


@contextmanager
def open_image(
    data: bytes, *, what: str, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS
) -> Iterator[StillImage]:
    """Decode an image file; while the block lasts, its memory counts in `PIXELS_IN_FLIGHT`.

    The first frame of an animation is taken. Sixteen-bit and float channels are brought to 8 bits.

    Args:
        data: a PNG, JPEG, WebP, AVIF, HEIC, BMP, GIF or TIFF file.
        what: names the image in errors.
        max_bytes, max_pixels: refused above, before pixels are decoded.

    Raises:
        NotAnImageError: the bytes are no such file, damaged, or hold numbers whose range nobody can tell.
        MediaLimitError: larger than `max_bytes` or `max_pixels`.
    """
    if len(data) > max_bytes:
        raise MediaLimitError(f"{what}: expected an image file of at most {max_bytes} bytes, got {len(data)}")
    with _typed(what, data, max_pixels):
        opened = Image.open(io.BytesIO(data), formats=_formats())
    with opened as image:
        if image.width * image.height > max_pixels:
            raise MediaLimitError(f"{what}: expected at most {max_pixels} pixels, got {image.width}x{image.height}")
        with PIXELS_IN_FLIGHT.hold(image.width * image.height * _BYTES_PER_PIXEL):
            with _typed(what, data, max_pixels):
                image.load()
                still = StillImage(_eight_bit(image, what), what)
            yield still


@cache
def _formats() -> tuple[str, ...]:
    """Return what can be read; Pillow is taught what phones record, once, when the first image is opened."""
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError:
        # the extra `video` of the distribution
        return tuple(name for name in _FORMATS if name != "HEIF")
    register_heif_opener(thumbnails=False)
    return _FORMATS


@contextmanager
def _typed(what: str, data: bytes, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except (MediaLimitError, NotAnImageError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaLimitError(f"{what}: expected at most {max_pixels} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise NotAnImageError(f"{what}: expected {', '.join(_formats())}, got bytes {data[:12]!r}") from error
    except _DECODER_ERRORS as error:
        raise NotAnImageError(f"{what}: the image is damaged: {error}") from error


def _eight_bit(image: Image.Image, what: str) -> Image.Image:
    """Scale channels of more than 8 bits; Pillow's own conversion saturates or cuts them."""
    if image.mode.startswith("I;16"):
        eight = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    elif image.mode == "F":
        eight = _from_float(np.asarray(image), what)
    elif image.mode == "I":
        eight = _from_integers(np.asarray(image), what)
    else:
        return image
    converted = Image.fromarray(eight)
    converted.info.update(image.info)
    converted.getexif().load(image.getexif().tobytes())
    return converted


def _from_float(values: NDArray[np.float32], what: str) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where one is not a number
        raise NotAnImageError(f"{what}: expected float pixels from 0 to 1, got {low:g} to {high:g}")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _from_integers(values: NDArray[np.int32], what: str) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise NotAnImageError(f"{what}: expected integer pixels from 0 to 65535, got {low} to {high}")
    return (values if high <= 255 else values >> 8).astype(np.uint8)


def _strip(strip: Image.Image, convert: Strip) -> NDArray[np.uint8]:
    if not strip.has_transparency_data:
        return np.asarray(convert(strip), np.uint8)
    layered = strip.convert("RGBA")
    layered = Image.merge("RGBA", (*convert(layered.convert("RGB")).split(), layered.getchannel("A")))
    return on_grey(np.asarray(layered, np.uint8))


def _to_srgb(image: Image.Image) -> Strip:
    """Return what turns parts of `image` into RGB mode: by the embedded profile, where there is a usable one."""
    mode = image.mode if image.mode in _SPACES and not image.has_transparency_data else "RGB"
    if mode == "RGB" and image.mode in {"L", "LA", "1"}:
        mode = "L" if not image.has_transparency_data else "RGB"
    profile = _profile(image, mode)
    if profile is None:
        return lambda part: part.convert("RGB")
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile(_SRGB),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def convert(part: Image.Image) -> Image.Image:
        return transform.apply(part if part.mode == mode else part.convert(mode))

    return convert


def _profile(image: Image.Image, mode: str) -> ImageCms.ImageCmsProfile | None:
    """Return the profile to convert by; None for sRGB, for none, and for one that fits or works not, as browsers do."""
    if mode == "LAB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        description = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError):
        return None
    if profile.profile.xcolor_space != _SPACES[mode] or _SRGB in description:
        return None
    return profile
