"""Colours that differ between the two anchors of a gap, though both show the same: led over from one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32

#: So much of the frame must be seen in both anchors for their colours to be compared.
_LEAST_SHARE: Final = 0.05
#: A pixel whose colours differ by more, after the first match, shows something else; in levels.
_OTHER: Final = 24.0
_GAIN: Final = (0.8, 1.25)
_OFFSET: Final = 40.0

#: ``(3, 256)`` uint8: for each channel of the format what each level becomes.
Tables = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Drift:
    """How the start anchor's channels become the end anchor's: times `gain`, plus `offset`, ``(3,)`` each."""

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def between(cls, start: Field32, end: Field32, shared: NDArray[np.bool_]) -> Drift | None:
        """Compare the anchors' colours by mean and deviation where both show the same.

        Args:
            start, end: ``(h, w, 3)`` float32 levels, what the anchors show of one frame.
            shared: ``(h, w)`` bool, where both show it.

        Returns:
            None where too little is shared to tell.
        """
        found: Drift | None = None
        same = shared
        for _ in range(2):
            if same.mean() < _LEAST_SHARE:
                return found
            first, second = start[same].astype(np.float64), end[same].astype(np.float64)
            gain = np.clip(second.std(axis=0) / np.maximum(first.std(axis=0), 1e-3), *_GAIN)
            offset = np.clip(second.mean(axis=0) - gain * first.mean(axis=0), -_OFFSET, _OFFSET)
            found = cls(gain, offset)
            # what differs still shows something else
            same = shared & (np.abs(start * gain + offset - end).mean(axis=-1) < _OTHER)
        return found

    def led_over(self, start: Field32, end: Field32, time_share: float) -> tuple[Field32, Field32]:
        """Return what the anchors show in the colours of a moment: `time_share` 0 those of the start, 1 of the end.

        Args:
            start, end: ``(..., 3)`` float32 levels.
            time_share: where the moment lies.
        """
        forward = start * self.gain + self.offset
        back = (end - self.offset) / self.gain
        first = start + (forward - start) * time_share
        second = end + (back - end) * (1 - time_share)
        return first.astype(np.float32), second.astype(np.float32)

    def tables(self, time_share: float) -> tuple[Tables, Tables]:
        """Return the same for pictures, as tables: for the start anchor, and for the end anchor."""
        levels = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
        first, second = self.led_over(levels, levels, time_share)
        made = tuple(np.clip(np.rint(table.T), 0, 255).astype(np.uint8) for table in (first, second))
        return made[0], made[1]
