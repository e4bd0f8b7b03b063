"""The report of a job: one HTML page that needs nothing but itself and, for its videos, the files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final
from urllib.parse import quote

from structureflow import keys
from structureflow.errors import JobStateError
from structureflow.models.results import Fallback, JobRecord, Manifest, OutputObject, SegmentResult
from structureflow.report.curves import evidence_plots
from structureflow.report.pictures import FramePictures, SegmentPictures
from structureflow.report.style import STYLE

#: All thumbnails of a page together; a job of hundreds of segments shows fewer of each.
PICTURES_BUDGET_BYTES: Final = 8_000_000

#: A page of more segments lists their steps without parts, and loads no video before it is played.
_DETAILED_SEGMENTS: Final = 12

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self' file: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_KINDS: Final = {
    "guided": "guided: your frames",
    "filled": "filled by motion",
    "left": "left to the generator",
}
_OUTPUT_NAMES: Final = {
    "guide": "Guide video",
    "mask": "Mask video",
    "flow_vis": "Flow, in colours",
    "visibility": "Visibility",
}
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

Html = str


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
    share = PICTURES_BUDGET_BYTES // max(1, len(manifest.segments))
    sections = [
        _header(manifest, record),
        _notices(manifest.fallbacks),
        _advice(manifest.notices),
        _facts(manifest, record),
        _segments_overview(manifest),
        *(
            _segment(manifest, result, previews[at] if at < len(previews) else None, share)
            for at, result in enumerate(manifest.segments)
        ),
        _timings(manifest),
        _cost(cost),
        _settings(record),
        _files(manifest, record),
        _footer(manifest),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(manifest.task_id)} · structureflow report</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(section for section in sections if section)}</body>\n</html>\n"
    )
    return page.encode()


# --- the job ------------------------------------------------------------------------------------------


def _header(manifest: Manifest, record: JobRecord) -> Html:
    frames = sum(result.frames for result in manifest.segments)
    filled = sum(_length(result.filled) for result in manifest.segments)
    left = sum(_length(result.left_unguided) for result in manifest.segments)
    total_s = manifest.timings_s.get("job", (manifest.finished_at - manifest.created_at).total_seconds())
    project = f'<p class="project">{_text(manifest.project_id)}</p>' if manifest.project_id else ""
    state = "done, not all as asked" if manifest.fallbacks else "done"
    tiles = [
        ("segments", f"{len(manifest.segments)}", f"{frames} frames at {_number(record.request.fps)} fps"),
        ("guided by you", f"{frames - filled - left}", f"frames, {_percent(frames - filled - left, frames)}"),
        ("filled by motion", f"{filled}", f"frames, {_percent(filled, frames)}"),
        ("left to the generator", f"{left}", f"frames, {_percent(left, frames)}"),
        ("from request to result", _seconds(total_s), _moment(manifest.finished_at)),
    ]
    cells = "".join(
        f'<div class="tile"><dt>{name}</dt><dd><b>{_text(value)}</b> <span>{_text(more)}</span></dd></div>'
        for name, value, more in tiles
    )
    return (
        f'<header>\n<p class="eyebrow">structureflow · job report</p>\n'
        f'<h1>{_text(manifest.task_id)} <span class="badge {"warn" if manifest.fallbacks else "good"}">{state}</span>'
        f'</h1>\n{project}<dl class="tiles">{cells}</dl>\n</header>\n<main>\n'
    )


def _notices(fallbacks: Sequence[Fallback]) -> Html:
    if not fallbacks:
        return '<p class="notice good"><b>Everything was done as asked.</b> No step fell back to another way.</p>\n'
    items = "".join(
        f"<li><b>{_text(fallback.stage)}</b>: wanted <b>{_text(fallback.wanted)}</b>, "
        f"used <b>{_text(fallback.used)}</b>. <span>Reason: {_text(fallback.reason)}</span></li>"
        for fallback in fallbacks
    )
    count = len(fallbacks)
    return (
        f'<section class="notice warn" aria-labelledby="fallbacks"><h2 id="fallbacks">'
        f"{count} {'step was' if count == 1 else 'steps were'} not done as asked</h2><ul>{items}</ul></section>\n"
    )


def _advice(notices: Sequence[str]) -> Html:
    return "".join(f'<p class="notice advice">Note: {_text(notice)}.</p>\n' for notice in notices)


def _facts(manifest: Manifest, record: JobRecord) -> Html:
    source = record.source
    duration = f", {_seconds(source.frames / source.fps)}" if source.fps > 0 else ""
    video = (
        f"{source.width_px}x{source.height_px}, {source.frames} frames at {_number(source.fps)} fps{duration}, "
        f"{_bytes(source.size_bytes)}"
    )
    engine = _text(manifest.engine)
    if manifest.engine_requested != manifest.engine:
        chosen = (
            "chosen for: auto" if manifest.engine_requested == "auto" else f"asked for: {manifest.engine_requested}"
        )
        engine += f' <span class="soft">{_text(chosen)}</span>'
    parameters = ", ".join(f"{name} {_value(value)}" for name, value in record.engine_params.items())
    if parameters:
        engine += f'<br><span class="soft">{_text(parameters)}</span>'
    if record.flow_cache is not None:
        cache = f"taken as given, verified: {_text(record.flow_cache.reference)}"
    elif manifest.flow_cache_hit:
        cache = "reused: an earlier job had extracted this video's flow with the same settings"
    else:
        cache = "extracted by this job and kept for the next one" if manifest.flow_cache_key else "extracted, not kept"
    cuts = ", ".join(f"{cut}|{cut + 1}" for cut in record.scene_cuts[:40])
    more_cuts = f" and {len(record.scene_cuts) - 40} more" if len(record.scene_cuts) > 40 else ""
    used = sorted({result.flow_source for result in manifest.segments})
    rows = [
        ("Structure video", f"<code>{_text(source.reference)}</code><br>{video}"),
        ("Output", f"{record.resolution[0]}x{record.resolution[1]} at {_number(record.request.fps)} fps"),
        ("Flow engine", engine),
        ("Flow cache", cache),
        ("Segments read flow from", ", ".join(_SOURCES.get(name, _text(name)) for name in used)),
        ("Scene cuts", f"between frames {cuts}{more_cuts}; no motion is carried across" if cuts else "none"),
        ("Timeline", f"<code>{_text(record.timeline_id)}</code>"),
    ]
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    return (
        f'<section aria-labelledby="facts"><h2 id="facts">What was done</h2><dl class="facts">{body}</dl></section>\n'
    )


def _segments_overview(manifest: Manifest) -> Html:
    if len(manifest.segments) < 2:
        return ""
    rows = "".join(
        f'<li><a href="#segment-{result.index}">Segment {result.index}</a>{_strip(result, ticks=False)}</li>'
        for result in manifest.segments
    )
    return (
        '<section aria-labelledby="overview"><h2 id="overview">Segments at a glance</h2>'
        f'{_legend()}<ol class="overview">{rows}</ol></section>\n'
    )


# --- segments -----------------------------------------------------------------------------------------


def _segment(manifest: Manifest, result: SegmentResult, preview: bytes | None, budget_bytes: int) -> Html:
    name = f"segment-{result.index}"
    seconds = result.frames / result.fps if result.fps > 0 else 0
    strength = f", strength {_value(result.motion_strength)}" if result.motion_strength != 1 else ""
    facts = (
        f"{result.frames} frames, {_seconds(seconds)} · flow from {_SOURCES.get(result.flow_source, '')} · "
        f"engine {_text(result.engine)} · {result.flows_used} flows, {_text(result.treatment)}{strength} · "
        f"anchors: {_text(result.anchors)} · paths {_text(result.tracking)}{_kept(result)}"
    )
    warnings = "".join(
        f'<p class="notice warn">{_text(fallback.stage)}: wanted <b>{_text(fallback.wanted)}</b>, '
        f"used <b>{_text(fallback.used)}</b>. Reason: {_text(fallback.reason)}</p>"
        for fallback in result.fallbacks
    )
    # what is said of the job as a whole stands above
    advice = _advice([notice for notice in result.notices if not any(notice in other for other in manifest.notices)])
    legend = "" if len(manifest.segments) > 1 else _legend()
    return (
        f'<section class="segment" aria-labelledby="{name}"><h2 id="{name}">Segment {result.index}</h2>'
        f'<p class="soft">{facts}</p>{warnings}{advice}{legend}{_strip(result, ticks=True)}'
        f"{evidence_plots(result)}{_pictures(result, preview, budget_bytes)}{_videos(manifest, result)}</section>\n"
    )


def _kept(result: SegmentResult) -> str:
    return "" if result.kept is None else f" · the mask ({result.mask}) keeps {_share(result.kept)} of all pixels"


def _legend() -> Html:
    items = "".join(f'<span><i class="{kind}"></i>{label}</span>' for kind, label in _KINDS.items())
    return f'<p class="legend">{items}</p>'


def _runs(result: SegmentResult) -> list[tuple[str, int, int]]:
    """Split a segment into (kind, first, last) runs, both inclusive, in order and without gaps."""
    kinds = ["guided"] * result.frames
    for kind, ranges in (("filled", result.filled), ("left", result.left_unguided)):
        for first, last in ranges:
            for index in range(max(0, first), min(last, result.frames - 1) + 1):
                kinds[index] = kind
    runs: list[tuple[str, int, int]] = []
    for index, kind in enumerate(kinds):
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], index)
        else:
            runs.append((kind, index, index))
    return runs


def _kind_of(result: SegmentResult, index: int) -> str:
    return next((kind for kind, first, last in _runs(result) if first <= index <= last), "guided")


def _strip(result: SegmentResult, *, ticks: bool) -> Html:
    runs = _runs(result)
    words = "; ".join(f"{_span(first, last)} {_KINDS[kind]}" for kind, first, last in runs)
    parts = []
    for kind, first, last in runs:
        size = last - first + 1
        label = f"<span>{_span(first, last)}</span>" if ticks and size * 12 >= result.frames else ""
        title = f"{_span(first, last)}: {_KINDS[kind]}"
        parts.append(f'<i class="{kind}" style="flex-grow:{size}" title="{title}">{label}</i>')
    return f'<div class="strip{" tall" if ticks else ""}" role="img" aria-label="{words}">{"".join(parts)}</div>'


def _pictures(result: SegmentResult, preview: bytes | None, budget_bytes: int) -> Html:
    if preview is None:
        return '<p class="soft">No pictures were kept of this segment.</p>'
    try:
        pictures = SegmentPictures.parse(preview)
    except JobStateError as error:
        return f'<p class="notice warn">The pictures of this segment can\'t be read: {_text(error.message)}</p>'
    shown = _within(pictures.pictures, budget_bytes)
    if not shown:
        return '<p class="soft">No pictures: this page holds too many segments to show them.</p>'
    heads = "".join(
        f'<th scope="col" class="{_kind_of(result, picture.index)}">'
        f'<span class="hidden">{_KINDS[_kind_of(result, picture.index)]}, frame </span>{picture.index}</th>'
        for picture in shown
    )
    size = (pictures.width_px, pictures.height_px)
    rows = [f'<tr><th scope="row">Frame</th>{heads}</tr>']
    for field, label, note in (
        ("structure", "Structure", "what moves"),
        ("flow", "Flow", "how it moves"),
        ("guide", "Guide", "what you get"),
    ):
        if any(getattr(picture, field) for picture in shown):
            cells = "".join(
                _picture(getattr(picture, field), size, f"{label}, frame {picture.index}") for picture in shown
            )
            rows.append(f'<tr><th scope="row">{label}<small>{note}</small></th>{cells}</tr>')
    if any(picture.mask is not None for picture in shown):
        cells = "".join(_mask(picture) for picture in shown)
        rows.append(f'<tr class="masks"><th scope="row">Mask<small>white is generated</small></th>{cells}</tr>')
    wheel = ""
    if pictures.flow_max_share is not None:
        wheel = (
            '<p class="soft colours"><i class="wheel" aria-hidden="true"></i><span>Flow colours: hue is the direction '
            "(right is red, down yellow, left cyan, up blue to violet), white is rest, full colour is "
            f"{100 * pictures.flow_max_share:.2g} % of the picture's width per frame, in every segment.</span></p>"
        )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Pictures of segment {result.index}">'
        f'<table class="pictures" style="min-width:{140 + 78 * len(shown)}px"><tbody>{"".join(rows)}</tbody></table>'
        f"</div>{wheel}"
    )


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


def _picture(data: str | None, size: tuple[int, int], alt: str) -> Html:
    if not data:
        return '<td class="none"><span class="hidden">none</span></td>'
    # The model admits base64 only, so the text can't leave the attribute.
    return (
        f'<td><img src="data:image/jpeg;base64,{data}" width="{size[0]}" height="{size[1]}" alt="{alt}" loading="lazy">'
        "</td>"
    )


def _mask(picture: FramePictures) -> Html:
    if picture.mask is None:
        return '<td class="none"><span class="hidden">none</span></td>'
    if picture.mask in (0, 255):
        return '<td class="white">generate</td>' if picture.mask else '<td class="black">keep</td>'
    return f'<td class="part">{100 - round(picture.mask / 2.55)} % kept</td>'


def _videos(manifest: Manifest, result: SegmentResult) -> Html:
    preload = "metadata" if len(manifest.segments) <= _DETAILED_SEGMENTS else "none"
    figures = []
    for name, output in result.outputs.items():
        label = _OUTPUT_NAMES.get(name, name)
        href = _relative(manifest.task_id, output.key)
        if href is None or not output.key.endswith(".mp4"):
            continue
        figures.append(
            f'<figure><video controls muted loop playsinline preload="{preload}" width="{result.width_px}" '
            f'height="{result.height_px}" src="{href}" aria-label="{_text(label)} of segment {result.index}"></video>'
            f'<figcaption><a href="{href}">{_text(label)}</a> <span class="soft">{_text(_tail(output.key))}, '
            f"{_bytes(output.size_bytes)}</span></figcaption></figure>"
        )
    return f'<div class="videos">{"".join(figures)}</div>' if figures else ""


# --- numbers ------------------------------------------------------------------------------------------


def _timings(manifest: Manifest) -> Html:
    groups: list[tuple[str, Mapping[str, float]]] = [("Job", manifest.timings_s)]
    brief = len(manifest.segments) > _DETAILED_SEGMENTS
    groups += [
        (f"Segment {result.index}", {k: v for k, v in result.timings_s.items() if not (brief and "." in k)})
        for result in manifest.segments
    ]
    groups = [(name, timings) for name, timings in groups if timings]
    if not groups:
        return ""
    longest = max((seconds for _, timings in groups for seconds in timings.values()), default=0) or 1
    bodies = []
    for name, timings in groups:
        rows = "".join(_timing(stage, seconds, longest) for stage, seconds in _ordered(timings))
        bodies.append(
            f'<tbody><tr class="group"><th scope="rowgroup" colspan="3">{_text(name)}</th></tr>{rows}</tbody>'
        )
    return (
        '<section aria-labelledby="timings"><h2 id="timings">Where the time went</h2>'
        '<p class="soft">Segments run side by side, each step of them one after the other. Lighter rows are parts of '
        "the step above them.</p>"
        '<table class="timings"><thead><tr><th scope="col">Stage</th><th scope="col">Time</th>'
        f'<th scope="col"><span class="hidden">Share</span></th></tr></thead>{"".join(bodies)}</table></section>\n'
    )


def _ordered(timings: Mapping[str, float]) -> list[tuple[str, float]]:
    """Put each step before its parts (``render`` before ``render.flows``), and the whole job last."""
    order = {name: at for at, name in enumerate(dict.fromkeys(stage.split(".")[0] for stage in timings))}
    order.pop("job", None)

    def place(item: tuple[str, float]) -> tuple[int, bool]:
        step = item[0].split(".")[0]
        return order.get(step, len(order) + 1), "." in item[0]

    return sorted(timings.items(), key=place)


def _timing(stage: str, seconds: float, longest: float) -> Html:
    part = "." in stage
    name = stage.split(".", 1)[1] if part else {"job": "whole job"}.get(stage, stage)
    return (
        f'<tr{" class=part" if part else ""}><th scope="row">{_text(name.replace("_", " "))}</th>'
        f'<td class="number">{_seconds(seconds)}</td>'
        f'<td class="bar"><i style="width:{max(0.0, 100 * seconds / longest):.1f}%"></i></td></tr>'
    )


def _cost(cost: Mapping[str, float] | None) -> Html:
    if not cost:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_text(item)}</th><td class="number">{_dollars(usd)}</td></tr>'
        for item, usd in cost.items()
    )
    return (
        '<section aria-labelledby="cost"><h2 id="cost">What it costs, estimated</h2><table class="plain">'
        f'<tbody>{rows}</tbody><tfoot><tr><th scope="row">Sum</th><td class="number">{_dollars(sum(cost.values()))}'
        "</td></tr></tfoot></table></section>\n"
    )


def _settings(record: JobRecord) -> Html:
    document = record.request.to_document()
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td>{_text(_value(document[name]))}</td></tr>'
        for name, label in _SETTINGS
        if document.get(name) not in (None, [], "")
    )
    whole = json.dumps(document, indent=2, ensure_ascii=False)
    return (
        '<section aria-labelledby="settings"><h2 id="settings">Settings of the request</h2>'
        f'<table class="plain"><tbody>{rows}</tbody></table>'
        f"<details><summary>The whole request, as it was understood</summary><pre>{_text(whole)}</pre></details>"
        "</section>\n"
    )


def _files(manifest: Manifest, record: JobRecord) -> Html:
    task_id = manifest.task_id
    rows = []
    if manifest.flows:
        rows.append(_file(task_id, "Optical flow, all frames (numpy archive)", manifest.flows))
    for result in manifest.segments:
        rows += [
            _file(task_id, f"Segment {result.index}: {_OUTPUT_NAMES.get(name, name).lower()}", output)
            for name, output in result.outputs.items()
        ]
    documents = ", ".join(
        f'<a href="{_relative(task_id, key)}">{_text(_tail(key))}</a>'
        for key in (
            keys.job_request(task_id),
            keys.job_record(task_id),
            keys.job_manifest(task_id),
            keys.job_status(task_id),
        )
    )
    return (
        '<section aria-labelledby="files"><h2 id="files">Files</h2><div class="scroll"><table class="plain">'
        '<thead><tr><th scope="col">What</th><th scope="col">File</th><th scope="col">Size</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><p>Documents of the job: {documents}</p>"
        f'<p class="soft">Run <code>{_text(record.run_id)}</code>, structure video identity '
        f"<code>{_text(record.source.identity)}</code>"
        + (f", flow cache key <code>{_text(manifest.flow_cache_key)}</code>" if manifest.flow_cache_key else "")
        + "</p></section>\n"
    )


def _file(task_id: str, what: str, output: OutputObject) -> Html:
    href = _relative(task_id, output.key)
    name = _text(_below_job(task_id, output.key))
    link = f'<a href="{href}">{name}</a>' if href else f"<code>{name}</code>"
    return f'<tr><td>{_text(what)}</td><td>{link}</td><td class="number">{_bytes(output.size_bytes)}</td></tr>'


def _footer(manifest: Manifest) -> Html:
    return (
        f"</main>\n<footer><p>Made by structureflow. Job received {_moment(manifest.created_at)}, "
        f"finished {_moment(manifest.finished_at)}.</p></footer>\n"
    )


# --- words and links ----------------------------------------------------------------------------------


def _text(value: object) -> Html:
    """Escape anything for text and for quoted attributes."""
    return escape(str(value), quote=True)


def _below_job(task_id: str, key: str) -> str:
    return key.removeprefix(keys.job_prefix(task_id))


def _relative(task_id: str, key: str) -> str | None:
    """Return the link from the report to a file of its job, or None for a file elsewhere."""
    if not key.startswith(keys.job_prefix(task_id)):
        return None
    # "./" keeps a colon in the first part from reading as a scheme.
    return _text("./" + quote(_below_job(task_id, key)))


def _tail(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _length(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def _share(share: float) -> str:
    """Say a share so that only all is 100 % and only nothing 0 %."""
    percent = f"{100 * share:.1f}"
    if percent in ("0.0", "100.0") and share not in (0, 1):
        return "less than 0.1 %" if share < 0.5 else "more than 99.9 %"
    return f"{percent} %"


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _seconds(seconds: float) -> str:
    if seconds >= 90:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def _dollars(usd: float) -> str:
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.6f}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_value(item)} at frame {name}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    return _number(value) if isinstance(value, float) else str(value)
