"""Flow fields as values: what describes them, where they are read from, and plain arithmetic on them.

Everywhere in this package a flow field is an array ``(H, W, 2)``, channels last, ``[..., 0]`` = dx (to the
right) and ``[..., 1]`` = dy (down), in pixels of its own grid. *Forward* flow ``t`` says where each pixel of
frame ``t`` is in frame ``t + 1``; *backward* flow ``t`` says where each pixel of frame ``t + 1`` was in frame
``t``. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Direction = Literal["forward", "backward"]

#: Vectors are stored as multiples of this many pixels of the stored grid.
QUANTIZATION_PX: Final = 1 / 16


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
    source_video: str = ""
    source_identity: str = ""
    format_version: int = 0


class FlowSource(Protocol):
    """Anything that flows can be read from: an archive in a store, or arrays in memory."""

    @property
    def meta(self) -> FlowMeta:
        """What is known without reading flows."""
        ...

    def read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        """Read flows `start` (inclusive) to `stop` (exclusive).

        Returns:
            ``(stop - start, height, width, 2)`` float16, (dx, dy) in pixels of the stored grid.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``, or the direction is
                not there.
            FlowCacheError: the archive is unreadable or corrupt there.
        """
        ...
