"""One call that works of every function of `structureflow.compat`; see `public_calls`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structureflow as sf
from structureflow import compat
from structureflow.compat import places
from tests.contract.bad_arguments import FLOW, PICTURE
from tests.contract.public_calls import Call, Made, plain

#: Parameters whose errors the original told of, and returned None: there are no cached flows then.
TOLD: Final = {
    "_extract_and_upload_structure_flows": {
        "structure_video_path", "orchestrator_task_id", "current_run_output_dir",
    },
    "download_and_load_cached_flows": {"flow_cache_url", "download_target_dir"},
}  # fmt: skip


@contextmanager
def original_places() -> Iterator[None]:
    """Whatever the block puts in place for the original functions is gone after it."""
    kept = places._PLACES
    before = (kept.upload, kept.download, kept.store)
    try:
        yield
    finally:
        kept.upload, kept.download, kept.store = before


def _apply() -> Made:
    tracker = sf.GuidanceTracker(5)
    tracker.mark_guided(0, 1)
    return compat.apply_structure_motion_with_tracking, {
        "frames_for_guide_list": [PICTURE, PICTURE, None, None, None],
        "guidance_tracker": tracker,
        "structure_video_path": "clip.mp4",
        "structure_video_treatment": "adjust",
        "parsed_res_wh": (160, 96),
        "fps_helpers": 16,
    }


def _in_store(function: Any, **arguments: Any) -> Call:
    def make() -> Made:
        store = sf.MemoryStorage()
        compat.use_store(store)
        compat.cache_frames("walk", [compat.Frame(0, 0, 0.0, PICTURE)])
        return function, arguments

    ids = dict.fromkeys(("timeline_id", "job_id", "stage"), "id")
    return Call(make, {name: ids.get(name) or _KINDS[name] for name in arguments})


_KINDS: Final = {"seq": "whole from 0", "frames": "cached frames", "quality": "quality", "overlays": "texts"}


def compat_calls() -> dict[str, Call]:
    """Return the calls of `structureflow.compat`, by name."""
    walk, stage = {"timeline_id": "walk"}, {"timeline_id": "walk", "job_id": "j", "stage": "edges"}
    frames = [compat.Frame(0, 0, 0.0, PICTURE)]
    return {
        "Frame": Call(
            plain(compat.Frame, sequence=0, chunk_id=0, timestamp=0.0, image=PICTURE),
            free=("sequence", "chunk_id", "timestamp", "image", "perceptual_hash"),
        ),
        "_extract_and_upload_structure_flows": Call(
            plain(
                compat._extract_and_upload_structure_flows,
                structure_video_path="clip.mp4",
                orchestrator_task_id="t",
                current_run_output_dir=Path("free"),
                project_id=None,
            ),
            {
                "structure_video_path": "video",
                "orchestrator_task_id": "id",
                "current_run_output_dir": "folder there",
                "dprint": "function",
            },
            ("project_id",),
        ),
        "adjust_flow_field_count": Call(
            plain(compat.adjust_flow_field_count, flow_fields=[FLOW, FLOW], target_count=3),
            {"flow_fields": "fields", "target_count": "whole from 0", "treatment": "choice", "dprint": "function"},
        ),
        "apply_structure_motion_with_tracking": Call(
            _apply,
            {
                "frames_for_guide_list": "guided frames",
                "guidance_tracker": "options",
                "structure_video_path": "video",
                "structure_video_treatment": "choice",
                "parsed_res_wh": "size",
                "fps_helpers": "rate",
                "motion_strength": "strength",
                "structure_flow_cache_url": "text?",
                "segment_processing_dir": "path?",
                "dprint": "function",
            },
            ("task_id",),
        ),
        "cache_exists": _in_store(compat.cache_exists, **walk),
        "cache_frames": _in_store(compat.cache_frames, frames=frames, quality=85, **walk),
        "clear_cache": _in_store(compat.clear_cache, **walk),
        "download_and_load_cached_flows": Call(
            plain(
                compat.download_and_load_cached_flows,
                flow_cache_url="flows.npz",
                download_target_dir=Path("free"),
                task_id="t",
            ),
            {"flow_cache_url": "archive", "download_target_dir": "folder there", "dprint": "function"},
            ("task_id",),
        ),
        "extract_optical_flow_from_frames": Call(
            plain(compat.extract_optical_flow_from_frames, frames=[PICTURE, PICTURE]),
            {"frames": "pictures", "dprint": "function"},
        ),
        "frames_to_b64": _in_store(compat.frames_to_b64, frames=frames, quality=75),
        "list_overlay_frames": _in_store(compat.list_overlay_frames, **stage),
        "load_cached_frames": _in_store(compat.load_cached_frames, **walk),
        "load_cached_frames_b64": _in_store(compat.load_cached_frames_b64, **walk),
        "load_overlays": _in_store(compat.load_overlays, seq=0, **stage),
        "load_structure_video_frames": Call(
            plain(
                compat.load_structure_video_frames,
                structure_video_path="clip.mp4",
                target_frame_count=4,
                target_fps=16,
                target_resolution=(64, 64),
            ),
            {
                "structure_video_path": "video",
                "target_frame_count": "whole from 1",
                "target_fps": "rate",
                "target_resolution": "size",
                "dprint": "function",
            },
        ),
        "save_overlays": _in_store(compat.save_overlays, seq=0, overlays={"a": "AAAA"}, **stage),
        "use_download": Call(plain(compat.use_download, download=lambda *_: None), {"download": "function"}),
        "use_store": Call(plain(compat.use_store, store=sf.MemoryStorage()), {"store": "store"}),
        "use_upload": Call(plain(compat.use_upload, upload=lambda **_: None), {"upload": "function"}),
    }
