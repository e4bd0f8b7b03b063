"""What the report shows of one segment: which frames are whose, pictures, videos, plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from structureflow.errors import JobStateError
from structureflow.models.results import Manifest, OutputObject, SegmentResult
from structureflow.report.curves import Plot, evidence_plots
from structureflow.report.links import OUTPUT_NAMES, relative
from structureflow.report.pictures import FramePictures, SegmentPictures
from structureflow.report.words import span

#: Of a frame, by its kind.
KINDS: Final = {
    "guided": "guided: your frames",
    "filled": "filled by motion",
    "left": "left to the generator",
}
_ROWS: Final = (
    ("structure", "Structure", "what moves"),
    ("flow", "Flow", "how it moves"),
    ("guide", "Guide", "what you get"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring frames of one kind, `first` to `last`, both inclusive."""

    kind: str
    first: int
    last: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.last - self.first + 1

    @property
    def span(self) -> str:
        """Its frames, in words."""
        return span(self.first, self.last)

    @property
    def title(self) -> str:
        """Its frames and whose they are, in words."""
        return f"{self.span}: {KINDS[self.kind]}"


@dataclass(frozen=True, slots=True)
class PictureRow:
    """Pictures of one sort: base64 JPEG per frame, None where there is none."""

    label: str
    note: str
    pictures: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class PictureTable:
    """The pictures of a segment, one column per frame.

    Attributes:
        columns: frame number and kind of each.
        masks: mean of each frame's mask, 0 to 255; empty where no frame has one.
        flow_max_percent: full colour of the flow, in per cent of the picture's width.
    """

    width_px: int
    height_px: int
    columns: tuple[tuple[int, str], ...]
    rows: tuple[PictureRow, ...]
    masks: tuple[int | None, ...]
    flow_max_percent: float | None


@dataclass(frozen=True, slots=True)
class Video:
    """A video beside the page."""

    label: str
    href: str
    name: str
    output: OutputObject


@dataclass(frozen=True, slots=True)
class SegmentView:
    """All that is shown of a segment; `pictures` is a sentence where there are none, `broken` where one is amiss."""

    result: SegmentResult
    runs: tuple[Run, ...]
    notices: tuple[str, ...]
    plots: tuple[Plot, ...]
    pictures: PictureTable | None
    no_pictures: str
    broken_pictures: str
    videos: tuple[Video, ...]


def segment_view(manifest: Manifest, result: SegmentResult, preview: bytes | None, budget_bytes: int) -> SegmentView:
    """Gather what the page shows of a segment; its pictures have at most `budget_bytes` of base64."""
    runs = tuple(_runs(result))
    table, missing, broken = _pictures(runs, preview, budget_bytes)
    return SegmentView(
        result=result,
        runs=runs,
        # what is said of the job as a whole stands above
        notices=tuple(note for note in result.notices if not any(note in other for other in manifest.notices)),
        plots=tuple(evidence_plots(result)),
        pictures=table,
        no_pictures=missing,
        broken_pictures=broken,
        videos=tuple(_videos(manifest, result)),
    )


def _runs(result: SegmentResult) -> list[Run]:
    """Split a segment into runs, in order and without gaps."""
    kinds = ["guided"] * result.frames
    for kind, ranges in (("filled", result.filled), ("left", result.left_unguided)):
        for first, last in ranges:
            for index in range(max(0, first), min(last, result.frames - 1) + 1):
                kinds[index] = kind
    runs: list[Run] = []
    for index, kind in enumerate(kinds):
        if runs and runs[-1].kind == kind:
            runs[-1] = Run(kind, runs[-1].first, index)
        else:
            runs.append(Run(kind, index, index))
    return runs


def _pictures(runs: Sequence[Run], preview: bytes | None, budget_bytes: int) -> tuple[PictureTable | None, str, str]:
    """Return the table, or a sentence why there is none, or what is wrong with it."""
    if preview is None:
        return None, "No pictures were kept of this segment.", ""
    try:
        pictures = SegmentPictures.parse(preview)
    except JobStateError as error:
        return None, "", f"The pictures of this segment can't be read: {error.message}"
    shown = _within(pictures.pictures, budget_bytes)
    if not shown:
        return None, "No pictures: this page holds too many segments to show them.", ""
    rows = []
    for field, label, note in _ROWS:
        found: tuple[str | None, ...] = tuple(getattr(picture, field) for picture in shown)
        if any(found):
            rows.append(PictureRow(label, note, found))
    masks = tuple(picture.mask for picture in shown)
    largest = pictures.flow_max_share
    table = PictureTable(
        width_px=pictures.width_px,
        height_px=pictures.height_px,
        columns=tuple((picture.index, _kind_of(runs, picture.index)) for picture in shown),
        rows=tuple(rows),
        masks=masks if any(mask is not None for mask in masks) else (),
        flow_max_percent=None if largest is None else 100 * largest,
    )
    return table, "", ""


def _kind_of(runs: Sequence[Run], index: int) -> str:
    return next((run.kind for run in runs if run.first <= index <= run.last), "guided")


def _within(pictures: Sequence[FramePictures], budget_bytes: int) -> Sequence[FramePictures]:
    """Thin pictures evenly until they fit the budget."""
    sizes = [sum(len(part or "") for part in (p.guide, p.structure, p.flow)) for p in pictures]
    keep = len(pictures)
    while keep:
        chosen = [round(at * (len(pictures) - 1) / max(1, keep - 1)) for at in range(keep)]
        if sum(sizes[at] for at in chosen) <= budget_bytes:
            return [pictures[at] for at in chosen]
        keep -= 1
    return []


def _videos(manifest: Manifest, result: SegmentResult) -> list[Video]:
    found = []
    for name, output in result.outputs.items():
        href = relative(manifest.task_id, output.key)
        if href is not None and output.key.endswith(".mp4"):
            label = OUTPUT_NAMES.get(name, name)
            found.append(Video(label, href, output.key.rsplit("/", 1)[-1], output))
    return found
