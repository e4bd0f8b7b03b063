"""One call that works of every public function and method, and what its parameters are, for `test_bad_arguments`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

import structureflow as sf
from tests.contract.bad_arguments import FLOW, PICTURE
from tests.contract.library_media import make_media


def make_places(folder: Path) -> None:
    """Make the files that arguments name: those of `make_media`, and some that are not what their names say."""
    make_media(folder)
    (folder / "folder").mkdir()
    (folder / "folder" / "notes.txt").write_text("of somebody else")
    (folder / "free").mkdir()
    for suffix in ("mp4", "npz", "flo", "png"):
        (folder / f"empty.{suffix}").touch()
        (folder / f"text.{suffix}").write_text("no more than a text\n" * 40)
    sf.write_flo(folder / "good.flo", FLOW)
    sf.write_kitti(folder / "good.png", FLOW)
    for name in ("flows.npz", "good.flo"):
        data = (folder / name).read_bytes()
        (folder / f"cut{Path(name).suffix}").write_bytes(data[: len(data) // 2])
    many = folder / "many"
    many.mkdir()
    sf.write_flo(many / "0.flo", FLOW)
    Image.fromarray(PICTURE).save(many / "0.png")


Made = tuple[Callable[..., Any], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """A call that works, and the kinds of its parameters.

    Attributes:
        make: gives the function, and arguments that it takes; the working directory has `make_places`.
        kinds: by parameter, see `bad_arguments.KINDS`; with ``?`` where None is one of its values.
        free: parameters of which every value is as good as another, or that are for the library's own use.
        works: whether it can be called here.
    """

    make: Callable[[], Made]
    kinds: Mapping[str, str] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    works: bool = True


def _tracker() -> sf.GuidanceTracker:
    tracker = sf.GuidanceTracker(5)
    tracker.mark_guided(0, 1)
    return tracker


def _flows() -> sf.FlowArchive:
    return sf.open_flows("flows.npz")


def _meta(**changed: Any) -> sf.FlowMeta:
    return sf.FlowMeta(**(_META | changed))


def method(make: Callable[[], Any], name: str, **arguments: Any) -> Callable[[], Made]:
    return lambda: (getattr(make(), name), arguments)


def plain(function: Callable[..., Any], **arguments: Any) -> Callable[[], Made]:
    return lambda: (function, arguments)


_META: Final[dict[str, Any]] = {
    "total_flows": 2,
    "height": 48,
    "width": 64,
    "original_height": 96,
    "original_width": 128,
    "original_fps": 16.0,
    "has_backward": False,
    "engine": "mine",
}
_GUIDE: Final[dict[str, Any]] = {"flows": "flows.npz", "keyframes": {0: "a.png", 4: PICTURE}, "frames": 5}
_GUIDE_KINDS: Final = {
    "flows": "source or archive?",
    "keyframes": "keyframes",
    "frames": "frame count",
    "structure": "structure",
    "size": "size",
    "options": "options",
    "workers": "whole from 1?",
}
#: What the decoder asks of its bounds, with sizes of its own.
_FOR_DECODERS: Final = {
    "frames": ("name", "frames"),
    "size": ("name", "width_px", "height_px", "what"),
    "time": ("name", "time_s"),
}
_ENGINE_KINDS: Final = {
    "engine": "choice",
    "quality": "choice",
    "raft_weights": "file?",
    "workers": "whole from 1?",
}


def library_calls() -> dict[str, Call]:
    """Return the calls of `structureflow`, by name."""
    where, tracks = {"read": {"direction": "choice", "start": "whole from 0", "stop": "whole from 1"}}, _points()
    return {
        "ArrayFlows": Call(
            lambda: (sf.ArrayFlows, {"meta": _meta(has_backward=True), "forward": _two(), "backward": _two()}),
            {"meta": "options", "forward": "arrays", "backward": "arrays?"},
        ),
        "ArrayFlows.read": Call(
            method(lambda: sf.ArrayFlows(_meta(), _two()), "read", direction="forward", start=0, stop=1), where["read"]
        ),
        **{
            f"DecodeLimits.check_{name}": Call(lambda: (sf.DecodeLimits.max_pixels, {}), free=free, works=False)
            for name, free in _FOR_DECODERS.items()
        },
        "DecodeLimits": Call(
            plain(sf.DecodeLimits),
            dict.fromkeys(("max_frames", "max_side_px", "min_side_px"), "whole from 1")
            | {"min_frames": "whole from 0", "max_duration_s": "rate"},
        ),
        "FlowArchive.expect": Call(
            method(_flows, "expect", start=0, stop=2), {"start": "whole from 0", "stop": "whole from 1"}
        ),
        "FlowArchive.read": Call(method(_flows, "read", direction="forward", start=0, stop=1), where["read"]),
        "FlowArchive.within": Call(method(_flows, "within", max_grid_px=10_000), {"max_grid_px": "whole from 1"}),
        "FlowMeta": Call(
            plain(sf.FlowMeta, **_META),
            dict.fromkeys(("total_flows", "height", "width", "original_height", "original_width"), "whole from 1")
            | {
                "original_fps": "number from 0",
                "engine": "text",
                "engine_params": "mapping",
                "quantization_px": "number from 0",
            }
            | {"timestamps_s": "times", "scene_cuts": "cuts", "display_max_px": "number from 0"}
            | {"source_video": "text", "source_identity": "text", "format_version": "whole from 0"},
            ("has_backward",),
        ),
        "Frame": Call(
            plain(sf.Frame, sequence=0, chunk_id="a", timestamp=0.0, image=PICTURE),
            {
                "sequence": "whole from 0",
                "chunk_id": "text",
                "timestamp": "number",
                "image": "picture",
                "perceptual_hash": "text",
            },
        ),
        "FrameCache": Call(
            plain(sf.FrameCache, storage=sf.MemoryStorage()),
            {
                "storage": "store",
                "concurrency": "whole from 1",
                "workers": "whole from 1?",
                "pixel_bytes": "whole from 1",
                "wait": "options?",
            },
        ),
        "GuidanceTracker": Call(plain(sf.GuidanceTracker, total_frames=5), {"total_frames": "frame count"}),
        "GuidanceTracker.debug_summary": Call(method(_tracker, "debug_summary")),
        "GuidanceTracker.get_anchor_frame_index": Call(
            method(_tracker, "get_anchor_frame_index", range_start=2), {"range_start": "frame number"}
        ),
        "GuidanceTracker.get_guided_ranges": Call(method(_tracker, "get_guided_ranges")),
        "GuidanceTracker.get_next_anchor_frame_index": Call(
            method(_tracker, "get_next_anchor_frame_index", range_end=2), {"range_end": "frame number"}
        ),
        "GuidanceTracker.get_unguidanced_ranges": Call(method(_tracker, "get_unguidanced_ranges")),
        "GuidanceTracker.is_guided": Call(method(_tracker, "is_guided", index=2), {"index": "frame number"}),
        "GuidanceTracker.mark_guided": Call(
            method(_tracker, "mark_guided", first=2, last=3), {"first": "frame number", "last": "frame number"}
        ),
        "GuidanceTracker.mark_single_frame": Call(
            method(_tracker, "mark_single_frame", index=2), {"index": "frame number"}
        ),
        "GuideOptions": Call(
            plain(sf.GuideOptions),
            dict.fromkeys(("treatment", "anchors", "motion", "seams", "quality"), "choice")
            | {
                "motion_strength": "strength",
                "masking": "options",
                "flow_start": "whole from 0",
                "flow_stop": "whole from 0?",
            },
            ("match_color",),
        ),
        "LocalStorage": Call(plain(sf.LocalStorage, root="store"), {"root": "path"}),
        "Masking": Call(
            plain(sf.Masking), {"mode": "choice", "holes": "choice", "grid": "whole from 1", "group": "whole from 1"}
        ),
        "MemoryStorage": Call(plain(sf.MemoryStorage), {"name": "text", "now": "function"}),
        "Overlay": Call(
            plain(sf.Overlay, sequence=0, name="a", image=PICTURE),
            {"sequence": "whole from 0", "name": "id", "image": "picture or grey"},
        ),
        "PointTracks": Call(lambda: (sf.PointTracks, dict(tracks)), {"places": "arrays", "visible": "arrays"}),
        "PointTracks.save": Call(
            method(lambda: sf.PointTracks(**tracks), "save", folder="free/t"), {"folder": "folder to write"}
        ),
        "RenderedGuide": Call(_guide_parts, {"frames": "arrays", "masks": "arrays"}, ("outcome",)),
        "RenderedGuide.save": Call(
            method(lambda: sf.render_guide(**_GUIDE), "save", folder="free/g"),
            {"folder": "folder to write", "fps": "rate"},
        ),
        "S3Settings": Call(
            plain(sf.S3Settings),
            dict.fromkeys(("endpoint_url", "region", "access_key_id", "secret_access_key", "session_token"), "text?")
            | dict.fromkeys(("addressing_style", "request_checksums", "response_checksums"), "choice?")
            | dict.fromkeys(("max_connections", "max_attempts", "put_bytes", "part_bytes"), "whole from 1")
            | {"connect_timeout_s": "rate", "read_timeout_s": "rate", "conditional_writes": "choice"},
        ),
        "S3Settings.build_client": Call(method(sf.S3Settings, "build_client"), works=False),
        "S3Storage": Call(plain(sf.S3Storage, bucket="b"), {"bucket": "text", "settings": "options?"}, ("client",)),
        "StructureFlowError.as_dict": Call(method(lambda: sf.StructureFlowError("no"), "as_dict")),
        "StructureFlowError.within": Call(
            method(lambda: sf.StructureFlowError("no"), "within", where="here"), free=("where", "instead_of")
        ),
        "StructureFlowError": Call(plain(sf.StructureFlowError, message="no"), free=("message", "detail")),
        "VideoFrames": Call(plain(sf.VideoFrames, path="clip.mp4"), {"path": "path", "first": "whole from 0"}),
        "VideoReader": Call(
            plain(sf.VideoReader, path="clip.mp4"), {"path": "video", "limits": "options?", "threads": "whole from 0"}
        ),
        "VideoReader.close": Call(method(lambda: sf.VideoReader(Path("clip.mp4")), "close")),
        "VideoReader.skip": Call(
            method(lambda: sf.VideoReader(Path("clip.mp4")), "skip", count=1), {"count": "whole from 0"}
        ),
        "adjust_flow_field_count": Call(
            plain(sf.adjust_flow_field_count, flows=[FLOW, FLOW], target_count=3, treatment="retime"),
            {
                "flows": "fields",
                "target_count": "whole from 0",
                "treatment": "choice",
                "direction": "choice",
                "timestamps_s": "times",
            },
        ),
        "apply_structure_motion": Call(
            lambda: (
                sf.apply_structure_motion,
                {"frames": [PICTURE, PICTURE, None, None, None], "tracker": _tracker(), "flows": [FLOW, FLOW]},
            ),
            {
                "frames": "guided frames",
                "tracker": "options",
                "flows": "motion",
                "treatment": "choice",
                "motion_strength": "strength",
                "anchors": "choice",
                "flow_start": "whole from 0",
                "flow_stop": "whole from 0?",
                "workers": "whole from 1",
            },
        ),
        "encode_h264": Call(
            plain(sf.encode_h264, frames=[PICTURE], path="free/x.mp4", height=96, width=160, fps=16),
            {
                "frames": "frames to encode",
                "path": "file to write",
                "height": "whole from 1",
                "width": "whole from 1",
                "fps": "rate",
                "settings": "options",
                "threads": "whole from 0",
            },
        ),
        "export_flows": Call(
            lambda: (sf.export_flows, {"flows": _flows(), "target": "free/f", "form": "kitti"}),
            {"flows": "source", "target": "empty folder to write", "form": "choice"},
        ),
        "extract_flows": Call(
            plain(sf.extract_flows, video="clip.mp4", archive="free/x.npz"),
            {"video": "video", "archive": "file to write?", "cache": "folder to write?", **_ENGINE_KINDS}
            | {"limits": "options", "on_frame": "function?"},
        ),
        "extract_flows_of_frames": Call(
            plain(sf.extract_flows_of_frames, frames=[PICTURE, PICTURE]),
            {"frames": "pictures", "fps": "rate", **_ENGINE_KINDS},
        ),
        "flow_normaliser": Call(
            plain(sf.flow_normaliser, flows=[FLOW]), {"flows": "motion", "percentile": "percentile"}
        ),
        "flow_to_rgb": Call(plain(sf.flow_to_rgb, flow=FLOW, max_px=8), {"flow": "field", "max_px": "rate"}),
        "import_flows": Call(
            plain(sf.import_flows, source="flows.npz", archive="free/x.npz"),
            {"source": "flows in or archive", "archive": "file to write", "fps": "rate?", "size": "size"},
        ),
        "list_overlay_frames": Call(
            plain(sf.list_overlay_frames, storage=sf.MemoryStorage(), timeline_id="walk", job_id="j"),
            {"storage": "store", "timeline_id": "id", "job_id": "id?", "stage": "stage?"},
        ),
        "load_overlays": Call(
            plain(sf.load_overlays, storage=sf.MemoryStorage(), timeline_id="walk", job_id="j", stage="flow"),
            {"storage": "store", "timeline_id": "id", "job_id": "id", "stage": "stage", "sequences": "sequences"},
        ),
        "open_flows": Call(plain(sf.open_flows, archive="flows.npz"), {"archive": "archive"}),
        "read_flo": Call(plain(sf.read_flo, path="good.flo"), {"path": "flo"}),
        "read_kitti": Call(plain(sf.read_kitti, path="good.png"), {"path": "kitti"}),
        "render_guide": Call(plain(sf.render_guide, **_GUIDE), _GUIDE_KINDS),
        "resize_flow": Call(
            plain(sf.resize_flow, flow=FLOW, height=8, width=8),
            {"flow": "field", "height": "whole from 1", "width": "whole from 1"},
        ),
        "save_flows": Call(
            lambda: (sf.save_flows, {"flows": _flows(), "archive": "free/x.npz"}),
            {"flows": "source", "archive": "file to write"},
        ),
        "save_overlays": Call(
            lambda: (
                sf.save_overlays,
                {"storage": sf.MemoryStorage(), "timeline_id": "walk", "job_id": "j", "stage": "flow"}
                | {"overlays": [sf.Overlay(0, "a", PICTURE)]},
            ),
            {"storage": "store", "timeline_id": "id", "job_id": "id", "stage": "stage", "overlays": "overlays"},
        ),
        "track_points": Call(
            plain(sf.track_points, flows="flows.npz", frames=5),
            {key: kind for key, kind in _GUIDE_KINDS.items() if key != "keyframes"}
            | {"flows": "source or archive", "points": "points", "grid": "size"},
        ),
        "write_flo": Call(
            plain(sf.write_flo, path="free/x.flo", flow=FLOW),
            {"path": "file to write", "flow": "field", "known": "known"},
        ),
        "write_guide": Call(
            plain(sf.write_guide, folder="free/g", **_GUIDE),
            _GUIDE_KINDS | {"folder": "folder to write", "fps": "rate"},
        ),
        "write_kitti": Call(
            plain(sf.write_kitti, path="free/x.png", flow=FLOW),
            {"path": "file to write", "flow": "field", "known": "known"},
        ),
    }


def _two() -> Any:
    return np.stack([FLOW, FLOW])


def _points() -> dict[str, Any]:
    return {"places": np.zeros((3, 2, 2), np.float32), "visible": np.ones((3, 2), np.bool_)}


def _guide_parts() -> Made:
    guide = sf.render_guide(**_GUIDE)
    return sf.RenderedGuide, {"frames": guide.frames, "masks": guide.masks, "outcome": guide.outcome}
