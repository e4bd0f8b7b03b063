"""The report of a job: one HTML page that needs nothing but itself and, for its videos, the files beside it.

The words and tags stand in ``report.html.j2``, where everything is escaped that is not said to be markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from structureflow import keys
from structureflow.models.results import JobRecord, Manifest
from structureflow.report.curves import HEIGHT, INSET, WIDTH
from structureflow.report.links import OUTPUT_NAMES, below_job, relative
from structureflow.report.pages import page_environment
from structureflow.report.script import script, script_source
from structureflow.report.seams import seams_between
from structureflow.report.segments import KINDS, segment_view
from structureflow.report.style import STYLE
from structureflow.report.words import FILTERS, moment, number, percent, seconds

if TYPE_CHECKING:
    from jinja2 import Template

#: All thumbnails of a page together; a job of hundreds of segments shows fewer of each.
PICTURES_BUDGET_BYTES: Final = 8_000_000

#: A page of more segments lists their steps without parts, and loads no video before it is played.
_DETAILED_SEGMENTS: Final = 12
_LISTED_CUTS: Final = 40

#: Of scripts, the page's own alone runs, known by its hash.
_POLICY: Final = (
    "default-src 'none'; script-src {script}; style-src 'unsafe-inline'; img-src data:; "
    "media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
)
_SOURCES: Final = {
    "cache": "the job's flow archive",
    "frames": "the cached frames, extracted again",
    "video": "the structure video, extracted again",
}
_SETTINGS: Final = (
    ("treatment", "Treatment"),
    ("motion_strength", "Motion strength"),
    ("anchors", "Anchors"),
    ("seams", "Seams"),
    ("match_color", "Match colours"),
    ("target", "Target"),
    ("mask", "Mask"),
    ("holes", "Holes"),
    ("mask_grid", "Mask grid"),
    ("tracking", "Tracking"),
    ("flow_span", "Flow span"),
    ("quality", "Quality"),
    ("engine", "Engine"),
    ("resolution", "Resolution"),
    ("fps", "Frames per second"),
    ("outputs", "Further outputs"),
    ("overlays", "Overlays"),
)


def render_report(
    manifest: Manifest,
    record: JobRecord,
    previews: Sequence[bytes],
    cost: Mapping[str, float] | None = None,
) -> bytes:
    """Write the report of a finished job.

    Args:
        manifest: the job's outputs; its `report` may still be missing.
        record: what the orchestrator resolved.
        previews: for each segment, in order, the JSON of `SegmentPictures`; a segment whose pictures can't be
            read says so on the page.
        cost: estimated US dollars by item, if known.

    Returns:
        UTF-8 HTML, self-contained; links and videos are relative to the job's folder.
    """
    budget_bytes = PICTURES_BUDGET_BYTES // max(1, len(manifest.segments))
    segments = [
        segment_view(manifest, result, previews[at] if at < len(previews) else None, budget_bytes)
        for at, result in enumerate(manifest.segments)
    ]
    detailed = len(manifest.segments) <= _DETAILED_SEGMENTS
    page = _template().render(
        manifest=manifest,
        record=record,
        segments=segments,
        seams=seams_between(segments),
        detailed=detailed,
        tiles=_tiles(manifest, record),
        sources=_SOURCES,
        sources_used=sorted({result.flow_source for result in manifest.segments}),
        cuts=record.scene_cuts[:_LISTED_CUTS],
        more_cuts=max(0, len(record.scene_cuts) - _LISTED_CUTS),
        timings=_timings(manifest, detailed=detailed),
        cost=cost,
        settings=_settings(record),
        whole_request=json.dumps(record.request.to_document(), indent=2, ensure_ascii=False),
        files=_files(manifest),
        documents=_documents(manifest.task_id),
    )
    return page.encode()


@cache
def _template() -> Template:
    from markupsafe import Markup

    environment = page_environment(Path(__file__).parent)
    environment.keep_trailing_newline = True
    environment.filters.update(FILTERS)
    plot = {"width": WIDTH, "height": HEIGHT, "inset": INSET}
    environment.globals.update(
        kinds=KINDS,
        policy=_POLICY.format(script=script_source()),
        plot=plot,
        style=Markup(STYLE),  # noqa: S704  our own text
        script=Markup(script()),  # noqa: S704  our own text
    )
    return environment.get_template("report.html.j2")


def _tiles(manifest: Manifest, record: JobRecord) -> list[tuple[str, str, str]]:
    """Return name, number and remark of what stands at the top."""
    frames = sum(result.frames for result in manifest.segments)
    filled = sum(last - first + 1 for result in manifest.segments for first, last in result.filled)
    left = sum(last - first + 1 for result in manifest.segments for first, last in result.left_unguided)
    guided = frames - filled - left
    total_s = manifest.timings_s.get("job", (manifest.finished_at - manifest.created_at).total_seconds())
    return [
        ("segments", f"{len(manifest.segments)}", f"{frames} frames at {number(record.request.fps)} fps"),
        ("guided by you", f"{guided}", f"frames, {percent(guided, frames)}"),
        ("filled by motion", f"{filled}", f"frames, {percent(filled, frames)}"),
        ("left to the generator", f"{left}", f"frames, {percent(left, frames)}"),
        ("from request to result", seconds(total_s), moment(manifest.finished_at)),
    ]


def _timings(manifest: Manifest, *, detailed: bool) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the steps of the job and of each segment, each with its share of the longest of all."""
    groups: list[tuple[str, Mapping[str, float]]] = [("Job", manifest.timings_s)]
    groups += [
        (f"Segment {result.index}", {k: v for k, v in result.timings_s.items() if detailed or "." not in k})
        for result in manifest.segments
    ]
    longest = max((spent for _, timings in groups for spent in timings.values()), default=0) or 1
    return [
        (
            name,
            [
                {
                    "name": {"job": "whole job"}.get(stage, stage.split(".", 1)[-1]).replace("_", " "),
                    "part": "." in stage,
                    "seconds": spent,
                    "percent": f"{max(0.0, 100 * spent / longest):.1f}",
                }
                for stage, spent in _ordered(timings)
            ],
        )
        for name, timings in groups
        if timings
    ]


def _ordered(timings: Mapping[str, float]) -> list[tuple[str, float]]:
    """Put each step before its parts (``render`` before ``render.flows``), and the whole job last."""
    order = {name: at for at, name in enumerate(dict.fromkeys(stage.split(".")[0] for stage in timings))}
    order.pop("job", None)

    def place(item: tuple[str, float]) -> tuple[int, bool]:
        step = item[0].split(".")[0]
        return order.get(step, len(order) + 1), "." in item[0]

    return sorted(timings.items(), key=place)


def _settings(record: JobRecord) -> list[tuple[str, Any]]:
    document = record.request.to_document()
    return [(label, document[name]) for name, label in _SETTINGS if document.get(name) not in (None, [], "")]


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    found = [("Optical flow, all frames (numpy archive)", manifest.flows)] if manifest.flows else []
    for result in manifest.segments:
        found += [
            (f"Segment {result.index}: {OUTPUT_NAMES.get(name, name).lower()}", output)
            for name, output in result.outputs.items()
        ]
    return [
        {
            "what": what,
            "href": relative(manifest.task_id, output.key),
            "name": below_job(manifest.task_id, output.key),
            "size_bytes": output.size_bytes,
        }
        for what, output in found
    ]


def _documents(task_id: str) -> list[tuple[str, str | None]]:
    found = (keys.job_request(task_id), keys.job_record(task_id), keys.job_manifest(task_id), keys.job_status(task_id))
    return [(key.rsplit("/", 1)[-1], relative(task_id, key)) for key in found]
