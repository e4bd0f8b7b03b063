"""Times of frames: from the first one on, always rising."""

from __future__ import annotations

from fractions import Fraction

from av.video.frame import VideoFrame

_FALLBACK_FPS = 25.0
#: A step back of at least that much is a seam between recordings, not a glitch.
_SEAM_S = 0.5


class FrameClock:
    """Tells when each frame is shown, in seconds after the first one.

    Frames without a time, and clocks that stand still or jump back (raw streams, recordings put together), go on at
    the nominal rate; after a jump the stream's own steps count again.

    Args:
        time_base: seconds per tick, for frames that name none; None where the frames' times mean nothing.
        fps: the nominal rate; 0 where it is not known.
    """

    def __init__(self, time_base: Fraction | None, fps: float) -> None:
        self._time_base = time_base
        self._step_s = 1 / (fps or _FALLBACK_FPS)
        self._origin_s: float | None = None
        self._last_s = 0.0

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
