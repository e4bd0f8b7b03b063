"""Small plots of numbers per frame, as SVG inside of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from structureflow.models.results import SegmentResult

_WIDTH, _HEIGHT = 360, 56
_INSET = 3


def evidence_plots(result: SegmentResult) -> str:
    """Plot how well the filled frames of a segment are known; empty where nothing is known of that."""
    if not result.evidence:
        return ""
    kept = [(known.frame, known.kept) for known in result.evidence]
    unlike = [(known.frame, known.unlike) for known in result.evidence]
    worst = max(value for _, value in unlike)
    mean = sum(value for _, value in kept) / len(kept)
    return (
        '<div class="curves">'
        + _plot(
            "Kept", f"share of pixels that an anchor shows, {100 * mean:.0f} % on average", kept, 1.0, result.frames
        )
        + _plot(
            "Path error",
            f"difference between structure frame and anchor along the path, at most {worst:.1f} levels",
            unlike,
            max(worst, 1.0),
            result.frames,
        )
        + "</div>"
    )


def _plot(name: str, note: str, values: Sequence[tuple[int, float]], top: float, frames: int) -> str:
    """Draw one line per run of neighbouring frames, from 0 to `top`, over all `frames` of the segment."""
    runs: list[list[tuple[int, float]]] = []
    for frame, value in values:
        if runs and runs[-1][-1][0] == frame - 1:
            runs[-1].append((frame, value))
        else:
            runs.append([(frame, value)])
    across, down = (_WIDTH - 2 * _INSET) / max(1, frames - 1), (_HEIGHT - 2 * _INSET) / top
    lines = "".join(
        '<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="'
        + " ".join(f"{_INSET + frame * across:.1f},{_HEIGHT - _INSET - value * down:.1f}" for frame, value in run)
        + '"/>'
        for run in runs
    )
    described = escape(f"{name}: {note}")
    return (
        f'<figure><figcaption>{escape(name)} <span class="soft">{escape(note)}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{described}">'
        f'<path d="M{_INSET} {_INSET}V{_HEIGHT - _INSET}H{_WIDTH - _INSET}" fill="none" stroke="currentColor" '
        f'opacity="0.3"/>{lines}</svg></figure>'
    )
