"""From a decoder's frame to RGB, by the colours that it is tagged with."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from structureflow.media.grey import on_grey
from structureflow.media.hdr import ColourMap, needs_mapping

# Numbers of ITU-T H.273, table 4.
_RGB: Final = 0
_BT709: Final = 1
_UNSPECIFIED: Final = 2
_RESERVED: Final = 3
_BT601: Final = 5
_BT2020: Final = 9
_BT2020_CONSTANT: Final = 10


class RgbConverter:
    """Turns frames of one stream into RGB of one size; keeps its scaler and its colour map from frame to frame.

    Args:
        height, width: of every result, in pixels: the stored size with square pixels, not yet turned.
        threads: for conversion.
    """

    def __init__(self, height: int, width: int, threads: int) -> None:
        self._height = height
        self._width = width
        self._threads = threads
        self._reformatter = VideoReformatter()
        self._map: ColourMap | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert a frame.

        Matrix and range follow the tags; where they are missing, pictures larger than SD are taken as BT.709, as
        players do. HLG, PQ and wide primaries are brought to BT.709. Transparent pixels are laid on mid-grey.

        Returns:
            ``(height, width, 3) uint8 RGB``, memory that nobody else holds.

        Raises:
            av.error.FFmpegError: the frame's pixels can't be converted.
        """
        if _has_alpha(frame.format.name):
            return on_grey(self._convert(frame, "rgba"))
        if needs_mapping(frame.color_trc, frame.color_primaries):
            frame = self._mapped(frame)
        return self._convert(frame, "rgb24")

    def _mapped(self, frame: VideoFrame) -> VideoFrame:
        kind = frame.color_trc, frame.color_primaries
        if self._map is None or self._map.kind != kind:
            self._map = ColourMap(*kind, threads=self._threads)
        return self._map(self._reformat(frame, "gbrp10le", frame.height, frame.width))

    def _convert(self, frame: VideoFrame, target: str) -> NDArray[np.uint8]:
        converted = self._reformat(frame, target, self._height, self._width)
        return cast("NDArray[np.uint8]", converted.to_ndarray())

    def _reformat(self, frame: VideoFrame, target: str, height: int, width: int) -> VideoFrame:
        scales = (frame.height, frame.width) != (height, width)
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=target,
            src_colorspace=matrix_of(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC if scales else Interpolation.BILINEAR,
            threads=self._threads,
        )


def matrix_of(frame: VideoFrame) -> int:
    """Return the matrix (ITU-T H.273, table 4) by which a frame's YCbCr was made from RGB."""
    tagged = frame.colorspace
    if tagged == _BT2020_CONSTANT:
        return _BT2020
    if tagged not in (_UNSPECIFIED, _RESERVED) and (tagged != _RGB or _is_rgb(frame.format.name)):
        return tagged
    if frame.color_primaries == ColorPrimaries.BT2020:
        return _BT2020
    # the rule of mpv and Chromium; FFmpeg's own default is BT.601 at any size
    return _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601


@lru_cache(64)
def _has_alpha(name: str) -> bool:
    if name == "pal8":  # its palette may be transparent
        return True
    return any(component.is_alpha for component in VideoFormat(name).components)


@lru_cache(64)
def _is_rgb(name: str) -> bool:
    return VideoFormat(name).is_rgb
