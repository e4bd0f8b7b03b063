"""Flow fields as the files of the field's benchmarks: Middlebury's ``.flo`` and KITTI's PNG."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, optional
from structureflow.errors import FlowError, InputNotFoundError
from structureflow.files import new_file
from structureflow.flow.fields import Field32, check_flow

PathLike = str | os.PathLike[str]
Valid = NDArray[np.bool_]

_FLO_MAGIC: Final = b"PIEH"
#: Beyond it a vector says "unknown" (Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV
#: 2011; the format's own readme).
_FLO_UNKNOWN: Final = 1e9
_FLO_WRITTEN_UNKNOWN: Final = 1e10
#: ``(value - 2**15) / 64`` is the vector (Geiger et al., KITTI flow benchmark, development kit).
_KITTI_STEP: Final = 64.0
_KITTI_ZERO: Final = 2**15
_KITTI_LONGEST_PX: Final = (2**15 - 1) / _KITTI_STEP
#: Of the archive's own: more is no flow of a video.
_MAX_SIDE_PX: Final = 4096


@checked(path=arguments.path)
def read_flo(path: PathLike) -> tuple[Field32, Valid]:
    """Read a Middlebury ``.flo`` file.

    Returns:
        The flow, ``(H, W, 2)`` float32, (dx, dy) in pixels, and where it is known, ``(H, W)`` bool. Where it is not, it
        is 0.

    Raises:
        InputNotFoundError: no such file.
        FlowError: it is no ``.flo`` file, not whole, or larger than 4096 pixels a side.
    """
    file = Path(path)
    with _opened(file) as stream:
        head = stream.read(12)
        if len(head) != 12 or head[:4] != _FLO_MAGIC:
            raise FlowError(f"{file.name}: expected a .flo file, which begins with PIEH, got {head[:4]!r}")
        width, height = struct.unpack("<2i", head[4:])
        _check_size(file.name, width, height)
        size = height * width * 8
        data = stream.read(size + 1)
    if len(data) != size:
        raise FlowError(f"{file.name}: expected {size} bytes of {width}x{height} vectors, got {len(data)}")
    flow = np.frombuffer(data, "<f4").reshape(height, width, 2).astype(np.float32)
    with np.errstate(invalid="ignore"):
        known = (np.abs(flow) <= _FLO_UNKNOWN).all(-1)
    flow[~known] = 0
    return flow, known


@checked(path=arguments.path, flow=arguments.array, known=optional(arguments.array))
def write_flo(path: PathLike, flow: NDArray[Any], known: Valid | None = None) -> None:
    """Write a flow as a Middlebury ``.flo`` file, lossless in float32.

    Args:
        path: the file; an older one is replaced.
        flow: ``(H, W, 2)`` of any float type, finite, (dx, dy) in pixels.
        known: ``(H, W)`` bool; None: all of it.

    Raises:
        FlowError: another shape or type, or a vector that is not finite.
        OutputError: the file cannot be written.

    >>> import numpy as np
    >>> write_flo("pan.flo", np.full((48, 64, 2), 1.5, np.float32))
    >>> flow, known = read_flo("pan.flo")
    >>> flow.shape, float(flow.max()), bool(known.all())
    ((48, 64, 2), 1.5, True)
    """
    field = np.array(check_flow(flow))
    height, width = field.shape[:2]
    if known is not None:
        field[~_mask(known, height, width)] = _FLO_WRITTEN_UNKNOWN
    data = _FLO_MAGIC + struct.pack("<2i", width, height) + field.astype("<f4").tobytes()
    with new_file(path, "path") as part:
        part.write_bytes(data)


@checked(path=arguments.path)
def read_kitti(path: PathLike) -> tuple[Field32, Valid]:
    """Read a flow from a 16-bit PNG of the KITTI benchmark; returns and raises as `read_flo`."""
    import cv2

    file = Path(path)
    with _opened(file) as stream:
        data = stream.read()
    # The first chunk, IHDR, begins with 8 bytes of chunk header, then width and height.
    if len(data) < 24 or not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise FlowError(f"{file.name}: expected a PNG, got {data[:8]!r}")
    _check_size(file.name, *(int.from_bytes(data[start : start + 4], "big") for start in (16, 20)))
    image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        found = "no picture" if image is None else f"{image.shape} {image.dtype}"
        raise FlowError(f"{file.name}: expected a PNG of 16 bits and three channels, got {found}")
    # OpenCV gives B, G, R; the file has u in R, v in G and whether they are known in B.
    known = image[..., 0] > 0
    flow = (image[..., 2:0:-1].astype(np.float32) - _KITTI_ZERO) / np.float32(_KITTI_STEP)
    flow[~known] = 0
    return np.ascontiguousarray(flow), known


@checked(path=arguments.path, flow=arguments.array, known=optional(arguments.array))
def write_kitti(path: PathLike, flow: NDArray[Any], known: Valid | None = None) -> None:
    """Write a flow as a 16-bit PNG of the KITTI benchmark, rounded to 1/64 pixel.

    Args:
        path, flow, known: as `write_flo`; vectors of at most 511 pixels per axis.

    Raises:
        FlowError: as `write_flo`; or a vector is longer.

    >>> import numpy as np
    >>> write_kitti("pan.png", np.full((48, 64, 2), -1.25, np.float32))
    >>> flow, known = read_kitti("pan.png")
    >>> flow.shape, float(flow.min())
    ((48, 64, 2), -1.25)
    """
    import cv2

    field = check_flow(flow)
    height, width = field.shape[:2]
    longest = float(np.abs(field).max())
    if longest > _KITTI_LONGEST_PX:
        raise FlowError(f"KITTI: expected vectors of up to {_KITTI_LONGEST_PX:.0f} pixels per axis, got {longest:.1f}")
    image = np.ones((height, width, 3), np.uint16)
    image[..., 2:0:-1] = (np.rint(field * np.float32(_KITTI_STEP)) + np.float32(_KITTI_ZERO)).astype(np.uint16)
    if known is not None:
        image[~_mask(known, height, width)] = 0
    encoded, buffer = cv2.imencode(".png", image)
    if not encoded:
        raise FlowError(f"a flow of {width}x{height} cannot be encoded as PNG")
    with new_file(path, "path") as part:
        part.write_bytes(buffer.tobytes())


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputNotFoundError(f"{path}: cannot be read: {error.strerror}") from error


def _check_size(name: str, width: int, height: int) -> None:
    if not (1 <= width <= _MAX_SIDE_PX and 1 <= height <= _MAX_SIDE_PX):
        raise FlowError(f"{name}: expected sides of 1 to {_MAX_SIDE_PX} pixels, got {width}x{height}")


def _mask(known: Valid, height: int, width: int) -> Valid:
    if known.shape != (height, width) or known.dtype != np.bool_:
        raise FlowError(f"known: expected {(height, width)} bool, got {known.shape} {known.dtype}")
    return known
