"""``structureflow init``: a commented job file from a video and images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from structureflow.models.problems import counted
from structureflow_local.exits import DONE
from structureflow_local.output import Output
from structureflow_local.parsers import add_command

#: As in requests; said again, since their model takes long to import.
TARGETS = ("vace", "wan5b", "ltx", "cogvideox", "hunyuan", "ttm")


def add_commands(commands: Any) -> None:
    """Declare it."""
    parser = add_command(
        commands,
        "init",
        _init,
        summary="write a commented job file from a video and images",
        examples=["structureflow init clip.mp4 a.png b.png c.png --out walk.jsonc"],
        more="N images make N-1 segments, each from one image to the next. Beside it goes job.schema.json, by which "
        "editors complete and check it.",
    )
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the structure video")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="two or more")
    parser.add_argument("--out", type=Path, default=Path("job.jsonc"), metavar="FILE", help="default: job.jsonc")
    parser.add_argument("--target", choices=TARGETS, default="vace", help="the generator (default: vace)")
    parser.add_argument("--force", action="store_true", help="overwrite the file")


def _init(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.starter import write_job_file

    facts = write_job_file(args.video, args.images, args.out, target=args.target, overwrite=args.force)
    output.give(job=args.out, **facts)
    output.say(f"{args.out}: {counted(facts['segments'], 'segment')}, {facts['video']}", style="bold green")
    output.say(f"next: structureflow validate {args.out}, then structureflow run {args.out} --out {args.out.stem}")
    return DONE
