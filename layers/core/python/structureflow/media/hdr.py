"""HLG, PQ and wide primaries brought to what a standard display shows: BT.709.

One table per stream, applied by FFmpeg's ``lut3d``. A table is exact at its nodes and interpolated between them;
its inputs are the non-linear RGB of the stream, in which steps are even to the eye.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

_NODES: Final = 33
#: Luminance of white text and paper in HDR pictures (ITU-R BT.2408-7, 2.1), in cd/m2.
_REFERENCE_WHITE: Final = 203.0
#: What highlights are expected to reach: the nominal peak of HLG (ITU-R BT.2100-2, note 5g) and of most PQ masters.
_PEAK: Final = 1000.0
#: Share of SDR white up to which nothing is compressed.
_KNEE: Final = 0.7
#: Of a standard display (ITU-R BT.1886).
_GAMMA: Final = 2.4

_Points = NDArray[np.float64]

_HDR: Final = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
# Linear RGB to linear BT.709 RGB, both with a white of D65. BT.2020: ITU-R BT.2087-0, annex 2, inverse of its matrix.
# P3: SMPTE EG 432-1. DCI's own white is taken as D65, as players do.
_FROM_BT2020: Final = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_FROM_P3: Final = np.array([[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]])
_TO_BT709: Final = {
    int(ColorPrimaries.BT2020): _FROM_BT2020,
    int(ColorPrimaries.SMPTE431): _FROM_P3,
    int(ColorPrimaries.SMPTE432): _FROM_P3,
}


def needs_mapping(transfer: int, primaries: int) -> bool:
    """Tell whether colours with these tags (ITU-T H.273, tables 3 and 2) differ visibly from BT.709's."""
    return transfer in _HDR or primaries in _TO_BT709


class ColourMap:
    """Maps frames of non-linear RGB to BT.709.

    Args:
        transfer, primaries: what the frames are tagged with (ITU-T H.273, tables 3 and 2).
        threads: for filtering.

    Attributes:
        kind: (`transfer`, `primaries`).
    """

    def __init__(self, transfer: int, primaries: int, *, threads: int) -> None:
        self.kind = transfer, primaries
        self._threads = threads
        self._table = to_bt709(_grid(), transfer, primaries)
        self._graph: Graph | None = None
        self._size = (0, 0)

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Map a frame of format ``gbrp10le``; the result has the same format."""
        if self._graph is None or self._size != (frame.width, frame.height):
            self._graph = self._build(frame)
            self._size = frame.width, frame.height
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = self._threads
        # the filter reads its table from a file, once
        with tempfile.TemporaryDirectory(prefix="structureflow-colour-") as folder:
            path = Path(folder) / "table.cube"
            path.write_text(_cube(self._table), encoding="ascii")
            source = graph.add_buffer(template=frame, time_base=Fraction(1, 1000))
            table = graph.add("lut3d", file=str(path), interp="tetrahedral")
            graph.link_nodes(source, table, graph.add("buffersink")).configure()
        return graph


def to_bt709(rgb: _Points, transfer: int, primaries: int) -> _Points:
    """Map non-linear RGB of a tagged stream to non-linear BT.709 RGB for a standard display.

    HDR light is scaled so that reference white (203 cd/m2) is near SDR white. Up to the knee it is kept; above, the
    brightest channel is compressed logarithmically, after the manner of ITU-R BT.2446-1, method C, with its hue kept.

    Args:
        rgb: ``(..., 3)``, 0 to 1.
        transfer, primaries: ITU-T H.273, tables 3 and 2.

    Returns:
        ``(..., 3)``, 0 to 1.
    """
    if transfer in _HDR:
        light = _pq_light(rgb) if transfer == ColorTrc.SMPTE2084 else _hlg_light(rgb)
        brightest = light.max(-1, keepdims=True)
        linear = light * (_compressed(brightest) / np.maximum(brightest, 1e-9))
    else:
        linear = rgb**_GAMMA
    # PQ and HLG that name no primaries are BT.2100's, which are BT.2020's
    matrix = _TO_BT709.get(primaries, _FROM_BT2020)
    if primaries == ColorPrimaries.BT709:
        matrix = np.eye(3)
    result: _Points = np.clip(linear @ matrix.T, 0, 1) ** (1 / _GAMMA)
    return result


def _pq_light(rgb: _Points) -> _Points:
    """Return light by reference white, of PQ (SMPTE ST 2084)."""
    root = rgb ** (32 / 2523)
    light: _Points = (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    return light * (10_000 / _REFERENCE_WHITE)


def _hlg_light(rgb: _Points) -> _Points:
    """Return displayed light by reference white, of HLG (ITU-R BT.2100-2, tables 5) on a display of 1000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    light: _Points = scene * np.maximum(luminance, 1e-9)[..., None] ** 0.2
    return light * (_PEAK / _REFERENCE_WHITE)


def _compressed(light: _Points) -> _Points:
    """Compress light by reference white so that the peak comes to 1, without a kink at the knee."""
    scale = _log_scale()
    over = np.maximum(light - _KNEE, 0)
    return np.minimum(np.where(light <= _KNEE, light, _KNEE + scale * np.log1p(over / scale)), 1)


def _log_scale() -> float:
    """Solve ``scale * log(1 + (peak - knee) / scale) = 1 - knee``; the left side rises with the scale."""
    low, high = 1e-4, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = middle * np.log1p((_PEAK / _REFERENCE_WHITE - _KNEE) / middle)
        low, high = (middle, high) if reached < 1 - _KNEE else (low, middle)
    return (low + high) / 2


def _grid() -> _Points:
    """Return the nodes in the order of a ``.cube`` file: red fastest; ``(nodes**3, 3)``."""
    steps = np.linspace(0, 1, _NODES)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return np.stack([red, green, blue], -1).reshape(-1, 3)


def _cube(table: _Points) -> str:
    rows = "\n".join(f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in table.tolist())
    return f"LUT_3D_SIZE {_NODES}\n{rows}\n"
