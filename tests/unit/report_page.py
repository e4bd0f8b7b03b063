"""A finished job's records, and its report page read strictly."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np

from structureflow.models.job import JobRequest
from structureflow.models.results import (
    JobRecord,
    Manifest,
    OutputObject,
    SegmentResult,
    SourceInfo,
)
from structureflow.report.html import render_report
from structureflow.report.previews import PreviewCollector

VOID = {"meta", "link", "img", "br", "hr", "input", "source", "col"}
TASK = "walk-03"
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NASTY = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Parses a page strictly enough to notice an unclosed or stray tag, and keeps what it needs."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(html.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"stray </{tag}>"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]


def output(path: str, size_bytes: int = 1234) -> OutputObject:
    return OutputObject(key=f"jobs/{TASK}/{path}", size_bytes=size_bytes, etag="e")


def segment(index: int, **changes: Any) -> SegmentResult:
    fields: dict[str, Any] = {
        "task_id": TASK,
        "run_id": "run-1",
        "index": index,
        "frames": 73,
        "width_px": 832,
        "height_px": 480,
        "fps": 16,
        "treatment": "adjust",
        "anchors": "start",
        "motion_strength": 1,
        "flow_source": "cache",
        "engine": "dis",
        "flows_used": 43,
        "unguided": [(20, 62)],
        "filled": [(20, 62)],
        "left_unguided": [],
        "outputs": {
            "guide": output(f"segments/{index:03d}/guide.mp4", 1_500_000),
            "mask": output(f"segments/{index:03d}/mask.mp4"),
        },
        "timings_s": {"render.flows": 0.25, "render": 1.5, "encode": 2.5},
    }
    return SegmentResult(**{**fields, **changes})


def job(segments: list[SegmentResult], **changes: Any) -> tuple[Manifest, JobRecord]:
    request = JobRequest.parse(
        {
            "task_id": TASK,
            "structure_video": changes.pop("structure_video", "inputs/structure.mp4"),
            "images": ["a.png", "b.png"],
            "motion_strength": 1.25,
        }
    )
    shared: dict[str, Any] = {
        "task_id": TASK,
        "run_id": "run-1",
        "timeline_id": "timeline-9",
        "engine_requested": changes.pop("engine_requested", "dis"),
        "engine": "dis",
        "flow_cache_hit": changes.pop("flow_cache_hit", False),
        "flow_cache_key": "ab" * 16,
        "fallbacks": changes.pop("fallbacks", ()),
        "created_at": START,
    }
    record = JobRecord(
        **shared,
        request=request,
        source=SourceInfo(
            reference=str(request.structure_video),
            identity="sha256:feed",
            size_bytes=1_055_736,
            frames=132,
            fps=25,
            width_px=1280,
            height_px=720,
        ),
        resolution=(832, 480),
        engine_params=changes.pop("engine_params", {"preset": "medium"}),
        flows_key=f"jobs/{TASK}/structure_flows_{TASK}.npz",
        scene_cuts=changes.pop("scene_cuts", ()),
        timings_s={"validate": 0.1, "extract": 2.0},
    )
    manifest = Manifest(
        **shared,
        flows=output(f"structure_flows_{TASK}.npz", 7_300_000),
        segments=tuple(segments),
        timings_s={"validate": 0.1, "extract": 2.0, "extract.flow": 1.5, "job": 5.0},
        finished_at=START + timedelta(seconds=5),
        **changes,
    )
    return manifest, record


def previews_of(*masks: int) -> bytes:
    collector = PreviewCollector(73, [(20, 62)], flow_max_px=3)
    for index in range(73):
        collector.guide(index, np.full((48, 80, 3), index, np.uint8), masks[index % len(masks)])
        collector.structure(index, np.full((48, 80, 3), 200, np.uint8))
        collector.flow(index, np.ones((24, 40, 2), np.float16))
    return collector.to_json()


def page_of(segments: list[SegmentResult], previews: list[bytes], **changes: Any) -> Page:
    cost = changes.pop("cost", None)
    manifest, record = job(segments, **changes)
    return Page(render_report(manifest, record, previews, cost))
