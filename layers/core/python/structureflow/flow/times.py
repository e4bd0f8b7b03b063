"""When the frames of a video are shown: where motion is placed by time, not by frame number."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.arguments import shown
from structureflow.errors import FlowError

#: Frames of a constant rate are at most this far from even times: many containers keep whole milliseconds.
EVEN_WITHIN_S: Final = 0.0015

#: Positions closer to a node than this are on it: they come from rounding.
ON_NODE: Final = 1e-6


def frame_times(times: NDArray[Any]) -> NDArray[np.float64]:
    """Return the times of frames as float64.

    Raises:
        FlowError: they are no list of numbers.
    """
    try:
        found = np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise FlowError(f"timestamps_s: expected a time for each frame, got {shown(times)}") from error
    if found.ndim != 1:
        raise FlowError(f"timestamps_s: expected a time for each frame, got {shown(times)}")
    return found


def uneven_times(timestamps_s: NDArray[Any], total_flows: int) -> NDArray[np.float64] | None:
    """Return the times of a video's frames where they say more than the frames' numbers do.

    Args:
        timestamps_s: presentation time of each frame, as in `FlowMeta`.
        total_flows: one less than frames.

    Returns:
        ``(total_flows + 1,)`` float64, rising, from 0 on. None where the rate is constant (to `EVEN_WITHIN_S`),
        and where the times are of no use: another number of them, not finite, or not rising. Motion is then
        placed by index.
    """
    if total_flows < 1 or np.shape(timestamps_s) != (total_flows + 1,):
        return None
    times = np.asarray(timestamps_s, np.float64)
    if not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        return None
    times = times - times[0]
    even = np.linspace(0.0, times[-1], len(times))
    return None if np.abs(times - even).max() <= EVEN_WITHIN_S else times


def node_at_time(times_s: NDArray[np.float64], time_s: float) -> float:
    """Return the frame number, with fraction, that is shown at `time_s`; motion between two frames is even.

    Args:
        times_s: ``(N,)`` rising, N at least 2.
        time_s: any; times before the first frame and after the last one are those frames.
    """
    return float(np.interp(time_s, times_s, np.arange(len(times_s), dtype=np.float64)))


def retimed_nodes(count: int, target_count: int, times_s: NDArray[np.float64] | None = None) -> list[float]:
    """Return the frame numbers, with fractions, at which the `target_count` steps of ``retime`` begin and end.

    Args:
        count: flows that are played, 1 or more.
        target_count: steps, 1 or more.
        times_s: ``(count + 1,)`` rising, from 0 on, the time of each frame; None places by index.

    Returns:
        ``target_count + 1`` nodes from 0 to `count`, equally far apart in time. A node within `ON_NODE` of a frame
        is on it.
    """
    if times_s is None:
        nodes = [position * count / target_count for position in range(target_count + 1)]
    else:
        asked = np.arange(target_count + 1) * (times_s[-1] / target_count)
        nodes = np.interp(asked, times_s, np.arange(count + 1, dtype=np.float64)).tolist()
    return [float(round(node)) if abs(node - round(node)) < ON_NODE else node for node in nodes]
