"""Drawn scenes whose motion is known exactly: frames, forward and backward flow, what is hidden, where cuts are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.fields import Direction, FlowMeta

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
#: Frame number -> 3x3 matrix from the scene's own coordinates to (x, y) of that frame.
Camera = Callable[[float], NDArray[np.float64]]

_WAVES: Final = 24


@dataclass(frozen=True)
class Scene:
    """A drawn video of N frames and its exact motion.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        forward, backward: ``(N - 1, H, W, 2)`` float32, (dx, dy) in pixels.
        hidden_next: ``(N - 1, H, W)`` bool, pixels of frame t that a nearer layer covers, or that leave the
            frame, in t + 1.
        cuts: flow indices t such that frames t and t + 1 show different scenes; flow is noise there.
    """

    frames: Image
    forward: Field
    backward: Field
    hidden_next: NDArray[np.bool_]
    cuts: tuple[int, ...] = ()


class ArrayFlows:
    """A `FlowSource` over arrays in memory, with a log of what was read."""

    def __init__(
        self,
        forward: NDArray[Any],
        backward: NDArray[Any] | None,
        *,
        scene_cuts: Sequence[int] = (),
        original: tuple[int, int] | None = None,
    ) -> None:
        """Serve ``(N, h, w, 2)`` fields; `original` is the video's (height, width), default the grid's."""
        self._fields: dict[Direction, NDArray[np.float32]] = {"forward": forward.astype(np.float32)}
        if backward is not None:
            self._fields["backward"] = backward.astype(np.float32)
        total, height, width, _ = forward.shape
        original_height, original_width = original or (height, width)
        self.meta = FlowMeta(
            total_flows=total,
            height=height,
            width=width,
            original_height=original_height,
            original_width=original_width,
            original_fps=25.0,
            has_backward=backward is not None,
            engine="exact",
            scene_cuts=tuple(scene_cuts),
        )
        self.reads: list[tuple[Direction, int, int]] = []

    @classmethod
    def of(cls, scene: Scene, *, backward: bool = True) -> ArrayFlows:
        """Serve a scene's exact flows."""
        return cls(scene.forward, scene.backward if backward else None, scene_cuts=scene.cuts)

    def read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float32]:
        """See `FlowSource.read`."""
        if direction not in self._fields or not 0 <= start < stop <= self.meta.total_flows:
            raise FlowError(f"no {direction} flows {start} to {stop}")
        self.reads.append((direction, start, stop))
        return self._fields[direction][start:stop]


class Texture(Protocol):
    """A colour at every real (x, y)."""

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Image:
        """Return ``(*x.shape, 3)`` uint8 RGB."""
        ...


class WaveTexture:
    """A colour at every real (x, y): seeded waves, so that a scene can be drawn anywhere between pixels."""

    def __init__(self, seed: int, *, shortest_px: float = 9.0, longest_px: float = 60.0) -> None:
        """Mix waves of lengths between the two."""
        random = np.random.default_rng(seed)
        length = np.exp(random.uniform(math.log(shortest_px), math.log(longest_px), _WAVES))
        angle = random.uniform(0, 2 * math.pi, _WAVES)
        self._x = 2 * math.pi * np.cos(angle) / length
        self._y = 2 * math.pi * np.sin(angle) / length
        self._phase = random.uniform(0, 2 * math.pi, _WAVES)
        self._colour = random.normal(0, 1, (_WAVES, 3)) * np.sqrt(length / length.mean())[:, None]
        self._colour *= 40 / np.sqrt((self._colour**2).sum(axis=0) / 2)

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Image:
        """Return ``(*x.shape, 3)`` uint8 RGB."""
        colour = np.full((*x.shape, 3), 128.0)
        for wave in range(_WAVES):
            colour += np.sin(x * self._x[wave] + y * self._y[wave] + self._phase[wave])[..., None] * self._colour[wave]
        return np.asarray(np.clip(np.rint(colour), 0, 255), np.uint8)


@dataclass(frozen=True)
class Layer:
    """A textured plane; `covers` says which of its own coordinates (x, y) it fills, nothing = all."""

    camera: Camera
    texture: Texture
    covers: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]] | None = None


def pan(dx: float, dy: float) -> Camera:
    """Content moves by (`dx`, `dy`) pixels per frame: right and down."""

    def camera(time: float) -> NDArray[np.float64]:
        return np.array([[1, 0, dx * time], [0, 1, dy * time], [0, 0, 1]], np.float64)

    return camera


def zoom(rate: float, centre: tuple[float, float]) -> Camera:
    """Content grows by the factor `rate` per frame around `centre` (x, y)."""

    def camera(time: float) -> NDArray[np.float64]:
        scale, (x, y) = rate**time, centre
        return np.array([[scale, 0, x - scale * x], [0, scale, y - scale * y], [0, 0, 1]])

    return camera


def rotation(radians: float, centre: tuple[float, float]) -> Camera:
    """Content turns by `radians` per frame around `centre` (x, y), clockwise as seen (y points down)."""

    def camera(time: float) -> NDArray[np.float64]:
        cos, sin, (x, y) = math.cos(radians * time), math.sin(radians * time), centre
        return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]])

    return camera


def disc(x: float, y: float, radius: float) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]:
    """Return the inside of a circle, for `Layer.covers`."""

    def covers(at_x: NDArray[np.float64], at_y: NDArray[np.float64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (at_x - x) ** 2 + (at_y - y) ** 2 <= radius**2
        return inside

    return covers


def draw(layers: Sequence[Layer], *, frames: int, height: int, width: int) -> Scene:
    """Draw `layers`, the last one nearest, and work out their motion."""
    pictures = [picture_of(layers, t, height, width) for t in range(frames)]
    forward = np.empty((frames - 1, height, width, 2), np.float32)
    backward = np.empty_like(forward)
    hidden = np.empty((frames - 1, height, width), np.bool_)
    for t in range(frames - 1):
        forward[t] = _flow(layers, pictures[t][1], t, t + 1)
        backward[t] = _flow(layers, pictures[t + 1][1], t + 1, t)
        hidden[t] = _hidden(layers, pictures[t][1], forward[t], t + 1)
    return Scene(np.stack([picture for picture, _ in pictures]), forward, backward, hidden)


def join(first: Scene, second: Scene, *, seed: int = 0) -> Scene:
    """Put a scene behind another; the flow across the cut is noise, as an engine gives it."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 8, (2, 1, *first.forward.shape[1:])).astype(np.float32)
    cut = len(first.forward)
    return Scene(
        np.concatenate([first.frames, second.frames]),
        np.concatenate([first.forward, noise[0], second.forward]),
        np.concatenate([first.backward, noise[1], second.backward]),
        np.concatenate([first.hidden_next, np.ones((1, *first.hidden_next.shape[1:]), np.bool_), second.hidden_next]),
        (*first.cuts, cut, *(cut + 1 + other for other in second.cuts)),
    )


def pan_scene(
    dx: float, dy: float = 0.0, *, frames: int = 12, height: int = 96, width: int = 128, seed: int = 1
) -> Scene:
    """A camera pan: all content moves by (`dx`, `dy`) pixels per frame."""
    return draw([Layer(pan(dx, dy), WaveTexture(seed))], frames=frames, height=height, width=width)


def zoom_scene(rate: float, *, frames: int = 12, height: int = 96, width: int = 128, seed: int = 2) -> Scene:
    """A zoom around the middle of the frame."""
    camera = zoom(rate, ((width - 1) / 2, (height - 1) / 2))
    return draw([Layer(camera, WaveTexture(seed))], frames=frames, height=height, width=width)


def rotation_scene(radians: float, *, frames: int = 12, height: int = 96, width: int = 128, seed: int = 3) -> Scene:
    """A rotation around the middle of the frame."""
    camera = rotation(radians, ((width - 1) / 2, (height - 1) / 2))
    return draw([Layer(camera, WaveTexture(seed))], frames=frames, height=height, width=width)


def occlusion_scene(*, frames: int = 12, height: int = 96, width: int = 128, seed: int = 4) -> Scene:
    """A disc that goes right in front of a ground that goes slowly left."""
    layers = [
        Layer(pan(-0.5, 0.0), WaveTexture(seed)),
        Layer(pan(2.5, 0.5), WaveTexture(seed + 1), disc(width * 0.35, height * 0.45, height * 0.2)),
    ]
    return draw(layers, frames=frames, height=height, width=width)


def end_point_error(flow: NDArray[Any], truth: NDArray[Any], *, margin_px: int = 0) -> float:
    """Return the mean length of the difference of two fields ``(H, W, 2)``, without a margin at the edges."""
    rows = slice(margin_px, flow.shape[0] - margin_px)
    columns = slice(margin_px, flow.shape[1] - margin_px)
    difference = flow[rows, columns].astype(np.float64) - truth[rows, columns].astype(np.float64)
    return float(np.sqrt((difference**2).sum(axis=-1)).mean())


def psnr_db(image: NDArray[Any], truth: NDArray[Any], *, margin_px: int = 0) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images of one shape, without a margin at the edges."""
    rows = slice(margin_px, image.shape[0] - margin_px)
    columns = slice(margin_px, image.shape[1] - margin_px)
    difference = image[rows, columns].astype(np.float64) - truth[rows, columns].astype(np.float64)
    error = float((difference**2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _grid(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return x, y


def _apply(
    matrix: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]


def _own(layer: Layer, time: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    yield from _apply(np.linalg.inv(layer.camera(time)).astype(np.float64), x, y)


def _nearest(layers: Sequence[Layer], time: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which layer is seen at each place of a frame."""
    seen = np.zeros(x.shape, np.intp)
    for number, layer in enumerate(layers):
        if layer.covers is None:
            seen[...] = number
        else:
            seen[layer.covers(*_own(layer, time, x, y))] = number
    return seen


def picture_of(layers: Sequence[Layer], time: float, height: int, width: int) -> tuple[Image, NDArray[np.intp]]:
    """Draw one frame ``(H, W, 3)`` uint8 RGB; and which layer each of its pixels shows, ``(H, W)``."""
    x, y = _grid(height, width)
    seen = _nearest(layers, time, x, y)
    picture = np.zeros((height, width, 3), np.uint8)
    for number, layer in enumerate(layers):
        here = seen == number
        picture[here] = layer.texture(*_own(layer, time, x[here], y[here]))
    return picture, seen


def way_between(
    layers: Sequence[Layer], seen: NDArray[np.intp], start: float, stop: float
) -> tuple[Field, NDArray[np.bool_]]:
    """Return where the pixels of the frame at `start` are at `stop`, and which of them are hidden there.

    Args:
        layers: as for `draw`.
        seen: from `picture_of` at `start`.

    Returns:
        ``(H, W, 2)`` float32 in pixels, and ``(H, W)`` bool: covered by a nearer layer, or out of the frame.
    """
    flow = _flow(layers, seen, start, stop)
    return flow, _hidden(layers, seen, flow, stop)


def _flow(layers: Sequence[Layer], seen: NDArray[np.intp], start: float, stop: float) -> Field:
    x, y = _grid(*seen.shape)
    flow = np.zeros((*seen.shape, 2), np.float32)
    for number, layer in enumerate(layers):
        there_x, there_y = _apply(layer.camera(stop), *_own(layer, start, x, y))
        here = seen == number
        flow[here] = np.stack([there_x - x, there_y - y], axis=-1)[here]
    return flow


def _hidden(layers: Sequence[Layer], seen: NDArray[np.intp], flow: Field, stop: float) -> NDArray[np.bool_]:
    height, width = seen.shape
    x, y = _grid(height, width)
    there_x, there_y = x + flow[..., 0], y + flow[..., 1]
    outside = (there_x < -0.5) | (there_x > width - 0.5) | (there_y < -0.5) | (there_y > height - 0.5)
    hidden: NDArray[np.bool_] = outside | (_nearest(layers, stop, there_x, there_y) != seen)
    return hidden
