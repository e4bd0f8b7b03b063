"""``structureflow cost``: what a job will take on AWS, before it runs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from structureflow.errors import InputNotFoundError
from structureflow.limits import MAX_CONCURRENT_SEGMENTS, MAX_VIDEO_FRAMES, NEW_ACCOUNT_MEMORY_MB
from structureflow.models.cost import PRICES, Architecture
from structureflow_local.exits import DONE
from structureflow_local.output import Output, cells, table
from structureflow_local.parsers import add_command, whole

if TYPE_CHECKING:
    from structureflow.media.probe import VideoInfo
    from structureflow.models.job import JobRequest
    from structureflow_local.client import PreparedJob


def add_commands(commands: Any) -> None:
    """Declare it; memory and width default as the template's do."""
    parser = add_command(
        commands,
        "cost",
        _cost,
        summary="say what a job will take on AWS, before it runs",
        examples=["structureflow cost job.json", "structureflow cost job.json --architecture arm64 --json"],
        more="For the first job on its video and for the next one; nothing is sent. "
        "What the job names is looked at first, as by validate.",
    )
    parser.add_argument("job", type=Path, metavar="JOB.json", help="the request; paths in it may be local files")
    parser.add_argument(
        "--video",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a local copy of the structure video, where the request names none (again for each of several)",
    )
    parser.add_argument("--architecture", choices=get_args(Architecture), default="x86_64")
    for name in ("--orchestrator-memory", "--segment-memory"):
        text = "of the stack (default: %(default)s)"
        parser.add_argument(name, type=whole(128, 10_240), default=NEW_ACCOUNT_MEMORY_MB, metavar="MB", help=text)
    parser.add_argument(
        "--concurrency",
        type=whole(1, 10_000),
        default=MAX_CONCURRENT_SEGMENTS,
        metavar="N",
        help="segments at a time (default: %(default)s)",
    )


def _cost(args: argparse.Namespace, output: Output) -> int:
    from structureflow.jobs.forecast import Plan, batch_forecast, forecast
    from structureflow.models.cost import estimate_cost, fixed_monthly, transitions_of
    from structureflow.models.job import JobRequest
    from structureflow_local.jobfile import checked

    job = checked(args.job, output)
    request = JobRequest.parse_json(job.request, expected_task_id=job.task_id)
    videos = _videos(request, job, args.video)
    items: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    plan = Plan(
        orchestrator_mb=args.orchestrator_memory,
        segment_mb=args.segment_memory,
        concurrency=args.concurrency,
        architecture=cast(Architecture, args.architecture),
    )
    for name, cached in (("first", False), ("next", True)):
        found = forecast(request, videos, replace(plan, cached=cached))
        transitions = transitions_of(len(request.segments))
        items[name] = estimate_cost(found.usage, transitions=transitions, stored_bytes=found.stored_bytes)
        seconds[name] = round(found.wall_s, 1)
    monthly = fixed_monthly()
    batch = batch_forecast(request, videos, plan)
    output.give(
        task_id=job.task_id,
        prices={"region": PRICES.region, "as_of": PRICES.as_of},
        jobs={
            name: {"seconds": seconds[name], "usd": sum(one.values()), "items_usd": one} for name, one in items.items()
        },
        stack_usd_per_month=monthly,
        batch_job=None if batch is None else {"seconds": round(batch.seconds, 1), "usd": batch.usd},
    )
    output.say(
        f"{job.task_id}: about {sum(items['first'].values()):.4f} US dollars and {seconds['first']:.0f} s; "
        f"the next job on the same video {sum(items['next'].values()):.4f} and {seconds['next']:.0f} s",
        style="bold",
    )
    shown = table("Cost on AWS, before it runs", "item", "first job", "next one", numbers=("first job", "next one"))
    for item in items["first"]:
        shown.add_row(*cells(item, *(f"{one.get(item, 0.0):.6f}" for one in items.values())))
    output.show(shown)
    each = ", ".join(f"{item} {usd:.2f}" for item, usd in monthly.items())
    output.say(f"The stack itself: {sum(monthly.values()):.2f} US dollars a month ({each}).")
    output.remark(f"List prices of {PRICES.as_of} in {PRICES.region}, without free tiers; seconds on the safe side.")
    if request.engine == "raft":
        output.remark("Without the GPU instance, about 0.22 US dollars for a lone job (docs/gpu.md).")
    if batch is not None:
        output.remark(
            "No function alone can extract this video. Where its key frames allow no parts, a Batch job does "
            f"(EnableBatch, docs/batch.md): about {batch.usd:.2f} US dollars more and {batch.seconds:.0f} s on 4 vCPU."
        )
    return DONE


def _videos(request: JobRequest, job: PreparedJob, given: list[Path]) -> list[VideoInfo]:
    """Look into the structure videos; nothing is decoded.

    Raises:
        InputNotFoundError: one is not on this machine.
    """
    from structureflow import DecodeLimits, VideoReader

    named = [str(one) for one in _references(request)]
    paths = [job.uploads.get(name) for name in named]
    copies = iter(given)
    found = []
    for name, path in zip(named, paths, strict=True):
        local = path or next(copies, None)
        if local is None or not local.is_file():
            raise InputNotFoundError(
                f"{name}: expected a file on this machine, to count its frames; give a copy with --video FILE",
                reference=name,
            )
        with VideoReader(local, DecodeLimits(max_frames=MAX_VIDEO_FRAMES)) as reader:
            found.append(reader.info)
    return found


def _references(request: JobRequest) -> list[object]:
    if request.structure_videos:
        return list(dict.fromkeys(one.path for one in request.structure_videos))
    return [] if request.structure_video is None else [request.structure_video]
