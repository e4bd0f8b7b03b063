"""``structureflow inspect`` of a result: how well each filled frame is known, as lines of small bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pydantic import ValidationError
from rich.table import Table

from structureflow.errors import InvalidRequestError
from structureflow.flow.archive import RangeReader
from structureflow.models.problems import problems_of
from structureflow.models.results import Manifest, SegmentResult
from structureflow_local.output import Output, cells, table

_BARS: Final = " ▁▂▃▄▅▆▇█"
#: Bars of a line; longer segments show the worst of several frames in each.
_MOST_BARS: Final = 64
#: Far above the manifest of the largest job that is accepted.
_MAX_BYTES: Final = 64 * 2**20


def inspect_results(reader: RangeReader, key: str, output: Output) -> tuple[SegmentResult, ...]:
    """Print for each frame of a ``result.json`` or a job's ``manifest.json`` what anchors show, and the path error.

    Raises:
        InvalidRequestError: it is neither.
        StorageError: it can't be read.
    """
    data = reader.get(key).data
    if len(data) > _MAX_BYTES:
        raise InvalidRequestError(f"{key}: expected a result of at most {_MAX_BYTES:,} bytes, got {len(data):,}")
    results = _results(key, data)
    for result in results:
        output.show(_lines(result))
    return results


def _results(key: str, data: bytes) -> tuple[SegmentResult, ...]:
    try:
        if key.rpartition("/")[2].startswith("manifest"):
            return Manifest.model_validate_json(data).segments
        return (SegmentResult.model_validate_json(data),)
    except ValidationError as error:
        raise InvalidRequestError(
            f"{key}: expected the result.json of a segment or the manifest.json of a job; {problems_of(error)[0]}"
        ) from error


def _lines(result: SegmentResult) -> Table:
    made = table(
        f"segment {result.index}: {result.frames} frames, paths {result.tracking}",
        "of the filled frames",
        f"frame 0 to {result.frames - 1}",
        "mean",
        "worst",
        numbers=("mean", "worst"),
    )
    if not result.evidence:
        made.add_row(*cells("nothing is known", "their paths were composed alone, or none is filled", "", ""))
        return made
    kept = {known.frame: known.kept for known in result.evidence}
    unlike = {known.frame: known.unlike for known in result.evidence}
    bars = _bars(kept, result.frames, 1.0, min)
    made.add_row(*cells("anchors show", bars, f"{_mean(kept):.0%}", f"{min(kept.values()):.0%}"))
    worst = max(unlike.values())
    bars = _bars(unlike, result.frames, max(worst, 1.0), max)
    made.add_row(*cells("path error, levels", bars, f"{_mean(unlike):.1f}", f"{worst:.1f}"))
    return made


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def _bars(values: Mapping[int, float], frames: int, top: float, worst: Callable[[Iterable[float]], float]) -> str:
    """Draw one bar per frame, or per group of frames; frames that are not filled are dots."""
    group = -(-frames // _MOST_BARS)
    line = ""
    for first in range(0, frames, group):
        known = [values[frame] for frame in range(first, first + group) if frame in values]
        line += _bar(worst(known) / top) if known else "·"
    return line


def _bar(share: float) -> str:
    return _BARS[max(1, min(len(_BARS) - 1, round(share * (len(_BARS) - 1))))]
