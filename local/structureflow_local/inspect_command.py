"""``structureflow inspect``: its arguments; the work is in `inspect`, whose modules take long to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from structureflow_local.output import Output
from structureflow_local.parsers import add_command


def add_commands(commands: Any) -> None:
    """Declare it."""
    parser = add_command(
        commands,
        "inspect",
        _run,
        summary="show what is inside a flow archive, or how well the frames of a result are known",
        examples=[
            "structureflow inspect out/structure_flows_demo.npz --png flows.png",
            "structureflow inspect out/manifest.json",
        ],
    )
    parser.add_argument(
        "reference",
        metavar="FILE_OR_URI",
        help="a flow archive, or a segment's result.json or a job's manifest.json: a file, s3://bucket/key, or an "
        "https:// URL",
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="write a contact sheet of flow pictures")
    parser.add_argument("--verify", action="store_true", help="read all flows and check every checksum")
    parser.add_argument("--endpoint-url", help="endpoint of an S3-compatible store (default: AWS)")


def _run(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.inspect import run

    return run(args, output)
