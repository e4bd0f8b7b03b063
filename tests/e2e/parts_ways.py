"""Every way through the functions that extract in parts; `run` is that of `test_least_privilege`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.extraction_parts import PartsPlan, leave_plan, start_parts
from structureflow.jobs.inputs import Inputs
from structureflow.media.limits import DecodeLimits
from structureflow.media.part_plan import plan_parts
from structureflow.testing.videos import pan_frames, write_clip
from tests.e2e.privileges import BUCKET


def extract_in_parts(run: Any, folder: Path) -> None:
    """Extract long videos in parts: one as it should be, one that is damaged, one that turns out to have no parts."""
    storage = run.storage
    write_clip(folder / "long.mp4", pan_frames(240, 64, 96, dx=1, dy=0), gop=50)
    storage.put_file("library/long.mp4", folder / "long.mp4")
    plain = {"structure_video": "library/long.mp4", "quality": "fast", "timeline_id": "lengthy"}
    assert run.job("lengthy", **plain) == "done"
    assert {one.step for one in run.record("lengthy").usage} == {"Orchestrator", "ExtractPart", "JoinFlows"}

    damaged = bytearray((folder / "long.mp4").read_bytes())
    damaged[-3000:] = bytes(3000)
    storage.put("library/damaged.mp4", bytes(damaged))
    assert run.job("damaged", structure_video="library/damaged.mp4", quality="fast", timeline_id="damaged") == "failed"
    status = run.client.status("damaged")
    assert status is not None
    assert status.error is not None
    assert status.error.code == "CorruptMediaError"
    assert not list(storage.list("work/.parts/"))

    # A plan that lies: the second part's frames come at other times.
    run.reopen("lengthy")
    record = run.record("lengthy")
    assert record.flow_cache_key is not None
    storage.delete([record.flow_cache_key, keys.timeline_manifest("lengthy")])
    storage.delete([keys.run_record("lengthy", record.run_id), keys.run_claim("lengthy", record.run_id)])
    inputs = Inputs(storage, run.cloud.bucket(BUCKET), max_bytes=10**9)
    source = inputs.find(record.request.motion_source)
    video = plan_parts(source.opened(), DecodeLimits(), 150)
    first, second = video.parts
    video = dataclasses.replace(video, parts=(first, dataclasses.replace(second, pts=(*second.pts[:-1], 10**9))))
    order = ExtractionOrder(
        bucket=run.cloud.bucket(BUCKET),
        task_id="lengthy",
        run_id=record.run_id,
        request=record.request,
        source=source.pin(),
        guides=record.guides,
        timeline_id="lengthy",
        engine="dis",
        created_at=record.created_at,
    )
    plan = leave_plan(PartsPlan(order=order, video=video), storage)
    client = run.cloud.client("stepfunctions")

    def start(_: str, payload: Any) -> None:
        machine = run.cloud.physical_id("ExtractionStateMachine")
        client.start_execution(stateMachineArn=machine, input=json.dumps(payload))

    start_parts(plan, start, at_once=2)
    run.cloud.wait_idle(120)
    (step,) = load_record(storage, "lengthy").fallbacks
    assert (step.stage, step.wanted, step.used) == ("extract", "parts", "one function")
