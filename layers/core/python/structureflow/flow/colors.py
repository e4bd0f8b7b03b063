"""Pictures of flow fields in the colours that the field has agreed on."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, is_text
from structureflow.errors import FlowError
from structureflow.flow.fields import FlowMeta, FlowSource
from structureflow.flow.sources import flow_source

# Steps from red to yellow, yellow to green, and so on around the circle (Baker et al., "A Database and
# Evaluation Methodology for Optical Flow", 2011, and its reference code colorcode.cpp).
_WHEEL_STEPS: Final = (15, 6, 4, 11, 13, 6)
_SAMPLED_FLOWS: Final = 64
_SAMPLED_VECTORS: Final = 4096


@checked(flow=arguments.array, max_px=arguments.number(above=0))
def flow_to_rgb(flow: NDArray[Any], max_px: float) -> NDArray[np.uint8]:
    """Paint a flow field with the Middlebury colour wheel: hue is direction, saturation is length.

    Args:
        flow: ``(H, W, 2)`` floating, (dx, dy) in pixels, finite.
        max_px: the length that is fully saturated; longer vectors keep its colour at 3/4 brightness. One
            value for a whole clip (`flow_normaliser`), or the strength of motion can't be compared.

    Returns:
        ``(H, W, 3) uint8 RGB``; zero flow is white.

    Raises:
        FlowError: the field has another shape or is not finite.
        InvalidArgumentError: it is no array, or `max_px` is not positive.

    >>> import numpy as np
    >>> flow_to_rgb(np.zeros((32, 32, 2), np.float32), 8.0)[0, 0].tolist()
    [255, 255, 255]
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size or not np.issubdtype(flow.dtype, np.floating):
        raise FlowError(f"flow: expected (H, W, 2) of a float type, got {flow.shape} {flow.dtype}")
    vectors = np.asarray(flow, np.float32) / np.float32(max_px)
    if not np.isfinite(vectors).all():
        raise FlowError("flow: expected finite vectors")
    # The reference code measures the angle of the reversed vector, which puts motion to the right on red.
    radius, angle = cv2.cartToPolar(vectors[..., 0], vectors[..., 1])
    wheel = _wheel()
    position = angle * np.float32((sum(_WHEEL_STEPS) - 1) / (2 * math.pi))
    lower = np.minimum(position.astype(np.intp), len(wheel) - 2)
    fraction = (position - lower)[..., None]
    colour = wheel[lower] * (1 - fraction) + wheel[lower + 1] * fraction
    length = radius[..., None]
    painted = np.where(length <= 1, 1 - length * (1 - colour), colour * np.float32(0.75))
    return cast("NDArray[np.uint8]", (painted * 255 + 0.5).astype(np.uint8))


@checked(percentile=arguments.number(least=0, most=100))
def flow_normaliser(flows: FlowSource | Iterable[NDArray[Any]], *, percentile: float = 99.0) -> float:
    """Return one `max_px` for a whole clip: a percentile of the vector lengths of all its flows.

    At most 64 flows, evenly spread, and 4096 vectors of each are looked at when `flows` is a source; an
    iterable is consumed whole, one field at a time.

    Args:
        flows: a flow source (its forward flows are read), or fields ``(H, W, 2)`` in pixels.
        percentile: 0 to 100; the default leaves out the wildest hundredth.

    Returns:
        Pixels; at least 1.0, so that the noise of a still clip stays near white.

    Raises:
        FlowError: there are no flows, or one has another shape.

    >>> import numpy as np
    >>> flow_normaliser([np.full((32, 32, 2), (3, 4), np.float32)])
    5.0
    """
    if isinstance(flows, Iterable) and not is_text(flows):
        fields: Iterable[NDArray[Any]] = flows
    else:
        flow_source(flows, "flows")
        fields = _spread(cast("FlowSource", flows))
    lengths = [_sampled_lengths(field) for field in fields]
    if not lengths:
        raise FlowError("flow_normaliser: expected at least one flow, got none")
    sample = np.concatenate(lengths)
    if not np.isfinite(sample).all():
        raise FlowError("flows: expected finite vectors")
    return max(1.0, float(np.percentile(sample, percentile)))


def typical_length(flow: NDArray[Any], *, percentile: float = 99.0) -> float:
    """Return the length in pixels that a percentile of a flow's vectors, ``(H, W, 2)``, stay below."""
    return float(np.percentile(_sampled_lengths(flow), percentile))


def clip_normaliser(lengths: Iterable[float]) -> float:
    """Return one `max_px` for a clip from the `typical_length` of each of its flows.

    The 95th percentile of them, so that a few violent flows (a cut, a flash) do not pale all others; at least
    1.0, so that the noise of a still clip stays near white.

    Raises:
        FlowError: there are no flows.
    """
    found = np.fromiter(lengths, np.float64)
    if not found.size:
        raise FlowError("clip_normaliser: expected at least one flow, got none")
    return max(1.0, float(np.percentile(found, 95)))


def display_range(meta: FlowMeta) -> float:
    """Return the `max_px` of a clip: what its archive records, or 1/40 of the grid's width where it does not."""
    return meta.display_max_px or max(1.0, meta.width / 40)


def _spread(source: FlowSource) -> Iterable[NDArray[Any]]:
    total = source.meta.total_flows
    for index in sorted({round(i) for i in np.linspace(0, total - 1, min(total, _SAMPLED_FLOWS))}):
        yield source.read("forward", index, index + 1)[0]


def _sampled_lengths(flow: NDArray[Any]) -> NDArray[np.float32]:
    arguments.array(flow, "flows", "(H, W, 2)")
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size or not np.issubdtype(flow.dtype, np.floating):
        raise FlowError(f"flows: expected (H, W, 2) of a float type, got {flow.shape} {flow.dtype}")
    vectors = flow.reshape(-1, 2)
    stride = max(1, len(vectors) // _SAMPLED_VECTORS)
    sample = vectors[::stride].astype(np.float32)
    return cast("NDArray[np.float32]", np.hypot(sample[:, 0], sample[:, 1]))


@functools.cache
def _wheel() -> NDArray[np.float32]:
    """Return the wheel's colours ``(56, 3) float32 RGB`` in 0 to 1, the first repeated as the last."""
    total = sum(_WHEEL_STEPS)
    wheel = np.zeros((total + 1, 3), np.float32)
    start = 0
    for transition, count in enumerate(_WHEEL_STEPS):
        ramp = np.arange(count, dtype=np.float32) / count
        # Alternately the next channel rises while one is full, then the full one falls.
        full = (transition + 1) // 2 % 3
        moving = (full + 1) % 3 if transition % 2 == 0 else (full - 1) % 3
        wheel[start : start + count, full] = 1
        wheel[start : start + count, moving] = ramp if transition % 2 == 0 else 1 - ramp
        start += count
    wheel[total] = wheel[0]
    wheel.setflags(write=False)
    return wheel
