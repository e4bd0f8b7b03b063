"""The report page: true, complete, escaped, self-contained, well-formed."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from structureflow.models.results import (
    Fallback,
    FrameEvidence,
    OutputObject,
)
from structureflow.report.html import PICTURES_BUDGET_BYTES, render_report
from structureflow.report.pictures import FramePictures, SegmentPictures
from structureflow.report.previews import PreviewCollector
from structureflow.report.script import script
from tests.unit.report_page import NASTY, TASK, Page, job, page_of, previews_of, segment


def test_the_page_says_what_was_done() -> None:
    page = page_of([segment(0), segment(1)], [previews_of(0)] * 2)
    text = page.text
    for fact in (
        TASK,
        "146 frames at 16 fps",
        "1280x720, 132 frames at 25 fps, 5.28 s, 1.06 MB",
        "832x480 at 16 fps",
        "preset medium",
        "Everything was done as asked",
        "Segment 0",
        "Segment 1",
        "43 flows, adjust",
        "timeline-9",
        "sha256:feed",
        "2026-03-01 12:00:05 UTC",
        "7.3 MB",
    ):
        assert fact in text, fact
    assert "guided by you 60 frames, 41 % filled by motion 86 frames, 59 % left to the generator 0 frames" in text


def test_the_page_is_self_contained_and_links_only_to_files_of_its_job() -> None:
    page = page_of([segment(0)], [previews_of(0)])
    sources = page.attributes("img", "src")
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    links = page.attributes("a", "href") + page.attributes("video", "src")
    assert all(link.startswith(("./", "#")) for link in links)
    assert set(page.attributes("video", "src")) == {"./segments/000/guide.mp4", "./segments/000/mask.mp4"}
    assert {f"./structure_flows_{TASK}.npz", "./manifest.json", "./request.json", "./segments/000/guide.mp4"} <= set(
        links
    )
    style = render_report(*job([segment(0)]), []).decode().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_an_output_outside_of_the_jobs_folder_is_named_but_not_linked() -> None:
    elsewhere = OutputObject(key="javascript:alert(1)//guide.mp4", size_bytes=5, etag="e")
    page = page_of([segment(0, outputs={"guide": elsewhere})], [])
    assert not [link for link in page.attributes("a", "href") if "javascript" in link]
    assert page.attributes("video", "src") == []
    assert "javascript:alert(1)//guide.mp4" in page.text


def test_everything_that_a_user_wrote_is_escaped() -> None:
    fallback = Fallback(stage=NASTY, wanted=NASTY, used=NASTY, reason=NASTY)
    manifest, record = job(
        [segment(0, fallbacks=[fallback], engine=NASTY, treatment=NASTY)],
        structure_video=NASTY,
        fallbacks=[fallback],
        engine_params={NASTY: NASTY},
        project_id=NASTY,
    )
    html = render_report(manifest, record, [b"<script>"], {NASTY: 1.0})
    assert html.count(b"<script") == 1, "the page's own"
    assert b"alert('x')" not in html
    page = Page(html)
    assert page.text.count("<script>alert('x')</script>\"&") >= 12
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def poisoned(value: Any) -> Any:
    """Replace every text in a model, however deep, whatever it may be by its type."""
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: poisoned(found) for name, found in dict(value).items()})
    if isinstance(value, dict):
        return {f"{key}{NASTY}": poisoned(found) for key, found in value.items()}
    if isinstance(value, tuple | list):
        return tuple(poisoned(found) for found in value)
    return f"{value}{NASTY}" if isinstance(value, str) else value


def test_no_text_of_any_field_becomes_markup() -> None:
    manifest, record = job([segment(0)], engine_params={"a": "b"}, project_id="p")
    html = render_report(
        poisoned(manifest).model_copy(update={"task_id": manifest.task_id}),
        poisoned(record).model_copy(update={"task_id": record.task_id}),
        [previews_of(0)],
    )
    assert html.count(b"<script") == 1, "the page's own"
    page = Page(html)
    assert page.text.count(NASTY) >= 20
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert not {tag for tag, _ in page.tags} & {"base", "form", "iframe", "object", "embed"}
    assert page.scripts == [script()]


def test_the_page_itself_forbids_scripts_but_its_own() -> None:
    page = page_of([segment(0)], [previews_of(0)])
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    (own,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    first = next(number for number, (tag, _) in enumerate(page.tags) if tag in {"style", "link", "img"})
    assert [tag for tag, _ in page.tags[:first]].count("meta") >= 2, "the policy comes before what it governs"


def test_fallbacks_are_said_at_the_top_and_at_their_segment() -> None:
    of_job = Fallback(stage="extract", wanted="raft", used="dis", reason="no GPU capacity")
    of_segment = Fallback(stage="flows", wanted="cache", used="video", reason="block 12: CRC-32 differs")
    page = page_of(
        [segment(0), segment(1, fallbacks=[of_segment], flow_source="video")],
        [],
        fallbacks=[of_job, of_segment.model_copy(update={"stage": "segment 1: flows"})],
        engine_requested="raft",
    )
    assert "done, not all as asked" in page.text
    assert "2 steps were not done as asked" in page.text
    assert "extract : wanted raft , used dis . Reason: no GPU capacity" in page.text
    assert page.text.count("block 12: CRC-32 differs") == 2
    assert "the structure video, extracted again" in page.text
    assert "asked for: raft" in page.text
    assert "Everything was done as asked" not in page.text


def test_the_timeline_bar_shows_each_run_in_proportion() -> None:
    result = segment(0, filled=[(20, 44)], left_unguided=[(45, 62)])
    page = page_of([result], [])
    (bar,) = [attrs for tag, attrs in page.tags if attrs.get("role") == "img" and tag == "div"]
    assert bar["aria-label"] == (
        "0–19 guided: your frames; 20–44 filled by motion; 45–62 left to the generator; 63–72 guided: your frames"
    )
    runs = [
        (attrs["class"], attrs["style"])
        for tag, attrs in page.tags
        if tag == "i" and "flex-grow" in attrs.get("style", "")
    ]
    assert runs == [
        ("guided", "flex-grow:20"),
        ("filled", "flex-grow:25"),
        ("left", "flex-grow:18"),
        ("guided", "flex-grow:10"),
    ]


def test_pictures_stand_in_columns_by_frame_number() -> None:
    result = segment(0, filled=[(20, 44)], left_unguided=[(45, 62)])
    page = page_of([result], [previews_of(0, 255)])
    heads = [
        attrs["class"] for tag, attrs in page.tags if tag == "th" and attrs.get("class") in {"guided", "filled", "left"}
    ]
    assert heads == ["guided"] * 2 + ["filled"] * 5 + ["left"] * 3 + ["guided"] * 2
    alts = page.attributes("img", "alt")
    frames = [0, 19, 20, 26, 32, 38, 44, 50, 56, 62, 63, 72]
    assert alts == [f"{row}, frame {frame}" for row in ("Structure", "Flow", "Guide") for frame in frames]
    masks = [attrs["class"] for tag, attrs in page.tags if tag == "td" and attrs.get("class") in {"black", "white"}]
    assert masks == ["white" if frame % 2 else "black" for frame in frames]
    assert "full colour is 7.5 % of the picture's width" in page.text


def test_rows_without_pictures_are_left_out() -> None:
    collector = PreviewCollector(73, [])
    collector.guide(0, np.zeros((48, 80, 3), np.uint8), 0)
    page = page_of([segment(0)], [collector.to_json()])
    assert page.attributes("img", "alt") == ["Guide, frame 0"]
    assert "Flow colours" not in page.text


def test_pictures_that_cannot_be_read_are_said() -> None:
    page = page_of([segment(0), segment(1)], [b"{broken", previews_of(0)])
    assert "The pictures of this segment can't be read" in page.text
    assert len(page.attributes("img", "src")) == 36


def test_a_segment_without_pictures_says_so() -> None:
    assert "No pictures were kept of this segment" in page_of([segment(0)], []).text


def test_a_page_of_very_many_segments_stays_bounded() -> None:
    big = "A" * 100_000
    many = SegmentPictures(
        frames=73,
        width_px=160,
        height_px=90,
        pictures=tuple(FramePictures(index=at, guide=big, mask=0) for at in range(12)),
    ).to_json()
    count = 40
    manifest, record = job([segment(at) for at in range(count)])
    html = render_report(manifest, record, [many] * count)
    page = Page(html)
    assert len(html) < PICTURES_BUDGET_BYTES + 1_000_000
    assert len(page.attributes("img", "src")) == count * 2
    assert page.attributes("img", "alt")[:2] == ["Guide, frame 0", "Guide, frame 11"]
    assert set(page.attributes("video", "preload")) == {"none"}


def test_steps_stand_before_their_parts_and_the_whole_job_last() -> None:
    page = page_of([segment(0)], [])
    table = page.text.split("Where the time went")[1].split("Settings of the request")[0]
    order = ["validate", "extract", "flow", "whole job", "Segment 0", "render", "flows", "encode"]
    places = [table.index(f" {name} ") for name in order]
    assert places == sorted(places)
    widths = {attrs["style"] for tag, attrs in page.tags if tag == "i" and attrs.get("style", "").startswith("width")}
    assert {"width:100.0%", "width:40.0%", "width:50.0%"} <= widths


def test_settings_and_the_whole_request_are_there() -> None:
    text = page_of([segment(0)], []).text
    assert "Motion strength 1.25" in text
    assert '"structure_video": "inputs/structure.mp4"' in text


def test_cost_is_summed_where_it_is_known() -> None:
    assert "What it costs" not in page_of([segment(0)], []).text
    text = page_of([segment(0)], [], cost={"Lambda": 0.0002, "S3": 1.25}).text
    assert "Lambda $0.000200" in text
    assert "Sum $1.25" in text


def test_every_label_that_is_referred_to_exists_once() -> None:
    page = page_of([segment(0), segment(1)], [previews_of(0)] * 2, scene_cuts=(40,))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
    referred += [link[1:] for link in page.attributes("a", "href") if link.startswith("#")]
    assert set(referred) <= set(ids)
    assert "between frames 40|41" in page.text


@pytest.mark.parametrize(("hit", "words"), [(True, "reused: an earlier job"), (False, "extracted by this job")])
def test_the_page_says_where_the_flow_came_from(hit: bool, words: str) -> None:
    assert words in page_of([segment(0)], [], flow_cache_hit=hit).text


def test_the_page_is_written_without_numpy_opencv_and_pillow() -> None:
    code = (
        "import sys\n"
        "for name in ('numpy', 'cv2', 'PIL', 'av'): sys.modules[name] = None\n"
        "import structureflow.report.html\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_evidence_is_plotted_per_frame_and_only_where_it_is_known() -> None:
    known = tuple(FrameEvidence(frame=frame, kept=1 - frame / 100, unlike=frame / 10) for frame in (20, 21, 22, 40, 41))
    page = Page(render_report(*job([segment(0, tracking="anchored", evidence=known)]), []))
    lines = page.attributes("polyline", "points")
    assert [len(line.split()) for line in lines] == [3, 2, 3, 2], "two runs of frames, two plots"
    assert "71 % on average" in page.text
    assert "at most 4.1 levels" in page.text
    assert "paths anchored" in page.text
    # more kept is higher up
    heights = [float(point.split(",")[1]) for point in lines[0].split()]
    assert heights == sorted(heights)
    assert not Page(render_report(*job([segment(0)]), [])).attributes("polyline", "points")


def test_where_segments_meet_both_pictures_are_shown() -> None:
    page = page_of([segment(0), segment(1), segment(2)], [previews_of(0)] * 3)
    assert "Where segments meet" in page.text
    assert "Segments 0 and 1" in page.text
    assert "Segments 1 and 2" in page.text
    shown = [alt for alt in page.attributes("img", "alt") if alt.startswith("Segment ")]
    assert shown == ["Segment 0, frame 72", "Segment 1, frame 0", "Segment 1, frame 72", "Segment 2, frame 0"]
    assert "Where segments meet" not in page_of([segment(0), segment(1)], [previews_of(0)]).text
