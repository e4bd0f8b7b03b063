"""The functions of the original designs, with their own names, parameters and types, on this library.

Programs that were written for the flow cache of the video pipeline, or for the frame cache module, import from here.
What each function is in the library itself, and where it behaves otherwise than the original, says
``docs/compat.md``. Where things are is said once, by `use_store`, `use_upload` and `use_download`.
"""

from __future__ import annotations

from structureflow.compat.flows import (
    _extract_and_upload_structure_flows,
    adjust_flow_field_count,
    apply_structure_motion_with_tracking,
    download_and_load_cached_flows,
    extract_optical_flow_from_frames,
    load_structure_video_frames,
)
from structureflow.compat.frames import (
    Frame,
    cache_exists,
    cache_frames,
    clear_cache,
    frames_to_b64,
    list_overlay_frames,
    load_cached_frames,
    load_cached_frames_b64,
    load_overlays,
    save_overlays,
)
from structureflow.compat.places import use_download, use_store, use_upload
from structureflow.guide.tracker import GuidanceTracker

__all__ = [
    "Frame",
    "GuidanceTracker",
    "_extract_and_upload_structure_flows",
    "adjust_flow_field_count",
    "apply_structure_motion_with_tracking",
    "cache_exists",
    "cache_frames",
    "clear_cache",
    "download_and_load_cached_flows",
    "extract_optical_flow_from_frames",
    "frames_to_b64",
    "list_overlay_frames",
    "load_cached_frames",
    "load_cached_frames_b64",
    "load_overlays",
    "load_structure_video_frames",
    "save_overlays",
    "use_download",
    "use_store",
    "use_upload",
]
