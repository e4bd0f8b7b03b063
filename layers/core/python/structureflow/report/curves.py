"""Small plots of numbers per frame, drawn by the report's template as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from structureflow.models.results import SegmentResult

WIDTH: Final = 360
HEIGHT: Final = 56
INSET: Final = 3


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot over the frames of a segment; `lines` are the points of SVG's polylines, one per run of frames."""

    name: str
    note: str
    lines: tuple[str, ...]


def evidence_plots(result: SegmentResult) -> list[Plot]:
    """Plot how well the filled frames of a segment are known; nothing where nothing is known of that."""
    if not result.evidence:
        return []
    kept = [(known.frame, known.kept) for known in result.evidence]
    unlike = [(known.frame, known.unlike) for known in result.evidence]
    worst = max(value for _, value in unlike)
    mean = sum(value for _, value in kept) / len(kept)
    shown = f"share of pixels that an anchor shows, {100 * mean:.0f} % on average"
    differs = f"difference between structure frame and anchor along the path, at most {worst:.1f} levels"
    return [
        Plot("Shown", shown, _lines(kept, 1.0, result.frames)),
        Plot("Path error", differs, _lines(unlike, max(worst, 1.0), result.frames)),
    ]


def _lines(values: Sequence[tuple[int, float]], top: float, frames: int) -> tuple[str, ...]:
    """Return one line per run of neighbouring frames, from 0 to `top`, over all `frames` of the segment."""
    runs: list[list[tuple[int, float]]] = []
    for frame, value in values:
        if runs and runs[-1][-1][0] == frame - 1:
            runs[-1].append((frame, value))
        else:
            runs.append([(frame, value)])
    across, down = (WIDTH - 2 * INSET) / max(1, frames - 1), (HEIGHT - 2 * INSET) / top
    return tuple(
        " ".join(f"{INSET + frame * across:.1f},{HEIGHT - INSET - value * down:.1f}" for frame, value in run)
        for run in runs
    )
