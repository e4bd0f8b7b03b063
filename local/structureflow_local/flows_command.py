"""``structureflow flows``: flow archives out to the files of other programs, and in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from structureflow.models.problems import counted
from structureflow_local.exits import DONE
from structureflow_local.output import Output
from structureflow_local.parsers import above_zero, add_command, whole

#: As in `structureflow.flow.exchange`; said again, since that takes long to import.
FORMATS = ("flo", "kitti", "npz")


def add_commands(commands: Any) -> None:
    """Declare it, and the commands below it."""
    flows = add_command(
        commands,
        "flows",
        None,
        summary="write flow archives as files of other programs, and read those",
        examples=["structureflow flows export out/structure_flows_demo.npz flows --format flo"],
    )
    below = flows.add_subparsers(dest="flows_command", required=True, metavar="COMMAND")
    export = add_command(
        below,
        "export",
        _export,
        summary="write an archive as .flo files, KITTI's PNG files, or a plain .npz",
        examples=[
            "structureflow flows export out/structure_flows_demo.npz flows --format flo",
            "structureflow flows export out/structure_flows_demo.npz plain.npz --format npz",
        ],
    )
    export.add_argument("archive", type=Path, metavar="ARCHIVE.npz", help="a flow archive")
    export.add_argument("target", type=Path, metavar="TARGET", help="an empty folder; of npz, a file")
    export.add_argument("--format", choices=FORMATS, default="flo", help="what to write (default: flo)")

    take = add_command(
        below,
        "import",
        _import,
        summary="make a flow archive of .flo files, KITTI's PNG files, or any .npz of flows",
        examples=["structureflow flows import flows imported.npz --fps 25 --size 1280 720"],
        more="A request takes the archive as flow_cache.",
    )
    take.add_argument("source", type=Path, metavar="SOURCE", help="a folder of flow files, or an .npz file")
    take.add_argument("archive", type=Path, metavar="ARCHIVE.npz", help="the archive to write")
    take.add_argument(
        "--fps", type=above_zero(1000), help="of the video, where the source does not say it (default: 16)"
    )
    take.add_argument(
        "--size",
        type=whole(1, 16_384),
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="of the video, where the source does not say it (default: that of the flows)",
    )


def _export(args: argparse.Namespace, output: Output) -> int:
    from structureflow import export_flows
    from structureflow.flow.archive import open_flow_file

    files = export_flows(open_flow_file(args.archive), args.target, args.format)
    output.give(files=files)
    output.say(f"{args.target}: {counted(len(files), 'file')}")
    return DONE


def _import(args: argparse.Namespace, output: Output) -> int:
    from structureflow import import_flows

    meta = import_flows(
        args.source, args.archive, fps=args.fps, size=None if args.size is None else tuple(args.size)
    ).meta
    output.give(
        archive=args.archive,
        total_flows=meta.total_flows,
        grid=[meta.width, meta.height],
        original_fps=meta.original_fps,
        original_resolution=[meta.original_width, meta.original_height],
        has_backward=meta.has_backward,
    )
    directions = "in both directions" if meta.has_backward else "forward"
    output.say(
        f"{args.archive}: {meta.total_flows} flows of {meta.width}x{meta.height} {directions}, of a video of "
        f"{meta.original_width}x{meta.original_height} at {meta.original_fps:g} fps"
    )
    return DONE
