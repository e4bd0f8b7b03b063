"""The flow cache of the original video pipeline: its functions, as the orchestrator and the segments called them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments, keys
from structureflow.arguments import checked, choice, instance, number, optional, whole
from structureflow.compat import places
from structureflow.errors import (
    FlowCacheError,
    FlowError,
    GuidanceError,
    InputNotFoundError,
    OutputError,
    StructureFlowError,
    VideoTooShortError,
)
from structureflow.extras import importing
from structureflow.files import new_file
from structureflow.flow.archive import FlowArchive, open_flow_file
from structureflow.flow.colors import flow_normaliser, flow_to_rgb
from structureflow.flow.fields import Field32, FlowSource, Treatment, check_flows, resize_flow
from structureflow.flow.fields import adjust_flow_field_count as adjust
from structureflow.flow.files import extract_flows, extract_flows_of_frames
from structureflow.guide.apply import apply_structure_motion
from structureflow.guide.images import fit
from structureflow.guide.tracker import GuidanceTracker
from structureflow.limits import MAX_MOTION_STRENGTH, MAX_WORKING_GRID_PX
from structureflow.references import without_queries

Frame = NDArray[np.uint8]
DebugPrint = Callable[[str], Any]

_CACHE: Final = "[STRUCTURE_FLOW_CACHE]"
_MOTION: Final = "[STRUCTURE_VIDEO]"
#: Of a frame's time: containers round theirs to milliseconds.
_EARLY_S: Final = 0.0005

_log = logging.getLogger(__name__)


@checked(dprint=arguments.function)
def _extract_and_upload_structure_flows(
    structure_video_path: str,
    orchestrator_task_id: str,
    current_run_output_dir: Path,
    project_id: str | None,
    dprint: DebugPrint = print,
) -> str | None:
    """Extract a structure video's flows, save them as ``structure_flows_{task}.npz``, and upload the file.

    Args:
        structure_video_path: a local file.
        orchestrator_task_id: the task; part of the file's name, so it must be an id (`structureflow.keys.check_id`).
        current_run_output_dir: an existing folder, where the file is saved.
        project_id: handed to the upload.
        dprint: told what happens.

    Returns:
        What the upload returned, see `use_upload`; None where the video cannot be used or the upload failed, which
        `dprint` and the log are told. Segments then extract flows themselves.
    """
    try:
        task = keys.check_id(orchestrator_task_id, "orchestrator_task_id")
        path = _folder(current_run_output_dir, "current_run_output_dir") / f"structure_flows_{task}.npz"
        arguments.path(structure_video_path, "structure_video_path")
        flows = extract_flows(structure_video_path, path)
    except StructureFlowError as error:
        _say(dprint, f"[ERROR] flow extraction failed: {error}")
        return None
    meta = flows.meta
    dprint(f"{_CACHE} {meta.total_flows} flows by {meta.engine}, {path.stat().st_size / 1e6:.2f} MB in {path}")
    try:
        url = places.upload()(
            local_path=str(path), task_id=orchestrator_task_id, project_id=project_id, is_final_output=False
        )
    except Exception as error:  # noqa: BLE001 - of the program's own upload, whatever it raises: there is no URL then
        _say(dprint, f"[ERROR] upload failed: {type(error).__name__}: {error}", error)
        return None
    if not url:
        _say(dprint, f"{_CACHE} upload failed, segments extract flows themselves")
        return None
    dprint(f"{_CACHE} uploaded to {url}")
    return url


@checked(dprint=arguments.function)
def download_and_load_cached_flows(
    flow_cache_url: str,
    download_target_dir: Path,
    task_id: str,
    dprint: DebugPrint = print,
) -> Field32 | None:
    """Download cached flows and load them whole.

    Args:
        flow_cache_url: where they are: ``https://``, ``file://`` or a path; others by `use_download`.
        download_target_dir: an existing folder; ``structure_flows_cache.npz`` is written to it.
        task_id: for messages.
        dprint: told what happens.

    Returns:
        Forward flows, ``(N, H, W, 2)`` float32, (dx, dy) in pixels of their own grid; None where they cannot be had,
        which `dprint` and the log are told.
    """
    archive = _downloaded(flow_cache_url, download_target_dir, task_id, dprint)
    if archive is None:
        return None
    try:
        return archive.read("forward", 0, archive.meta.total_flows)
    except StructureFlowError as error:
        _say(dprint, f"[ERROR] cached flows of task {task_id} cannot be read: {error}")
        return None


@checked(
    frames_for_guide_list=arguments.iterable("one picture for each frame"),
    guidance_tracker=instance(GuidanceTracker, "GuidanceTracker"),
    structure_video_treatment=choice(*get_args(Treatment)),
    parsed_res_wh=arguments.size,
    fps_helpers=number(above=0),
    motion_strength=number(least=0, most=MAX_MOTION_STRENGTH),
    structure_flow_cache_url=optional(arguments.text),
    segment_processing_dir=optional(arguments.path),
    dprint=arguments.function,
)
def apply_structure_motion_with_tracking(
    frames_for_guide_list: list[Frame],
    guidance_tracker: GuidanceTracker,
    structure_video_path: str,
    structure_video_treatment: str,
    parsed_res_wh: tuple[int, int],
    fps_helpers: int,
    motion_strength: float = 1.0,
    structure_flow_cache_url: str | None = None,
    segment_processing_dir: Path | None = None,
    task_id: str = "unknown",
    dprint: DebugPrint = print,
) -> list[Frame]:
    """Fill a segment's unguided frames with the structure video's motion, by cached flows, else by the video's.

    Args:
        frames_for_guide_list: one per frame, ``(H, W, 3)`` uint8; those that are not guided are not looked at.
        guidance_tracker: says which are guided; frames that are filled are marked.
        structure_video_path: a local file, for the case that there are no cached flows.
        structure_video_treatment: ``adjust`` or ``clip``, see `adjust_flow_field_count`; also ``retime``.
        parsed_res_wh: (width, height) of the frames.
        fps_helpers: rate at which the video is read where its flows are extracted here.
        motion_strength: every step is this many times as long.
        structure_flow_cache_url, segment_processing_dir: where cached flows are, and the folder to download them to;
            both or neither.
        task_id: for messages.
        dprint: told what happens.

    Returns:
        A new list. Frames that motion does not reach are mid-grey (128) and stay unguided in the tracker.

    Raises:
        GuidanceError: frames, tracker and `parsed_res_wh` do not fit together.
        InvalidArgumentError: an unknown treatment, or an argument of another type.
        MediaError, InputNotFoundError: there are no cached flows and the video cannot be used.
    """
    ranges = guidance_tracker.get_unguidanced_ranges()
    if not ranges:
        dprint(f"{_MOTION} no unguided frames")
        return frames_for_guide_list
    wanted = sum(last - first + 1 for first, last in ranges)
    dprint(f"{_MOTION} {wanted} unguided frames in {len(ranges)} ranges")
    _check_sizes(frames_for_guide_list, guidance_tracker, parsed_res_wh)
    flows: FlowSource | None = None
    if structure_flow_cache_url and segment_processing_dir:
        archive = _downloaded(structure_flow_cache_url, segment_processing_dir, task_id, dprint)
        flows = None if archive is None else archive.within(MAX_WORKING_GRID_PX)
    if flows is None:
        dprint(f"{_MOTION} no cached flows, extracting from the video")
        structure = load_structure_video_frames(
            structure_video_path, wanted + 1, fps_helpers, parsed_res_wh, dprint=dprint
        )
        flows = extract_flows_of_frames(structure, fps=fps_helpers)
    frames = apply_structure_motion(
        frames_for_guide_list,
        guidance_tracker,
        flows,
        treatment=cast("Treatment", structure_video_treatment),
        motion_strength=motion_strength,
        anchors="start",
    )
    left = sum(last - first + 1 for first, last in guidance_tracker.get_unguidanced_ranges())
    dprint(f"{_MOTION} {wanted - left} frames filled by {flows.meta.total_flows} flows, {left} left unguided")
    return frames


@checked(
    structure_video_path=arguments.path,
    target_frame_count=whole(1),
    target_fps=number(above=0),
    target_resolution=arguments.size,
    dprint=arguments.function,
)
def load_structure_video_frames(
    structure_video_path: str,
    target_frame_count: int,
    target_fps: float,
    target_resolution: tuple[int, int],
    dprint: DebugPrint = print,
) -> list[Frame]:
    """Read a structure video's first frames at another rate and size.

    Args:
        structure_video_path: a local file.
        target_frame_count: most frames to return.
        target_fps: their rate: frame k is the one that the video shows at ``k / target_fps`` seconds.
        target_resolution: (width, height); frames are cut to its shape, not stretched.
        dprint: told what happens.

    Returns:
        ``(height, width, 3)`` uint8 RGB each; fewer than asked for where the video is shorter.

    Raises:
        MediaError, InputNotFoundError: the video cannot be used.
        InvalidArgumentError: a count, rate or size that is none.
        VideoTooShortError: fewer than two frames come of it, which have no motion.
    """
    with importing("load_structure_video_frames"):
        from structureflow.media.decode import VideoReader
    width, height = target_resolution
    frames: list[Frame] = []
    shown: Frame | None = None
    end_s = 0.0
    with VideoReader(Path(structure_video_path)) as video:
        length_s = 1 / video.info.fps if video.info.fps else 1 / target_fps
        for frame in video:
            # the frame before is shown until this one comes
            while shown is not None and len(frames) / target_fps < frame.timestamp_s - _EARLY_S:
                frames.append(shown)
                if len(frames) == target_frame_count:
                    break
            if len(frames) == target_frame_count:
                break
            shown = fit(frame.image, height, width)
            end_s = frame.timestamp_s + length_s
    while shown is not None and len(frames) < target_frame_count and len(frames) / target_fps < end_s - _EARLY_S:
        frames.append(shown)
    if len(frames) < 2 <= target_frame_count:
        raise VideoTooShortError(
            f"{Path(structure_video_path).name}: expected 2 frames at {target_fps:g} fps, got {len(frames)}"
        )
    dprint(f"{_MOTION} {len(frames)} frames of {width}x{height} at {target_fps:g} fps")
    return frames


@checked(dprint=arguments.function)
def extract_optical_flow_from_frames(
    frames: Sequence[Frame], dprint: DebugPrint = print
) -> tuple[list[Field32], list[Frame]]:
    """Compute the flow between frames.

    Args:
        frames: two or more, ``(H, W, 3)`` uint8 RGB, of one size.
        dprint: told what happens.

    Returns:
        Forward flows, ``(H, W, 2)`` float32 each, one less than frames, (dx, dy) in pixels of the frames; and a picture
        of each, ``(H, W, 3)`` uint8 RGB, all by one normaliser.

    Raises:
        FlowError: fewer than two frames, or of different sizes.
    """
    flows = extract_flows_of_frames(frames)
    meta = flows.meta
    fields = [resize_flow(flow, meta.original_height, meta.original_width) for flow in flows.forward]
    longest = flow_normaliser(fields)
    dprint(f"{_MOTION} {len(fields)} flows by {meta.engine}")
    return fields, [flow_to_rgb(field, longest) for field in fields]


@checked(treatment=choice(*get_args(Treatment)), dprint=arguments.function)
def adjust_flow_field_count(
    flow_fields: Sequence[NDArray[Any]],
    target_count: int,
    treatment: str = "adjust",
    dprint: DebugPrint = print,
) -> list[Field32]:
    """Make `target_count` steps of a sequence of flows; see `structureflow.adjust_flow_field_count`.

    Returns:
        ``adjust``: as many, interpolated between neighbours; ``clip``: the first ones, fewer where there are fewer.

    Raises:
        FlowError: flows or a count that cannot be used.
        InvalidArgumentError: an unknown treatment.
    """
    try:
        fields = check_flows(flow_fields)
    except FlowError as error:
        raise error.within("flow_fields") from error
    steps = adjust(fields, target_count, cast("Treatment", treatment))
    dprint(f"{_MOTION} {len(flow_fields)} flows, {treatment}: {len(steps)} steps")
    return steps


def _downloaded(url: str, folder: str | Path, task_id: str, dprint: DebugPrint) -> FlowArchive | None:
    failed = f"[ERROR] cached flows of task {task_id} cannot be had"
    try:
        arguments.path(url, "flow_cache_url")
        path = _folder(folder, "download_target_dir") / "structure_flows_cache.npz"
        source = without_queries(url).partition("?")[0]
        dprint(f"{_CACHE} downloading the flows of task {task_id} from {source}")
        failed = f"{failed} from {source}"
        # what is no archive does not take the place of one
        with new_file(path, "download_target_dir") as part:
            _fetch(url, part)
            _check_archive(part, path.name)
        archive = open_flow_file(path)
    except StructureFlowError as error:
        _say(dprint, f"{failed}: {error}", error.__cause__)
        return None
    meta = archive.meta
    dprint(
        f"{_CACHE} {meta.total_flows} flows of {meta.original_width}x{meta.original_height} "
        f"at {meta.original_fps:g} fps"
    )
    return archive


def _check_archive(part: Path, name: str) -> None:
    try:
        open_flow_file(part)
    except FlowCacheError as error:
        raise error.within(name, instead_of=str(part)) from error


def _fetch(url: str, path: Path) -> None:
    try:
        places.download()(url, path)
    except StructureFlowError:
        raise
    except Exception as error:  # of the program's own download, whatever it raises: flows are extracted instead
        raise InputNotFoundError(f"{type(error).__name__}: {error}") from error


def _folder(folder: str | Path, argument: str) -> Path:
    arguments.path(folder, argument)
    if not Path(folder).is_dir():
        raise OutputError(f"{argument}: expected an existing folder, got {folder}")
    return Path(folder)


def _say(dprint: DebugPrint, text: str, error: BaseException | None = None) -> None:
    """Tell of what the original returned as None; the log has where an error of the program's own came from."""
    _log.warning(without_queries(text), exc_info=None if isinstance(error, StructureFlowError) else error)
    dprint(without_queries(text))


def _check_sizes(frames: Sequence[Frame], tracker: GuidanceTracker, size: tuple[int, int]) -> None:
    if len(frames) != tracker.total_frames:
        raise GuidanceError(
            f"frames_for_guide_list: expected {tracker.total_frames}, as the tracker has, got {len(frames)}"
        )
    width, height = size
    for first, last in tracker.get_guided_ranges():
        for index in range(first, last + 1):
            arguments.picture(frames[index], f"frames_for_guide_list: number {index}")
            if frames[index].shape[:2] != (height, width):
                raise GuidanceError(
                    f"frames_for_guide_list: number {index}: expected {width}x{height} pixels (parsed_res_wh), "
                    f"got shape {frames[index].shape}"
                )
