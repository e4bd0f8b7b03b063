"""Flows that are in memory already, and what every source of flows checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from structureflow.arguments import array, check_fields, index_of, instance, optional, refuse, shown
from structureflow.errors import FlowError
from structureflow.flow.fields import Direction, Field32, FlowMeta


@dataclass(frozen=True)
class ArrayFlows:
    """Flows in memory, as a `FlowSource`; `read` returns views of the arrays, which must not be changed.

    Attributes:
        meta: what describes them.
        forward, backward: ``(total_flows, height, width, 2) float32``, pixels of the grid; backward or None.
    """

    meta: FlowMeta
    forward: Field32
    backward: Field32 | None = None

    def __post_init__(self) -> None:
        check_fields(self, meta=instance(FlowMeta, "FlowMeta"), forward=array, backward=optional(array))
        expected = (self.meta.total_flows, self.meta.height, self.meta.width, 2)
        for name, flows in (("forward", self.forward), ("backward", self.backward)):
            if flows is not None and (flows.shape != expected or flows.dtype != np.float32):
                raise FlowError(f"{name} flows: expected {expected} float32, got {flows.shape} {flows.dtype}")
        if self.meta.has_backward != (self.backward is not None):
            raise FlowError("flows: has_backward and the arrays given contradict each other")

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Return flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`.

        Raises:
            FlowError: the range or the direction is not there.
        """
        check_range(self.meta, direction, start, stop)
        flows = self.forward if direction == "forward" else self.backward
        return cast("Field32", flows)[start:stop]


def check_range(meta: FlowMeta, direction: Direction, start: int, stop: int) -> None:
    """Check that flows `start` (inclusive) to `stop` (exclusive) are there.

    Raises:
        FlowError: they are not, or the direction is unknown or absent.
    """
    if direction not in ("forward", "backward"):
        raise FlowError(f"direction: expected forward or backward, got {direction!r:.40}")
    if index_of(start) is None or index_of(stop) is None:
        raise FlowError(f"flows: expected whole numbers as start and stop, got {shown(start)}, {shown(stop)}")
    if direction == "backward" and not meta.has_backward:
        raise FlowError("backward flow: expected, but only forward flow is there")
    if not 0 <= start < stop <= meta.total_flows:
        raise FlowError(f"flows: expected 0 <= start < stop <= {meta.total_flows}, got {start}, {stop}")


def flow_source(value: Any, name: str) -> None:
    """Expect a `FlowSource`; a check of `structureflow.arguments`."""
    if not isinstance(getattr(value, "meta", None), FlowMeta) or not callable(getattr(value, "read", None)):
        refuse(value, name, "flows, such as extract_flows or open_flows gives")


def shrink_flow(flow: Field32, height: int, width: int) -> Field32:
    """Average a field down to a smaller grid, and scale its vectors by the ratio of the sizes.

    Args:
        flow: ``(H, W, 2)`` float32, in pixels of its own grid.
        height, width: the new grid, not larger than `flow`'s.

    Returns:
        ``(height, width, 2)`` float32 in pixels of the new grid.
    """
    # only where it is needed: importing OpenCV takes a tenth of a second
    import cv2

    averaged = cast("Field32", cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA))
    return averaged * np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
