"""The job file that `structureflow init` writes: what is asked for, and in comments what else there is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from structureflow import DecodeLimits, VideoReader
from structureflow.errors import InputNotFoundError, InvalidRequestError
from structureflow.limits import MAX_VIDEO_FRAMES
from structureflow.media.still import open_image
from structureflow.models.problems import counted
from structureflow.models.schema import MEANINGS, request_schema
from structureflow_local.jobfile import plain_id

SCHEMA_NAME: Final = "job.schema.json"
#: Said by the file itself, or of no use without another field.
_LEFT_OUT: Final = frozenset(
    {
        "task_id",
        "structure_video",
        "structure_videos",
        "segment_overlap",
        "flow_cache",
        "target",
        "images",
        "segments",
    }
)
#: Where there is no default to show.
_EXAMPLES: Final[Mapping[str, Any]] = {
    "project_id": "my film",
    "frames": 81,
    "overlap": 21,
    "hold": 12,
    "fade": 0,
    "resolution": [832, 480],
    "outputs": ["flow_vis", "visibility"],
    "prompt": "a walk at dusk",
    "tracks": {"grid": [16, 9]},
    "noise": {"channels": 16, "seed": 0},
    "canny": {"low": 100, "high": 200},
    "overlays": ["flow", "path"],
    "timeline_id": "my-timeline",
}


def write_job_file(
    video: Path, images: Sequence[Path], path: Path, *, target: str, overwrite: bool = False
) -> dict[str, Any]:
    """Write a job file, and the schema beside it.

    Args:
        video, images: are opened, to see that they can be used; paths in the file are relative to its folder.
        path: of the file.
        target: of the job.
        overwrite: whether it may be there already.

    Returns:
        What was found: ``segments``, and the ``video`` in words.

    Raises:
        InvalidRequestError: fewer than two images, or the file is there, or cannot be written.
        InputNotFoundError, MediaError: the video or an image cannot be used.
    """
    if len(images) < 2:
        raise InvalidRequestError(
            f"images: expected two or more, got {len(images)}; each segment leads from one to the next"
        )
    if path.exists() and not overwrite:
        raise InvalidRequestError(f"{path}: it is there already (--force overwrites it)")
    for found in (video, *images):
        if not found.is_file():
            raise InputNotFoundError(f"{found}: there is no such file")
    limits = DecodeLimits(max_frames=MAX_VIDEO_FRAMES)
    with VideoReader(video, limits) as reader:
        info = reader.info
        # behind the last frame it says that there are too few to have motion
        reader.skip(limits.min_frames)
    for image in images:
        with open_image(image.read_bytes(), what=str(image)):
            pass
    said = f"{info.width_px}x{info.height_px}, {counted(info.frames, 'frame')} at {info.fps:g} fps"
    text = job_file(
        plain_id(path), _relative(video, path), [_relative(image, path) for image in images], target=target, video=said
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / SCHEMA_NAME).write_text(schema_text(), encoding="utf-8")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{path}: cannot be written: {error.strerror}") from error
    return {"segments": len(images) - 1, "video": said}


def schema_text() -> str:
    """Return the schema of job files, as it is written for editors."""
    return json.dumps(request_schema(), indent=2, ensure_ascii=False) + "\n"


def job_file(task_id: str, video_path: str, image_paths: Sequence[str], *, target: str, video: str) -> str:
    """Return the text of a job file; `video` describes the structure video.

    Fields that are commented out stand before the last one, so that each needs nothing but its slashes removed.
    """
    properties = request_schema()["properties"]
    lines = [
        "{",
        "  // A job for structureflow. Lines that begin with // are not read; remove the slashes to use one.",
        f'  "$schema": "./{SCHEMA_NAME}",',
        *_field("task_id", task_id),
        f"  // {MEANINGS['structure_video']} This one: {video}.",
        *_field("structure_video", video_path)[1:],
        *_field("target", target, _words(properties["target"])),
        "",
    ]
    for name in MEANINGS:
        if name not in _LEFT_OUT:
            value = _EXAMPLES.get(name, properties[name].get("default"))
            meaning, line = _field(name, value, _words(properties[name]))
            lines += [meaning, f"  // {line.strip()}"]
    lines += ["", f"  // {MEANINGS['images']}", '  "images": [']
    lines += [f"    {_json(image)}," for image in image_paths[:-1]]
    return "\n".join([*lines, f"    {_json(image_paths[-1])}", "  ]", "}", ""])


def _field(name: str, value: Any, words: Sequence[str] = ()) -> list[str]:
    said = f" One of: {', '.join(words)}." if words else ""
    return [f"  // {MEANINGS[name]}{said}", f"  {_json(name)}: {_json(value)},"]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _words(schema: Mapping[str, Any]) -> list[str]:
    """Return the words that a field may have, also those of a list's items."""
    parts = [schema, *schema.get("anyOf", ()), schema.get("items", {})]
    return next((part["enum"] for part in parts if "enum" in part), [])


def _relative(path: Path, job: Path) -> str:
    """Return a path as the job file names it: relative where that is possible."""
    try:
        return Path(os.path.relpath(path.resolve(), job.resolve().parent)).as_posix()
    except ValueError:
        # another drive
        return path.resolve().as_posix()
