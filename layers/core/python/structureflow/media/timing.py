"""Times of frames: from the first one on, always rising."""

from __future__ import annotations

import math
from fractions import Fraction

from av.video.frame import VideoFrame

FALLBACK_FPS = 25.0
#: A step back of at least that much is a seam between recordings, not a glitch.
_SEAM_S = 0.5
#: A step forward of that much is one too; FFmpeg's command line takes the same bound for a discontinuity.
_JUMP_S = 10.0
#: How long after a suspect packet frames are looked at: longer than decoders hold them back.
_WATCHED_S = 2.0


class FrameClock:
    """Tells when each frame is shown, in seconds after the first one.

    Frames without a time, and clocks that stand still or jump back (raw streams, recordings put together), go on at
    the nominal rate; after a jump the stream's own steps count again.

    Args:
        time_base: seconds per tick, for frames that name none; None where the frames' times mean nothing.
        fps: the nominal rate; 0 where it is not known.
        origin_s: time of the video's first frame, where the first one that is asked about may be a later one; only
            for videos whose times rise from frame to frame.
    """

    def __init__(self, time_base: Fraction | None, fps: float, *, origin_s: float | None = None) -> None:
        self._time_base = time_base
        self._step_s = 1 / (fps or FALLBACK_FPS)
        self._origin_s = origin_s
        self._last_s = 0.0 if origin_s is None else -math.inf

    def __call__(self, frame: VideoFrame) -> float:
        """Return the time of the next frame."""
        shown_s = self._stamp(frame)
        if self._origin_s is None:
            self._origin_s = shown_s or 0.0
            return 0.0
        time_s = self._last_s if shown_s is None else shown_s - self._origin_s
        if time_s <= self._last_s:
            next_s = self._last_s + self._step_s
            if shown_s is not None and time_s < self._last_s - _SEAM_S:
                self._origin_s = shown_s - next_s
            time_s = next_s
        self._last_s = time_s
        return time_s

    def _stamp(self, frame: VideoFrame) -> float | None:
        ticks = frame.pts if frame.pts is not None else frame.dts
        if ticks is None or self._time_base is None:
            return None
        base = frame.time_base
        seconds = Fraction(base.numerator, base.denominator) if base and base.denominator else self._time_base
        return float(ticks * seconds)


class LossWatch:
    """Finds frames that a transport stream lost.

    Its demuxer flags a packet wherever the packet counter jumps: where something is missing, but also at every seam
    between recordings that were put together. After a flag, a hole in the frames' times tells a loss from a seam.

    Args:
        step_s: the time of one frame.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._watched_s = 0.0
        self._last_s: float | None = None

    def suspect(self) -> None:
        """Say that a flagged packet was read."""
        self._watched_s = _WATCHED_S

    def is_hole(self, frame: VideoFrame) -> bool:
        """Tell whether frames are missing before this one."""
        shown_s = None if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
        last_s, self._last_s = self._last_s, shown_s
        if not self._watched_s or shown_s is None or last_s is None:
            return False
        step_s = shown_s - last_s
        self._watched_s = max(0.0, self._watched_s - abs(step_s))
        return 1.5 * self._step_s < step_s < _JUMP_S
