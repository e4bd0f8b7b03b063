"""Drawn scenes of photographs: a moving camera and an object on a curve, whose paths are known exactly.

Motion is never measured by the colours that it was found with: the same scene can be drawn in other photographs
(`PhotoScene.frame` with another pair), so that only true motion carries them rightly.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.testing.scenes import Camera, Field, Image, Layer, disc, picture_of, way_between

#: Photographs of the ground and of the object, ``(H, W, 3)`` uint8 RGB each.
Photos = tuple[Image, Image]

_NO_MAP = cast("NDArray[np.float32]", None)


class PhotoTexture:
    """A photograph that goes on mirrored past its edges, sampled smoothly at every real (x, y)."""

    def __init__(self, photo: Image) -> None:
        """Show `photo`, ``(H, W, 3)`` uint8 RGB, with its first pixel at (0, 0)."""
        self._photo = photo

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Image:
        """Return ``(*x.shape, 3)`` uint8 RGB."""
        height, width = self._photo.shape[:2]
        # one row of any length: OpenCV keeps places in 16 bits, so the list of pixels is folded into rows
        rows = -(-x.size // 1024)
        places = np.zeros((2, rows * 1024), np.float32)
        places[0, : x.size] = _mirrored(x.ravel(), width)
        places[1, : x.size] = _mirrored(y.ravel(), height)
        across, down = places.reshape(2, rows, 1024)
        shown = cv2.remap(self._photo, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(shown.reshape(-1, 3)[: x.size].reshape(*x.shape, 3), np.uint8)


def _mirrored(places: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    period = 2.0 * (size - 1)
    folded: NDArray[np.float64] = (size - 1) - np.abs(np.mod(places, period) - (size - 1))
    return folded


@dataclass(frozen=True, eq=False)
class PhotoScene:
    """A camera that pans on a curve, turns and zooms over a ground, and an object that goes its own curved way.

    Attributes:
        photos: what ground and object look like.
        height, width: of the frames, in pixels.
        speed: all motion is this many times as fast.
        light: how much brightness swings over the scene, as a share (0.15: 15 % up and down).
        noise: standard deviation of each frame's noise, in levels.
        seed: of the noise, and of the way.
    """

    photos: Photos
    height: int = 360
    width: int = 640
    speed: float = 1.0
    light: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def frame(self, time: int, photos: Photos | None = None) -> Image:
        """Draw frame `time`, ``(height, width, 3)`` uint8 RGB; of other photographs without light and noise."""
        picture, _ = picture_of(self._layers(photos or self.photos), time, self.height, self.width)
        if photos is not None or not (self.light or self.noise):
            return picture
        random = np.random.default_rng((self.seed, time))
        lit = picture * np.float32(1 + self.light * math.sin(0.21 * time))
        lit += random.normal(0, self.noise, picture.shape).astype(np.float32) if self.noise else np.float32(0)
        return np.asarray(np.clip(np.rint(lit), 0, 255), np.uint8)

    def path(self, time: int, anchor: int) -> tuple[Field, NDArray[np.bool_]]:
        """Return where the pixels of frame `time` are in frame `anchor`, and which of them that frame shows.

        Returns:
            ``(height, width, 2)`` float32, and ``(height, width)`` bool.
        """
        layers = self._layers(self.photos)
        way, hidden = way_between(layers, self._seen(time), time, anchor)
        return way, ~hidden

    @functools.cache  # noqa: B019 - scenes are few, and live as long as the measurement
    def _seen(self, time: int) -> NDArray[np.intp]:
        return picture_of(self._layers(self.photos), time, self.height, self.width)[1]

    def _layers(self, photos: Photos) -> list[Layer]:
        ground, thing = photos
        radius = self.height / 5
        return [
            Layer(self._camera(), PhotoTexture(ground)),
            # the object's own (x, y) are those of its photograph, whose middle it shows
            Layer(
                self._object((thing.shape[1] / 2, thing.shape[0] / 2)),
                PhotoTexture(thing),
                disc(thing.shape[1] / 2, thing.shape[0] / 2, radius),
            ),
        ]

    def _camera(self) -> Camera:
        size, phase = self.height, 0.9 * self.seed

        def camera(time: float) -> NDArray[np.float64]:
            pace = self.speed * time
            x = 0.011 * size * pace + 0.03 * size * math.sin(0.15 * pace + phase)
            y = 0.05 * size * (math.sin(0.09 * pace + phase) - math.sin(phase))
            return _similarity(
                math.exp(0.004 * pace),
                0.003 * pace,
                (self.width / 2, self.height / 2),
                (self.width / 2 + x, self.height / 2 + y),
            )

        return camera

    def _object(self, middle: tuple[float, float]) -> Camera:
        size, phase = self.height, 0.7 * self.seed

        def camera(time: float) -> NDArray[np.float64]:
            pace = self.speed * time
            turn = 0.075 * pace + phase
            x = self.width * 0.68 - 0.45 * size * (1 - math.cos(turn - phase)) - 0.006 * size * pace
            y = self.height * 0.5 + 0.26 * size * math.sin(turn - phase)
            scale = 1 + 0.25 * math.sin(0.06 * pace)
            return _similarity(scale, 0.02 * pace, middle, (x, y))

        return camera


def _similarity(
    scale: float, radians: float, middle: tuple[float, float], to: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the matrix that scales and turns around `middle` (x, y) and brings it to `to`."""
    cos, sin = scale * math.cos(radians), scale * math.sin(radians)
    x, y = middle
    return np.array(
        [[cos, -sin, to[0] - cos * x + sin * y], [sin, cos, to[1] - sin * x - cos * y], [0, 0, 1]], np.float64
    )


#: The scenes of the measurement: name, speed, light, noise.
VARIANTS: Final = (
    ("plain", 1.0, 0.0, 0.0),
    ("changing light", 1.0, 0.15, 4.0),
    ("slower", 0.5, 0.0, 2.0),
    ("faster", 1.6, 0.0, 2.0),
)
