"""``structureflow frames …``: look at, fill, mend and clear the frame caches of timelines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from structureflow_local.output import Output
from structureflow_local.parsers import above_zero, add_command, add_place, storage_of, whole

#: As in `structureflow.frames`; said again, since its modules take long to import.
STAGES: Final = ("flow", "visibility", "guidance", "warp", "path")
MAX_SIDE_PX: Final = 65_500


def add_commands(commands: Any) -> None:
    """Declare ``frames`` and the commands below it."""
    frames = add_command(
        commands,
        "frames",
        None,
        summary="look at, fill, mend and clear the frame caches of timelines",
        examples=["structureflow frames list --bucket BUCKET"],
    )
    add_place(frames)
    add_arguments(frames)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below ``frames``."""
    below = parser.add_subparsers(dest="frames_command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str, *, needs_timeline: bool = True) -> argparse.ArgumentParser:
        line = f"structureflow frames {name} {example}".rstrip()
        made = add_command(below, name, _run, summary=summary, examples=[f"{line} --folder store"])
        if needs_timeline:
            made.add_argument("timeline_id", metavar="TIMELINE")
        add_place(made, default=argparse.SUPPRESS)
        return made

    cache = command("cache", "decode local videos in order into a timeline's frame cache", "walk clip.mp4")
    cache.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    cache.add_argument("--quality", type=whole(1, 100), default=85, help="of the JPEGs, 1 to 100 (default: 85)")
    cache.add_argument("--keep-chunks", action="store_true", help="store the videos too, so that it can be rebuilt")

    show = command("list", "list all timelines, or the frames of one", "--check", needs_timeline=False)
    show.add_argument("timeline_id", nargs="?", metavar="TIMELINE")
    show.add_argument("--check", action="store_true", help="compare each timeline's objects with its manifest")

    get = command("get", "write cached frames to a folder as JPEGs", "walk --frames 0-9,20 --out pictures")
    get.add_argument("--out", type=Path, required=True, metavar="DIR")
    get.add_argument("--frames", metavar="LIST", help="as in 0-9,20: inclusive ranges (default: all)")
    get.add_argument("--width", type=whole(1, MAX_SIDE_PX), metavar="PIXELS", help="scale wider frames down to this")

    clear = command("clear", "remove a timeline's frames and manifest", "walk")
    clear.add_argument("--overlays", action="store_true", help="its overlays too")

    rebuild = command("rebuild", "write the frames anew from the timeline's stored chunks", "kept")
    rebuild.add_argument("--quality", type=whole(1, 100), default=85, help="of the JPEGs, 1 to 100 (default: 85)")

    adopt = command("adopt", "make a cache of frames that an older program left without manifest", "old --fps 25")
    adopt.add_argument("--fps", type=above_zero(1000), required=True, help="their rate; their times were not kept")

    overlays = command(
        "overlays", "list the overlays of a timeline, or write them to a folder", "walk --job walk-1 --stage flow"
    )
    overlays.add_argument("--job", help="only those of this job")
    overlays.add_argument("--stage", choices=STAGES, help="only those of this stage (needs --job)")
    overlays.add_argument("--out", type=Path, metavar="DIR", help="write them as DIR/JOB/STAGE/FRAME_NAME.png")


def _run(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.frames_tasks import run

    return run(args, storage_of(args), output)
