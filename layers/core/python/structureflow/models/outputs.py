"""What a request may ask for beside guide and mask, and how the manifest describes each file that was made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from structureflow.models.checked import RequestModel, is_said
from structureflow.models.fields import at_most, list_of
from structureflow.models.problems import Problem

ExtraOutput = Literal["flow_vis", "visibility", "vace_flow", "canny", "raw", "tracks", "warped_noise", "ttm"]

#: Points that are tracked. Wan-Move's own examples use 1 to a few hundred; more only crowd each other out.
MAX_TRACK_POINTS: Final = 1024
#: Columns and rows of tracked points where the request names none.
DEFAULT_GRID: Final = (16, 9)
#: Of generated latents: 16 in CogVideoX and Wan 2.1, 48 in Wan 2.2 5B, 128 in LTX.
MAX_NOISE_CHANNELS: Final = 128
#: Latent samples of one frame, width x height: what a 1024x1024 grid would have.
MAX_LATENT_SAMPLES: Final = 1024 * 1024
#: Of a latent grid; the coarsest autoencoder in use (LTX) makes 32 pixels one sample.
MIN_LATENT_SIDE: Final = 2
MAX_PROMPT_CHARACTERS: Final = 8_000
#: Of edges; from 1 on they are as bright as can be.
MAX_CANNY_INTENSITY: Final = 10.0

FileKind = Literal["video", "image", "array", "archive", "json", "text"]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


Coordinate = Annotated[float, AfterValidator(_finite)]
Point = Annotated[tuple[Coordinate, Coordinate], list_of("[x, y]", 2)]
"""(x, y) in output pixels: (0, 0) is the middle of the first pixel."""
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
"""(left, top, right, bottom) in output pixels."""
_Whole = Annotated[int, Field(ge=1)]


def _few(grid: tuple[int, int] | None) -> tuple[int, int] | None:
    columns, rows = grid or DEFAULT_GRID
    if columns * rows > MAX_TRACK_POINTS:
        raise ValueError(f"expected at most {MAX_TRACK_POINTS} points, got {columns} x {rows}")
    return grid


def _upright(box: Box | None) -> Box | None:
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"expected [left, top, right, bottom], got {[*box]}")
    return box


def _a_grid_of_latents(size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is not None and (min(size) < MIN_LATENT_SIDE or size[0] * size[1] > MAX_LATENT_SAMPLES):
        expected = f"sides from {MIN_LATENT_SIDE} on and at most {MAX_LATENT_SAMPLES} samples"
        raise ValueError(f"expected {expected}, got {size[0]}x{size[1]}")
    return size


class TrackOptions(RequestModel):
    """Which points of a segment's first frame are tracked.

    Either the middles of a `grid` of ``[columns, rows]`` equal cells (`DEFAULT_GRID`), over the whole frame or inside
    of `box` (``[left, top, right, bottom]``, output pixels), or a list of `points` (``[x, y]``). Points must lie in
    the frame.
    """

    grid: Annotated[tuple[_Whole, _Whole], list_of("[columns, rows]", 2), AfterValidator(_few)] | None = None
    box: Annotated[Box, list_of("[left, top, right, bottom]", 4), AfterValidator(_upright)] | None = None
    points: (
        Annotated[tuple[Point, ...], Field(min_length=1, max_length=MAX_TRACK_POINTS), at_most(MAX_TRACK_POINTS)] | None
    ) = None

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        if is_said(said, cls, "points"):
            for name in ("grid", "box"):
                if is_said(said, cls, name):
                    yield Problem((name,), "expected none beside points, got one")

    @property
    def count(self) -> int:
        """How many points there are."""
        columns, rows = self.grid or DEFAULT_GRID
        return columns * rows if self.points is None else len(self.points)

    def outside(self, height: int, width: int) -> Iterator[Problem]:
        """Iterate over the points, or the box, that lie outside of frames of `height` x `width` pixels."""
        for index, (x, y) in enumerate(self.points or ()):
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                said = f"expected a place in a frame of {width}x{height}, got [{x:g}, {y:g}]"
                yield Problem(("tracks", "points", index), said)
        left, top, right, bottom = self.box or (0.0, 0.0, float(width), float(height))
        if left < 0 or top < 0 or right > width or bottom > height:
            said = f"expected a part of a frame of {width}x{height}, got {[*(self.box or ())]}"
            yield Problem(("tracks", "box"), said)

    def places(self, height: int, width: int) -> tuple[Point, ...]:
        """Return the points for frames of `height` x `width` pixels, row by row.

        Raises:
            ValueError: a point or the box lies outside of the frame.
        """
        problems = [str(problem) for problem in self.outside(height, width)]
        if problems:
            raise ValueError("; ".join(problems))
        if self.points is not None:
            return self.points
        left, top, right, bottom = self.box or (0.0, 0.0, float(width), float(height))
        columns, rows = self.grid or DEFAULT_GRID
        return tuple(
            (left + (column + 0.5) * (right - left) / columns - 0.5, top + (row + 0.5) * (bottom - top) / rows - 0.5)
            for row in range(rows)
            for column in range(columns)
        )


class NoiseOptions(RequestModel):
    """The latents that `warped_noise` is for.

    `latent_size` is ``[width, height]``; by default an eighth of the output's, rounded up. The same `seed` gives the
    same noise for the same motion.
    """

    channels: Annotated[int, Field(ge=1, le=MAX_NOISE_CHANNELS)] = 16
    latent_size: (
        Annotated[tuple[int, int], list_of("[width, height]", 2), AfterValidator(_a_grid_of_latents)] | None
    ) = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the latents' (height, width) for output frames of `height` x `width` pixels."""
        if self.latent_size is not None:
            return self.latent_size[1], self.latent_size[0]
        return -(-height // 8), -(-width // 8)


class CannyOptions(RequestModel):
    """The two thresholds of OpenCV's ``Canny``, gradients of 8-bit levels, `low` at most `high`.

    Edges are white at an `intensity` of 1 and above; below, they are that share of it.
    """

    low: Annotated[int, Field(ge=0, le=2000)] = 100
    high: Annotated[int, Field(ge=0, le=2000)] = 200
    intensity: Annotated[float, Field(ge=0, le=MAX_CANNY_INTENSITY, allow_inf_nan=False)] = 1.0

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        if {"low", "high"} <= good.keys() and good["low"] > good["high"]:
            yield Problem(("low",), f"expected at most high, {good['high']}, got {good['low']}")


class OutputDescription(BaseModel):
    """What is in a file, for whoever feeds it to a generator.

    Attributes:
        kind: of file.
        consumer: who takes it, by name.
        axes: what the numbers of `shape` count, in order, as in ``frames height width rgb``.
        shape: of what is read from the file.
        dtype: of its numbers, by numpy's name.
        meaning: what the values say: polarity, units, order of channels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FileKind
    consumer: str
    meaning: str
    axes: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
