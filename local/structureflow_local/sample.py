"""The project's sample structure video: a drawn evening landscape whose every motion is known exactly.

A camera pans over five flat layers at different depths, so nearer ones pass faster; a balloon flies its own way
and is hidden for a while by a pine in front of it. Everything is seeded: the same code draws the same film.

    python -m structureflow_local.sample OUT.mp4
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.media.encode import EncodedInfo, EncoderSettings, encode_h264

HEIGHT = 360
WIDTH = 640
FRAMES = 97
FPS = 25
CRF = 24

Image = NDArray[np.uint8]
Plane = NDArray[np.float32]

_SEED = 20
_SUPERSAMPLING = 2
#: How far a layer moves for one pixel of camera travel, far to near.
_PARALLAX = {"sky": 0.22, "mountains": 0.5, "hills": 0.9, "meadow": 1.5}
_TRAVEL_PX = 300.0
_MARGIN_PX = 24


@dataclass(frozen=True)
class Layer:
    """A flat picture that moves as a whole.

    Attributes:
        name: what it shows.
        colour: ``(h, w, 3)`` float32 RGB 0 to 255, premultiplied with `alpha`.
        alpha: ``(h, w)`` float32, 0 (clear) to 1 (solid).
        origin: (x, y) of its top left corner in the first frame, in pixels.
    """

    name: str
    colour: Plane
    alpha: Plane
    origin: tuple[float, float]


class SampleScene:
    """The film, frame by frame, with the truth about its motion."""

    def __init__(self) -> None:
        random = np.random.default_rng(_SEED)
        self._layers = (
            _sky(random),
            _mountains(random),
            _hills(random),
            _balloon(random),
            _meadow(random),
        )

    def frame(self, index: int) -> Image:
        """Draw frame `index` (0 to `FRAMES` - 1): ``(HEIGHT, WIDTH, 3)`` uint8 RGB."""
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for layer in self._layers:
            shift = self._matrix(layer, index)
            alpha = cv2.warpAffine(layer.alpha, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            colour = cv2.warpAffine(layer.colour, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            picture *= 1 - alpha[..., None]
            picture += colour
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def frames(self) -> Iterator[Image]:
        """Draw every frame in order."""
        return (self.frame(index) for index in range(FRAMES))

    def labels(self, index: int) -> Image:
        """Say which layer each pixel of frame `index` shows: ``(HEIGHT, WIDTH)`` uint8, 0 = sky to 4 = meadow."""
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, layer in enumerate(self._layers):
            shift = self._matrix(layer, index)
            labels[cv2.warpAffine(layer.alpha, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR) >= 0.5] = number
        return labels

    def forward_flow(self, index: int) -> Plane:
        """Return where each pixel of frame `index` is in the next one.

        Returns:
            ``(HEIGHT, WIDTH, 2)`` float32, (dx, dy) in pixels; known for hidden pixels too.
        """
        return self._motion(index, index + 1)

    def backward_flow(self, index: int) -> Plane:
        """Return where each pixel of frame `index` + 1 was in frame `index`; as `forward_flow`."""
        return self._motion(index + 1, index)

    def _motion(self, start: int, stop: int) -> Plane:
        vectors = [
            np.subtract(self._position(layer, stop), self._position(layer, start), dtype=np.float32)
            for layer in self._layers
        ]
        return np.stack(vectors)[self.labels(start)]

    def _position(self, layer: Layer, index: int) -> tuple[float, float]:
        """Return (x, y) of the layer's top left corner in frame `index`, in pixels."""
        turn = 2 * pi * index / (FRAMES - 1)
        camera_x = _TRAVEL_PX * (index / (FRAMES - 1) - sin(turn) / (4 * pi))
        camera_y = 9 * (1 - cos(turn))
        if layer.name == "balloon":
            return layer.origin[0] + 2.1 * index, layer.origin[1] - 0.42 * index + 7 * sin(1.5 * turn)
        depth = _PARALLAX[layer.name]
        return layer.origin[0] - depth * camera_x, layer.origin[1] + depth * camera_y

    def _matrix(self, layer: Layer, index: int) -> NDArray[np.float64]:
        x, y = self._position(layer, index)
        return np.array([[1, 0, x], [0, 1, y]], np.float64)


def make_sample(path: Path) -> EncodedInfo:
    """Draw and encode the sample video.

    Raises:
        EncodeError: the file cannot be written.
    """
    settings = EncoderSettings(CRF, "slow")
    return encode_h264(SampleScene().frames(), path, height=HEIGHT, width=WIDTH, fps=FPS, settings=settings, threads=1)


# --- drawing ------------------------------------------------------------------------------------------


def _strip_width(name: str) -> int:
    """Width of a layer that fills the picture over the whole pan, in pixels."""
    return WIDTH + int(_PARALLAX[name] * _TRAVEL_PX) + 2 * _MARGIN_PX


def _noise(random: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float, octaves: int) -> Plane:
    """Return smooth fractal noise, ``(height, width)`` float32, mean 0, deviation 1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        scale = 2**octave
        grid = random.standard_normal((int(height / cell_y * scale) + 4, int(width / cell_x * scale) + 4))
        total += cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    total -= total.mean()
    return np.asarray(total / total.std(), np.float32)


def _ramp(stops: list[tuple[float, tuple[int, int, int]]], height: int, width: int) -> Plane:
    """Return a vertical colour ramp through `stops` (share of the height, RGB)."""
    share = np.linspace(0, 1, height)
    columns = [np.interp(share, [s for s, _ in stops], [c[channel] for _, c in stops]) for channel in range(3)]
    return np.repeat(np.stack(columns, -1).astype(np.float32)[:, None], width, 1)


def _ridge(random: np.random.Generator, width: int, base: float, swing: float, cell: float, octaves: int) -> Plane:
    """Return the height of a horizon line, ``(width,)`` float32, in pixels from the top."""
    return np.asarray(base + swing * _noise(random, 1, width, 1, cell, octaves)[0], np.float32)


def _below(line: Plane, height: int) -> Plane:
    """Return 1 below a horizon line, 0 above, smooth over one pixel: ``(height, width)`` float32."""
    return np.asarray(np.clip(np.arange(height, dtype=np.float32)[:, None] - line[None] + 0.5, 0, 1), np.float32)


def _layer(name: str, colour: Plane, alpha: Plane, origin: tuple[float, float]) -> Layer:
    colour = np.clip(colour, 0, 255) * alpha[..., None]
    return Layer(name, colour.astype(np.float32), alpha.astype(np.float32), origin)


def _sky(random: np.random.Generator) -> Layer:
    height, width = HEIGHT + 2 * _MARGIN_PX, _strip_width("sky")
    dusk = [
        (0.0, (50, 70, 128)),
        (0.14, (104, 98, 152)),
        (0.26, (206, 136, 136)),
        (0.4, (255, 200, 140)),
        (1.0, (255, 226, 170)),
    ]
    colour = _ramp(dusk, height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distance = np.hypot(x - 0.8 * width, y - 0.22 * height)
    colour += np.exp(-distance / 70)[..., None] * np.array([90, 70, 30], np.float32)
    sun = np.clip(26 - distance, 0, 1)[..., None]
    colour = colour * (1 - sun) + np.array([255, 244, 214], np.float32) * sun
    drift = _noise(random, height, width, 46, 150, 5)
    cover = np.clip((drift - 0.1) * 0.9, 0, 1)[..., None]
    rim = np.clip(np.roll(drift, -3, 0) - drift, -0.5, 0.5)[..., None]
    cloud = np.array([246, 190, 176], np.float32) + rim * 120
    colour = colour * (1 - 0.72 * cover) + cloud * 0.72 * cover
    return _layer("sky", colour, np.ones((height, width), np.float32), (-_MARGIN_PX, -_MARGIN_PX))


def _mountains(random: np.random.Generator) -> Layer:
    height, width = HEIGHT, _strip_width("mountains")
    line = _ridge(random, width, 118, 26, 150, 6)
    depth = np.arange(height, dtype=np.float32)[:, None] - line[None]
    rock = _noise(random, height, width, 26, 34, 4)
    light = np.clip(rock - np.roll(rock, 4, 1), -1.2, 1.2)
    haze = np.clip(depth / 130, 0, 1)[..., None]
    colour = np.array([92, 86, 132], np.float32) + light[..., None] * np.array([34, 26, 22], np.float32)
    colour = colour * (1 - 0.75 * haze) + np.array([196, 150, 158], np.float32) * 0.75 * haze
    snow = np.clip((30 - depth + 12 * np.clip(rock, -1.5, 1.5)) / 9, 0, 1)[..., None]
    colour = colour * (1 - snow) + (np.array([238, 214, 220], np.float32) + light[..., None] * 30) * snow
    return _layer("mountains", colour, _below(line, height), (-_MARGIN_PX, 0))


def _hills(random: np.random.Generator) -> Layer:
    height, width = HEIGHT, _strip_width("hills")
    line = _ridge(random, width, 212, 16, 210, 3)
    ground = _ramp([(0.5, (70, 104, 104)), (0.75, (54, 96, 74)), (1.0, (40, 78, 54))], height, width)
    ground += _noise(random, height, width, 12, 22, 3)[..., None] * 9
    canvas, alpha = ground, _below(line, height)
    for row in range(170, height + 24, 7):
        for x in range(-8, width + 8, 9):
            foot_x = x + int(random.integers(-5, 6))
            column = min(max(foot_x, 0), width - 1)
            foot_y = row + int(random.integers(-3, 4))
            if foot_y < line[column] + 3 or random.random() < 0.35:
                continue
            size = 8 + (foot_y - 180) * 0.06 + float(random.random()) * 5
            shade = 0.72 + 0.5 * float(random.random())
            tint = np.array([52, 92, 78]) if random.random() < 0.8 else np.array([148, 104, 66])
            _fir(canvas, alpha, foot_x, foot_y, size, tint * shade)
    return _layer("hills", canvas, alpha, (-_MARGIN_PX, 0))


def _fir(canvas: Plane, alpha: Plane, x: float, y: float, size: float, colour: NDArray[np.float64]) -> None:
    """Draw a fir with its foot at (x, y), lit from the right, into `canvas` and `alpha`."""
    for part, (top, bottom, spread) in enumerate(((1.0, 0.5, 0.22), (0.78, 0.26, 0.3), (0.55, 0.0, 0.38))):
        left, right = x - spread * size, x + spread * size
        crown, foot = y - top * size, y - bottom * size
        lit = colour * (1.12 - 0.14 * part)
        _polygon(canvas, [(left, foot), (x, crown), (x, foot)], lit * 0.74)
        _polygon(canvas, [(x, foot), (x, crown), (right, foot)], lit)
        _polygon(alpha, [(left, foot), (x, crown), (right, foot)], 1.0)


def _polygon(target: Plane, points: list[tuple[float, float]], value: float | NDArray[np.float64]) -> None:
    """Fill a polygon with an anti-aliased edge; `points` are (x, y) in pixels."""
    fraction_bits = 4
    corners = np.rint(np.array(points) * (1 << fraction_bits)).astype(np.int32)
    low = np.maximum(np.floor(np.min(points, 0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(np.max(points, 0)).astype(int) + 3, [target.shape[1], target.shape[0]])
    if (high <= low).any():
        return
    cover = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    shifted = corners - (low << fraction_bits).astype(np.int32)
    cv2.fillPoly(cover, [shifted.reshape(-1, 1, 2)], 255, lineType=cv2.LINE_AA, shift=fraction_bits)
    share = cover.astype(np.float32) / 255
    part = target[low[1] : high[1], low[0] : high[0]]
    if target.ndim == 3:
        share = share[..., None]
    part *= 1 - share
    part += share * np.asarray(value, np.float32)


def _meadow(random: np.random.Generator) -> Layer:
    height, width = HEIGHT + 40, _strip_width("meadow")
    line = _ridge(random, width, 316, 7, 160, 2)
    colour = _ramp([(0.7, (112, 128, 60)), (0.85, (74, 100, 46)), (1.0, (40, 62, 34))], height, width)
    colour += _noise(random, height, width, 7, 16, 3)[..., None] * 14
    alpha = _below(line, height)
    for _ in range(2600):
        x = float(random.uniform(0, width - 1))
        y = float(random.uniform(line[int(x)] + 1, height - 1))
        length, lean = float(random.uniform(5, 13)), float(random.uniform(-3, 3))
        tint = np.array([[150, 156, 74], [96, 126, 52], [62, 92, 44], [206, 168, 84]][int(random.integers(4))], float)
        blade = [(x - 0.9, y), (x + 0.9, y), (x + lean, y - length)]
        _polygon(colour, blade, tint * float(random.uniform(0.8, 1.15)))
        _polygon(alpha, blade, 1.0)
    for x, size in ((215.0, 120.0), (560.0, 304.0), (628.0, 176.0), (905.0, 205.0), (960.0, 128.0)):
        _pine(random, colour, alpha, x, float(line[int(x)]) + 12, size)
    return _layer("meadow", colour, alpha, (-_MARGIN_PX, 0))


def _pine(random: np.random.Generator, colour: Plane, alpha: Plane, x: float, y: float, size: float) -> None:
    """Draw a tall pine with its foot at (x, y): a trunk and many hanging boughs, lit from the right."""
    trunk = [(x - 0.022 * size, y), (x + 0.022 * size, y), (x + 0.004 * size, y - 0.96 * size)]
    _polygon(colour, trunk, np.array([64.0, 46, 40]))
    _polygon(alpha, trunk, 1.0)
    for level in np.linspace(0.1, 0.97, 26).tolist():
        reach = size * (0.035 + 0.265 * (1.02 - level) ** 0.85)
        for _ in range(7):
            side = float(random.uniform(-1, 1))
            root = y - size * level - float(random.uniform(0, 0.03)) * size
            tip = (x + side * reach, root + abs(side) * 0.09 * size)
            bough = [(x, root - 0.045 * size), tip, (x + side * reach * 0.35, root + 0.035 * size)]
            light = 0.62 + 0.42 * max(side, 0) + float(random.uniform(-0.1, 0.12))
            _polygon(colour, bough, np.array([44.0, 76, 60]) * light + (np.array([30.0, 14, 0]) if side > 0.5 else 0))
            _polygon(alpha, bough, 1.0)


def _balloon(random: np.random.Generator) -> Layer:
    scale = _SUPERSAMPLING
    height, width = 170 * scale, 124 * scale
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x = (x - width / 2) / scale
    y = (y / scale) - 62
    radius = np.where(y < 0, 58.0, 58 * np.sqrt(np.clip(1 - (np.clip(y, 0, 68) / 71) ** 1.9, 0.02, 1)))
    half_width = np.where(y < 0, np.sqrt(np.clip(58.0**2 - y**2, 0, None)), radius)
    envelope = (np.abs(x) <= half_width) & (y >= -58) & (y <= 66)
    across = np.clip(x / np.maximum(half_width, 1), -1, 1)
    gore = np.floor((np.arcsin(across) / pi + 0.5) * 12).astype(int) % 12
    palette = np.array([[222, 74, 58], [250, 226, 184], [240, 152, 56], [250, 226, 184]], np.float32)
    colour = palette[gore % 4]
    band = np.abs(y - 6 - 7 * np.abs(np.mod(np.arcsin(across) / pi * 12, 2) - 1)) < 9
    colour = np.where(band[..., None], np.array([44, 74, 120], np.float32), colour)
    weave = cv2.resize(_noise(random, 90, 64, 4, 4, 2), (width, height), interpolation=cv2.INTER_LINEAR)
    colour = colour * (0.72 + 0.3 * np.sqrt(np.clip(1 - (across - 0.35) ** 2 / 1.9, 0, 1)) + 0.035 * weave)[..., None]
    alpha = envelope.astype(np.float32)
    for side in (-1, 1):
        rope = (np.abs(x - side * (13 - (y - 66) * 0.2)) < 0.7) & (y > 64) & (y < 88)
        colour[rope], alpha[rope] = (70, 52, 44), 1
    basket = (np.abs(x) <= 10) & (y >= 86) & (y <= 101)
    wicker = 0.85 + 0.25 * (np.mod(np.floor(y / 2.5) + np.floor(x / 2.5), 2) > 0)
    colour = np.where(basket[..., None], np.array([142, 92, 54], np.float32) * wicker[..., None], colour)
    alpha[basket] = 1
    size = (width // scale, height // scale)
    colour = cv2.resize(colour * alpha[..., None], size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    return Layer("balloon", colour.astype(np.float32), alpha, (120.0, 62.0))


def main() -> None:
    """Write the sample video to the path given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m structureflow_local.sample", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.mp4", help="the file to write")
    out: Path = parser.parse_args().out
    info = make_sample(out)
    print(f"{out}: {info.frames} frames, {WIDTH}x{HEIGHT}, {info.fps:g} fps, {info.size_bytes / 1000:.0f} kB")


if __name__ == "__main__":
    main()
