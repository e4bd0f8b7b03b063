"""Colour profiles with known numbers, as cameras and editors embed them; for tests."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Linear Display P3 to XYZ adapted to ICC's D50 white; columns are red, green and blue (Apple's own profile).
DISPLAY_P3_TO_XYZ: Final = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
#: The same of sRGB (IEC 61966-2-1, adapted by Bradford's method).
SRGB_TO_XYZ: Final = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
_D50: Final = (0.96420, 1.0, 0.82491)


def rgb_profile(to_xyz: NDArray[Any], gamma: float) -> bytes:
    """Return an ICC profile (version 2, matrix and curves) of an RGB display."""
    columns = np.asarray(to_xyz, np.float64).T
    tags = [(name, _xyz(column)) for name, column in zip(("rXYZ", "gXYZ", "bXYZ"), columns, strict=True)]
    return _profile("RGB ", [*tags, *((name, _curve(gamma)) for name in ("rTRC", "gTRC", "bTRC"))])


def grey_profile(gamma: float) -> bytes:
    """Return an ICC profile (version 2) of a grey display."""
    return _profile("GRAY", [("kTRC", _curve(gamma))])


def to_srgb(rgb: NDArray[Any], to_xyz: NDArray[Any], gamma: float) -> NDArray[np.float64]:
    """Convert ``(..., 3)`` RGB, 0 to 255, of such a display to sRGB, 0 to 255, clipped to what sRGB has."""
    linear = (np.asarray(rgb, np.float64) / 255) ** gamma @ (np.linalg.inv(SRGB_TO_XYZ) @ to_xyz).T
    linear = np.clip(linear, 0, 1)
    result: NDArray[np.float64] = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return result


def _profile(space: str, tags: list[tuple[str, bytes]]) -> bytes:
    """Assemble header, tag table and tags (ICC.1:2001-04, clause 6)."""
    text = b"a test display\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    named = [("desc", described), ("wtpt", _xyz(_D50)), ("cprt", b"text" + bytes(4) + b"none\0"), *tags]
    offset = 128 + 4 + 12 * len(named)
    table, body = struct.pack(">I", len(named)), b""
    for name, data in named:
        padded = data + bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">II", offset + len(body), len(data))
        body += padded
    header = struct.pack(
        ">I4sI4s4s4s", 128 + len(table) + len(body), b"none", 0x02400000, b"mntr", space.encode(), b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(_fixed(value) for value in _D50)
    return header + bytes(128 - len(header)) + table + body


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))
