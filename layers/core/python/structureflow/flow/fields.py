"""Flow fields as values: what describes them, where they are read from, and plain arithmetic on them.

Everywhere in this package a flow field is an array ``(H, W, 2)``, channels last, ``[..., 0]`` = dx (to the
right) and ``[..., 1]`` = dy (down), in pixels of its own grid. *Forward* flow ``t`` says where each pixel of
frame ``t`` is in frame ``t + 1``; *backward* flow ``t`` says where each pixel of frame ``t + 1`` was in frame
``t``. Sizes are (height, width).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import check_fields, index_of, number, shown, text, whole
from structureflow.errors import FlowError
from structureflow.flow.times import frame_times, retimed_nodes, uneven_times

Direction = Literal["forward", "backward"]
Treatment = Literal["adjust", "clip", "retime"]
Field32 = NDArray[np.float32]

#: Vectors are stored as multiples of this many pixels of the stored grid.
QUANTIZATION_PX: Final = 1 / 16

#: No vector longer than this per axis reaches OpenCV, whose remap keeps coordinates in 16 bits.
MAX_DISPLACEMENT_PX: Final = 16_384.0

#: Fixed-point iterations of `invert_flow` and `partial_flow`; the error shrinks by the local stretch each time.
FIXED_POINT_ITERATIONS: Final = 6


@dataclass(frozen=True, slots=True)
class FlowMeta:
    """What is known of a sequence of flows without reading them.

    Attributes:
        total_flows: number of flow fields, one less than frames.
        height, width: the stored grid in pixels.
        original_height, original_width: the structure video in pixels (after rotation).
        original_fps: frames per second of the structure video.
        has_backward: whether backward flows are there; else only forward ones.
        engine, engine_params: what really computed the flows.
        quantization_px: step of the stored vectors; 0 for plain archives of unknown step.
        timestamps_s: presentation time of each frame, ``(total_flows + 1,)`` float64.
        scene_cuts: flow indices t such that frames t and t + 1 show different scenes.
        display_max_px: length of a long vector of the clip in pixels of the stored grid, the one normaliser of
            all its pictures; 0 when unknown.
        source_video: the reference of the video, for people.
        source_identity: SHA-256 or ETag of its bytes; empty when unknown.
        format_version: of the archive; 0 for plain archives.
    """

    total_flows: int
    height: int
    width: int
    original_height: int
    original_width: int
    original_fps: float
    has_backward: bool
    engine: str
    engine_params: Mapping[str, Any] = field(default_factory=dict)
    quantization_px: float = QUANTIZATION_PX
    timestamps_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    scene_cuts: tuple[int, ...] = ()
    display_max_px: float = 0.0
    source_video: str = ""
    source_identity: str = ""
    format_version: int = 0

    def __post_init__(self) -> None:
        """Refuse what describes no flows.

        Raises:
            InvalidArgumentError: a value of another type, or out of its range.
        """
        check_fields(self, **_META)
        arguments.whole_numbers(0, self.total_flows - 1)(self.scene_cuts, "scene_cuts")
        times = arguments.array(self.timestamps_s, "timestamps_s")
        if times.ndim != 1 or not np.issubdtype(times.dtype, np.number):
            arguments.refuse(times, "timestamps_s", "one time for each frame, in seconds")


_META: Final = {
    **dict.fromkeys(("total_flows", "height", "width", "original_height", "original_width"), whole(1)),
    **dict.fromkeys(("original_fps", "quantization_px", "display_max_px"), number(least=0)),
    **dict.fromkeys(("engine", "source_video", "source_identity"), text),
    "engine_params": arguments.mapping,
    "format_version": whole(0),
}


class FlowSource(Protocol):
    """Anything that flows can be read from: an archive in a store, or arrays in memory."""

    @property
    def meta(self) -> FlowMeta:
        """What is known without reading flows."""
        ...

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive).

        Returns:
            ``(stop - start, height, width, 2)`` float32, finite, (dx, dy) in pixels of the stored grid.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``, or the direction is
                not there.
            FlowCacheError: the archive is unreadable or corrupt there.
        """
        ...


# --- checks ------------------------------------------------------------------------------------------


def check_flow(flow: NDArray[Any], what: str = "flow") -> Field32:
    """Return a flow field as contiguous float32 that is safe to hand to OpenCV.

    Args:
        flow: ``(H, W, 2)`` of any float type, (dx, dy) in pixels of its own grid.
        what: names the field in the error.

    Returns:
        ``(H, W, 2)`` float32, every vector finite and at most `MAX_DISPLACEMENT_PX` per axis (longer ones are
        cut there: they point out of any frame either way). It may be `flow` itself; it is never changed.

    Raises:
        FlowError: another shape or type, an empty field, or a vector that is not finite.
    """
    if not isinstance(flow, np.ndarray):
        raise FlowError(f"{what}: expected an array (height, width, 2), got {shown(flow)}")
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
        raise FlowError(f"{what}: expected (height, width, 2), got shape {flow.shape}")
    if not np.issubdtype(flow.dtype, np.floating):
        raise FlowError(f"{what}: expected a float type, got {flow.dtype}")
    # min and max carry NaN through, and need no array of their own
    low, high = float(flow.min()), float(flow.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise FlowError(f"{what}: expected finite vectors, got NaN or infinity")
    if low < -MAX_DISPLACEMENT_PX or high > MAX_DISPLACEMENT_PX:
        flow = flow.clip(-MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX)
    return np.ascontiguousarray(flow, dtype=np.float32)


def check_flows(flows: Sequence[NDArray[Any]] | NDArray[Any]) -> list[Field32]:
    """Return flow fields of one size, a list or ``(S, H, W, 2)``, each as `check_flow` returns it.

    Raises:
        FlowError: they are no such list, or of different sizes, or one is unusable.
    """
    listed = isinstance(flows, Sequence) and not isinstance(flows, (str, bytes))
    if not listed and not (isinstance(flows, np.ndarray) and flows.ndim):
        raise FlowError(f"flows: expected a list of (height, width, 2), got {shown(flows)}")
    checked = [check_flow(np.asarray(flow), f"flows: flow {index}") for index, flow in enumerate(flows)]
    for index, flow in enumerate(checked):
        if flow.shape != checked[0].shape:
            raise FlowError(f"flows: flow {index}: expected shape {checked[0].shape} as flow 0, got {flow.shape}")
    return checked


# --- arithmetic --------------------------------------------------------------------------------------


def _cv2() -> ModuleType:
    # OpenCV takes 0.1 to 0.3 s to load, and those who only read `FlowMeta` never need it
    import cv2

    return cv2


def pull(values: Field32, displacement: Field32, out: Field32 | None = None) -> Field32:
    """Sample `values` at ``x + displacement(x)``, bilinearly; past the edge, the edge.

    Args:
        values: ``(H, W, C)`` float32, C from 1 to 4.
        displacement: ``(h, w, 2)`` float32, finite, in pixels.
        out: ``(h, w, C)`` float32 to write to; must not share memory with the inputs.

    Returns:
        ``(h, w, C)`` float32, `out` if that was given.
    """
    cv2 = _cv2()
    sampled: Field32 = cv2.remap(
        values,
        displacement,
        None,
        cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
        dst=out,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled


def sample(values: Field32, places: Field32) -> Field32:
    """Sample `values` at absolute `places`, bilinearly; past the edge, the edge.

    Args:
        values: ``(H, W, C)`` float32, C from 1 to 4.
        places: ``(h, w, 2)`` float32, (x, y) in pixels, finite; pixel centres are whole numbers.

    Returns:
        ``(h, w, C)`` float32, fresh memory.
    """
    cv2 = _cv2()
    sampled: Field32 = cv2.remap(values, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled


def compose_flows(first: Field32, second: Field32, out: Field32 | None = None) -> Field32:
    """Join two displacements end to end: go along `first`, and from there along `second`.

    For pulling from frame ``t + 1`` through ``t`` to ``0``, `first` is backward flow ``t`` and `second` the
    displacement of frame ``t``. For forward flows, `first` is the earlier one.

    Args:
        first, second: ``(H, W, 2)`` float32, finite, in pixels of the same grid.
        out: ``(H, W, 2)`` float32 to write to; must not share memory with the inputs.

    Returns:
        ``first(x) + second(x + first(x))``, ``(H, W, 2)`` float32.
    """
    joined = pull(second, first, out)
    joined += first
    return joined


def invert_flow(flow: Field32, iterations: int = FIXED_POINT_ITERATIONS) -> Field32:
    """Turn a flow around by fixed point: ``g(x) = -f(x + g(x))``, starting from ``-f(x)``.

    Chen et al., "A simple fixed-point approach to invert a deformation field", Medical Physics 35 (2008). It
    converges where the flow stretches space by less than two; at an occlusion no inverse exists, and the value
    is one of those that compete.

    Args:
        flow: ``(H, W, 2)`` float32, finite, frame ``t`` to ``t + 1`` or the other way.

    Returns:
        The flow of the other direction, ``(H, W, 2)`` float32, on the other frame's grid.
    """
    inverse = -flow
    for _ in range(iterations):
        inverse = pull(flow, inverse)
        np.negative(inverse, out=inverse)
    return inverse


def partial_flow(flow: Field32, lag: float, span: float, iterations: int = FIXED_POINT_ITERATIONS) -> Field32:
    """Return a part of a motion that goes straight and evenly along `flow`.

    The part is looked at from where a pixel is when it still has ``1 - lag`` of its way before it: that pixel
    comes from ``y`` with ``x = y + lag flow(y)``, found by fixed point, and the part is ``span flow(y)``. With
    ``lag = 0`` this is plain scaling.

    Args:
        flow: ``(H, W, 2)`` float32, finite.
        lag: share of the way that is already gone at the point of view, 0 to 1 (negative: it starts earlier).
        span: share of the way to return.

    Returns:
        ``(H, W, 2)`` float32.
    """
    moved = flow
    if lag:
        for _ in range(iterations):
            moved = pull(flow, np.multiply(moved, np.float32(-lag)))
    return np.multiply(moved, np.float32(span))


def resize_flow(flow: NDArray[Any], height: int, width: int) -> Field32:
    """Resample a flow field to another grid, bilinearly, and scale its vectors by the ratio of the sizes.

    Args:
        flow: ``(H, W, 2)`` of any float type, in pixels of its own grid.
        height, width: the new grid.

    Returns:
        ``(height, width, 2)`` float32 in pixels of the new grid; may be `flow` itself if nothing changes.

    Raises:
        FlowError: see `check_flow`; or an empty new grid.

    >>> import numpy as np
    >>> half = resize_flow(np.full((96, 160, 2), (4, 2), np.float32), 48, 80)
    >>> half.shape, half[0, 0].tolist()
    ((48, 80, 2), [2.0, 1.0])
    """
    if not all((index_of(side) or 0) >= 1 for side in (height, width)):
        raise FlowError(f"resize: expected a grid of at least 1x1, got height {shown(height)}, width {shown(width)}")
    checked = check_flow(flow)
    if checked.shape[:2] == (height, width):
        return checked
    cv2 = _cv2()
    scaled = checked * np.array([width / checked.shape[1], height / checked.shape[0]], np.float32)
    resized: Field32 = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


# --- count -------------------------------------------------------------------------------------------


def adjust_flow_field_count(
    flows: Sequence[NDArray[Any]] | NDArray[Any],
    target_count: int,
    treatment: Treatment,
    direction: Direction = "forward",
    timestamps_s: NDArray[Any] | None = None,
) -> list[Field32]:
    """Make `target_count` motion steps of a sequence of flows.

    * ``adjust``, by index: step k is the flow at source position ``k (S-1) / (T-1)``, linearly interpolated between its
      two neighbours. Each step is as long as a step of the source, so the *total travel changes by T/S*: half as
      many steps go half as far. This is the original behaviour; prefer ``retime`` to keep the travel.
    * ``clip``, by index: the first T flows, and only S if there are fewer; nothing is repeated.
    * ``retime``, by time: the path is resampled: T steps travel what S steps travelled, at any ratio. Step k goes
      along the joined flows from ``k/T`` of the duration to ``(k+1)/T``; inside of a flow, motion is straight and
      even. A video of variable rate keeps its speed. Without times, or at a constant rate: ``k S/T`` flows.

    Args:
        flows: S flow fields ``(H, W, 2)`` of any float type, of one size, consecutive; a list, or ``(S, H, W, 2)``.
        target_count: T, 0 or more.
        treatment: see above.
        direction: of the flows; only ``retime`` depends on it.
        timestamps_s: ``(S + 1,)`` time of each frame, for ``retime``; of no use (`times.uneven_times`): by index.

    Returns:
        T (``clip``: at most T) fields ``(H, W, 2)`` float32 of the same direction.

    Raises:
        FlowError: T is negative; S is 0 where steps are to be made of it; a field is unusable (`check_flow`) or
            of another size; the treatment is unknown.

    >>> import numpy as np
    >>> four = np.full((4, 32, 32, 2), (3, 0), np.float32)  # 12 pixels in all
    >>> [round(sum(float(step[16, 16, 0]) for step in adjust_flow_field_count(four, 8, treatment)), 3)
    ...  for treatment in ("retime", "adjust", "clip")]
    [12.0, 24.0, 12.0]
    """
    if (index_of(target_count) or 0) != target_count or target_count < 0:
        raise FlowError(f"target_count: expected a whole number, 0 or more, got {shown(target_count)}")
    if treatment not in ("adjust", "clip", "retime"):
        raise FlowError(f"treatment: expected adjust, clip or retime, got {shown(treatment)}")
    if direction not in ("forward", "backward"):
        raise FlowError(f"direction: expected forward or backward, got {shown(direction)}")
    checked = check_flows(flows)
    count = len(checked)
    if treatment == "clip":
        return checked[:target_count]
    if target_count == 0:
        return []
    if count == 0:
        raise FlowError(f"{treatment}: expected at least 1 flow to make {target_count} steps of, got 0")
    if treatment == "adjust":
        return [_interpolate(checked, adjusted_position(k, count, target_count)) for k in range(target_count)]
    times_s = None if timestamps_s is None else uneven_times(frame_times(timestamps_s), count)
    nodes = retimed_nodes(count, target_count, times_s)
    return [_travel(checked, start, stop, direction) for start, stop in itertools.pairwise(nodes)]


def adjusted_position(step: int, count: int, target_count: int) -> float:
    """Return where in `count` flows step `step` of `target_count` looks under ``adjust``: 0 to ``count - 1``."""
    return step * (count - 1) / (target_count - 1) if target_count > 1 else 0.0


def _interpolate(flows: Sequence[Field32], position: float) -> Field32:
    index = min(int(position), len(flows) - 1)
    weight = position - index
    if weight == 0:
        return flows[index]
    return flows[index] * np.float32(1 - weight) + flows[index + 1] * np.float32(weight)


def _travel(flows: Sequence[Field32], start: float, stop: float, direction: Direction) -> Field32:
    """Join the flows from time `start` to `stop` (in flows) into one step of their direction."""
    joined: Field32 | None = None
    for index in range(int(start), min(math.ceil(stop), len(flows))):
        begin, end = max(start - index, 0.0), min(stop - index, 1.0)
        # rounding of k S/T leaves slivers of a flow that move nothing
        if end - begin < 1e-9:
            continue
        if direction == "forward":
            piece = partial_flow(flows[index], lag=begin, span=end - begin)
            joined = piece if joined is None else compose_flows(joined, piece)
        else:
            piece = partial_flow(flows[index], lag=1 - end, span=end - begin)
            joined = piece if joined is None else compose_flows(piece, joined)
    if joined is None:
        raise FlowError(f"retime: no motion between times {start} and {stop} of {len(flows)} flows")
    return joined
