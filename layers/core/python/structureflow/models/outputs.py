"""What a request may ask for beside guide and mask, and how the manifest describes each file that was made."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


Coordinate = Annotated[float, AfterValidator(_finite)]
Point = tuple[Coordinate, Coordinate]
"""(x, y) in output pixels: (0, 0) is the middle of the first pixel."""


class TrackOptions(_Options):
    """Which points of a segment's first frame are tracked.

    Either the middles of a `grid` of ``[columns, rows]`` equal cells (`DEFAULT_GRID`), over the whole frame or inside
    of `box` (``[left, top, right, bottom]``, output pixels), or a list of `points` (``[x, y]``). Points must lie in
    the frame.
    """

    grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    points: Annotated[tuple[Point, ...], Field(min_length=1, max_length=MAX_TRACK_POINTS)] | None = None

    @model_validator(mode="after")
    def _check(self) -> TrackOptions:
        if self.points is not None and (self.grid is not None or self.box is not None):
            raise ValueError("expected either points or a grid (with or without a box), got both")
        columns, rows = self.grid or DEFAULT_GRID
        if columns * rows > MAX_TRACK_POINTS:
            raise ValueError(f"grid: expected at most {MAX_TRACK_POINTS} points, got {columns} x {rows}")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (left < right and top < bottom):
                raise ValueError(f"box: expected [left, top, right, bottom], got {list(self.box)}")
        return self

    @property
    def count(self) -> int:
        """How many points there are."""
        columns, rows = self.grid or DEFAULT_GRID
        return columns * rows if self.points is None else len(self.points)

    def places(self, height: int, width: int) -> tuple[Point, ...]:
        """Return the points for frames of `height` x `width` pixels, row by row.

        Raises:
            ValueError: a point or the box lies outside of the frame.
        """
        if self.points is not None:
            for x, y in self.points:
                if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                    raise ValueError(
                        f"tracks.points: expected places in a frame of {width}x{height}, got [{x:g}, {y:g}]"
                    )
            return self.points
        left, top, right, bottom = self.box or (0.0, 0.0, float(width), float(height))
        if left < 0 or top < 0 or right > width or bottom > height:
            raise ValueError(f"tracks.box: expected a part of a frame of {width}x{height}, got {list(self.box or ())}")
        columns, rows = self.grid or DEFAULT_GRID
        return tuple(
            (left + (column + 0.5) * (right - left) / columns - 0.5, top + (row + 0.5) * (bottom - top) / rows - 0.5)
            for row in range(rows)
            for column in range(columns)
        )


class NoiseOptions(_Options):
    """The latents that `warped_noise` is for.

    `latent_size` is ``[width, height]``; by default an eighth of the output's, rounded up. The same `seed` gives the
    same noise for the same motion.
    """

    channels: Annotated[int, Field(ge=1, le=MAX_NOISE_CHANNELS)] = 16
    latent_size: tuple[int, int] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _check(self) -> NoiseOptions:
        if self.latent_size is not None:
            width, height = self.latent_size
            if min(width, height) < MIN_LATENT_SIDE or width * height > MAX_LATENT_SAMPLES:
                raise ValueError(
                    f"latent_size: expected sides from {MIN_LATENT_SIDE} on and at most {MAX_LATENT_SAMPLES} samples, "
                    f"got {width}x{height}"
                )
        return self

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the latents' (height, width) for output frames of `height` x `width` pixels."""
        if self.latent_size is not None:
            return self.latent_size[1], self.latent_size[0]
        return -(-height // 8), -(-width // 8)


class CannyOptions(_Options):
    """The two thresholds of OpenCV's ``Canny``, gradients of 8-bit levels, `low` at most `high`.

    Edges are white at an `intensity` of 1 and above; below, they are that share of it.
    """

    low: Annotated[int, Field(ge=0, le=2000)] = 100
    high: Annotated[int, Field(ge=0, le=2000)] = 200
    intensity: Annotated[float, Field(ge=0, le=MAX_CANNY_INTENSITY, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> CannyOptions:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got {self.low} and {self.high}")
        return self


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
