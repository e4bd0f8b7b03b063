"""How the pictures of a stream become what a player shows."""

from __future__ import annotations

from dataclasses import dataclass

from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from structureflow.media.orientation import Cropping, Orientation, square_size


@dataclass(frozen=True, slots=True)
class Geometry:
    """How stored pictures become displayed ones.

    Attributes:
        height, width: with square pixels, neither cropped nor turned.
        cropping: what is then cut off.
        orientation: how the rest is then turned.
    """

    height: int
    width: int
    cropping: Cropping
    orientation: Orientation

    @property
    def displayed(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return self.orientation.size(*self.cropping.size(self.height, self.width))


def geometry_of(stream: VideoStream, first: VideoFrame, height: int, width: int) -> Geometry:
    """Return how pictures of a stream are displayed.

    Args:
        stream: the stream.
        first: its first picture; what it carries counts before what the container says.
        height, width: as stored.
    """
    # PyAV before 19, which Python 3.11 has, does not tell what the container says; the frame has the matrix too.
    said: dict[str, bytes] = dict(getattr(stream.codec_context, "coded_side_data", {}))
    matrix = first.side_data.get(SideData.DISPLAYMATRIX)
    ratio = stream.sample_aspect_ratio
    tall, wide = square_size(height, width, float(ratio) if ratio and ratio.denominator else 0.0)
    cropping = Cropping.from_side_data(said.get("frame_cropping", b""), height, width)
    orientation = Orientation.from_matrix(bytes(matrix) if matrix is not None else said.get("display_matrix", b""))
    return Geometry(tall, wide, cropping.scaled(tall / height, wide / width), orientation)
