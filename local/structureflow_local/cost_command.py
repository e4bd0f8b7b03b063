"""``structureflow cost``: what a job will take on AWS, before it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from rich.console import Console
from rich.table import Table

from structureflow.errors import InputNotFoundError
from structureflow.limits import MAX_CONCURRENT_SEGMENTS, MAX_VIDEO_FRAMES, NEW_ACCOUNT_MEMORY_MB
from structureflow.models.cost import PRICES, Architecture

if TYPE_CHECKING:
    from structureflow.media.probe import VideoInfo
    from structureflow.models.job import JobRequest
    from structureflow_local.client import PreparedJob


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; memory and width default as the template's do."""
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
        parser.add_argument(name, type=int, default=NEW_ACCOUNT_MEMORY_MB, metavar="MB", help=text)
    parser.add_argument(
        "--concurrency",
        type=int,
        default=MAX_CONCURRENT_SEGMENTS,
        metavar="N",
        help="segments at a time (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, job: PreparedJob, console: Console) -> int:
    """Print the estimate: of the first job on its video, of the next one, and what a stack costs by itself."""
    from structureflow.jobs.forecast import Plan, forecast
    from structureflow.models.cost import estimate_cost, fixed_monthly, transitions_of
    from structureflow.models.job import JobRequest

    request = JobRequest.parse_json(job.request, expected_task_id=job.task_id)
    videos = _videos(request, job, args.video)
    table: dict[str, dict[str, float]] = {}
    facts: dict[str, float] = {}
    for name, cached in (("first job on the video", False), ("the next one", True)):
        found = forecast(
            request,
            videos,
            Plan(
                orchestrator_mb=args.orchestrator_memory,
                segment_mb=args.segment_memory,
                concurrency=args.concurrency,
                architecture=cast(Architecture, args.architecture),
                cached=cached,
            ),
        )
        table[name] = estimate_cost(
            found.usage, transitions=transitions_of(len(request.segments)), stored_bytes=found.stored_bytes
        )
        facts[name] = round(found.wall_s, 1)
    monthly = fixed_monthly()
    if args.json:
        document = {
            "task_id": job.task_id,
            "prices": {"region": PRICES.region, "as_of": PRICES.as_of},
            "jobs": {
                name: {"seconds": facts[name], "usd": round(sum(items.values()), 6), "items_usd": items}
                for name, items in table.items()
            },
            "stack_usd_per_month": monthly,
        }
        print(json.dumps(document, indent=2))
        return 0
    console.print(_table(table, facts))
    console.print(
        f"The stack itself: {sum(monthly.values()):.2f} US dollars a month "
        f"({', '.join(f'{item} {usd:.2f}' for item, usd in monthly.items())}).",
        soft_wrap=True,
        highlight=False,
    )
    if request.engine == "raft":
        console.print("Without the GPU instance, about 0.22 US dollars for a lone job (docs/gpu.md).", soft_wrap=True)
    return 0


def _videos(request: JobRequest, job: PreparedJob, given: list[Path]) -> list[VideoInfo]:
    """Look into the structure videos; nothing is decoded.

    Raises:
        InputNotFoundError: one is not on this machine.
    """
    from structureflow.media.decode import DecodeLimits, VideoReader

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


def _table(jobs: dict[str, dict[str, float]], seconds: dict[str, float]) -> Table:
    said = f"list prices of {PRICES.as_of} in {PRICES.region}, without free tiers; seconds on the safe side"
    table = Table(title="Cost on AWS, before it runs", caption=said, title_justify="left", show_footer=True)
    table.add_column("item", footer="sum")
    for name, items in jobs.items():
        table.add_column(name, justify="right", footer=f"{sum(items.values()):.6f}")
    for item in dict.fromkeys(item for items in jobs.values() for item in items):
        table.add_row(item, *(f"{items.get(item, 0.0):.6f}" for items in jobs.values()))
    table.add_row("seconds until it is done", *(f"{seconds[name]:.1f}" for name in jobs))
    return table
