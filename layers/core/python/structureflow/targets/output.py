"""What an output of a segment is: fed frame by frame beside guide and mask, and described files at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import FlowMeta
from structureflow.guide.images import cover_box
from structureflow.guide.ports import Mask
from structureflow.guide.travel import Move
from structureflow.media.background import BackgroundEncoder
from structureflow.media.encode import GUIDE, MASK, EncoderSettings
from structureflow.media.planes import Planes
from structureflow.models.outputs import FileKind, OutputDescription

CONTENT_TYPES: Final[dict[str, str]] = {
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".npy": "application/octet-stream",
    ".pth": "application/octet-stream",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}

#: How control videos are encoded: as the guide.
CONTROL: Final[EncoderSettings] = GUIDE


@dataclass(frozen=True, slots=True)
class Clip:
    """The segment that an output is of.

    Attributes:
        frames: how many.
        height, width: in pixels, even.
        fps: of its videos.
        folder: where files are written; the caller removes it.
        workers: threads that an encoder may use.
    """

    frames: int
    height: int
    width: int
    fps: float
    folder: Path
    workers: int = 1

    def file(self, name: str) -> Path:
        """Return the path of an output's file, whose folder is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def video(self, consumer: str, meaning: str) -> OutputDescription:
        """Describe a video of the segment's own size and length."""
        return OutputDescription(
            kind="video",
            consumer=consumer,
            meaning=meaning,
            axes="frames height width rgb",
            shape=(self.frames, self.height, self.width, 3),
            dtype="uint8",
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A file that an output left in the clip's folder.

    Attributes:
        name: as it is published, below the segment's folder: ``vace_flow.mp4``, ``ttm/mask.mp4``.
        path: where it lies.
        description: what is in it.
    """

    name: str
    path: Path
    description: OutputDescription

    @property
    def content_type(self) -> str:
        """The media type of the file."""
        return CONTENT_TYPES[self.path.suffix]


class SegmentOutput:
    """Takes what a segment's rendering shows, frame by frame, and makes files of it; a context manager.

    Of each frame come `visibility`, `whole`, `move` and `write`, in this order, as far as they are wanted.
    """

    wants_steps: bool = False
    wants_ways: bool = False
    wants_visibility: bool = False
    wants_whole: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def move(self, index: int, move: Move | None) -> None:
        """Take the motion that leads to a frame; see `TravelSink.move`."""

    def visibility(self, index: int, visibility: NDArray[np.uint8]) -> None:
        """Take what is known of a frame; see `MotionSink.visibility`."""

    def whole(self, index: int, picture: Planes) -> None:
        """Take a filled frame before holes are painted over; see `WholeSink.whole`."""

    def write(self, index: int, guide: Planes, mask: Mask) -> None:
        """Take a frame of the guide; see `SegmentSink.write`."""

    def finish(self) -> list[Made]:
        """Complete the files and list them."""
        raise NotImplementedError


class EncodedOutput(SegmentOutput):
    """An output that encodes videos beside the rendering."""

    def __init__(self, clip: Clip) -> None:
        """Encode videos of the size, length and rate of `clip`."""
        self._clip = clip
        self._running = ExitStack()
        self._encoders: list[BackgroundEncoder] = []

    def _encoder(self, name: str, *, is_mask: bool = False) -> BackgroundEncoder:
        """Return an encoder of a file of this name, which runs from the ``with`` block on."""
        clip = self._clip
        encoder = BackgroundEncoder(
            clip.file(name),
            height=clip.height,
            width=clip.width,
            fps=clip.fps,
            settings=MASK if is_mask else CONTROL,
            threads=1 if is_mask else clip.workers,
        )
        self._encoders.append(encoder)
        return encoder

    def __enter__(self) -> Self:
        for encoder in self._encoders:
            self._running.enter_context(encoder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class Placing:
    """Where the output's pixels lie on the flow grid, for points; exact, where `warp.Geometry` is to whole pixels.

    Attributes:
        scale: (x, y) output pixels per cell.
        shift: (x, y) output pixel of the grid's place (0, 0).
    """

    scale: tuple[float, float]
    shift: tuple[float, float]

    @classmethod
    def of(cls, meta: FlowMeta, height: int, width: int) -> Placing:
        """Place an output of `height` x `width` pixels, covered and centre-cropped, on the grid of `meta`."""
        top, left, box_height, box_width = cover_box(meta.original_height, meta.original_width, height, width)
        across = _axis(meta.width, meta.original_width, left, box_width, width)
        down = _axis(meta.height, meta.original_height, top, box_height, height)
        return cls((across[0], down[0]), (across[1], down[1]))

    def to_grid(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring (x, y), ``(N, 2)``, from output pixels to places of the grid."""
        return np.asarray((points - np.array(self.shift)) / np.array(self.scale), np.float64)

    def to_output(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring (x, y), ``(N, 2)``, from places of the grid to output pixels."""
        return np.asarray(points * np.array(self.scale) + np.array(self.shift), np.float64)


def _axis(grid: int, original: int, start: int, length: int, output: int) -> tuple[float, float]:
    # pixel i covers [i, i + 1]; a place is the middle of a pixel
    scale = original / grid * output / length
    return scale, (0.5 * original / grid - start) * output / length - 0.5


def array_description(
    kind: FileKind, consumer: str, meaning: str, axes: str, shape: tuple[int, ...], dtype: str
) -> OutputDescription:
    """Describe a file of numbers."""
    return OutputDescription(kind=kind, consumer=consumer, meaning=meaning, axes=axes, shape=shape, dtype=dtype)
