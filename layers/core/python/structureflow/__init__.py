"""Structure video guidance: the motion of a structure video, extracted once, carried through every segment.

What is listed here is the library's public face; `docs/python.md` shows it at work. Importing this package costs
nothing: each name is loaded from its module when it is first used.

Imports flow one way: functions -> jobs -> guide, frames, flow, report -> media, storage, models -> errors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from structureflow.api.client import ApiClient as ApiClient
    from structureflow.errors import StructureFlowError as StructureFlowError
    from structureflow.flow.archive import FlowArchive as FlowArchive
    from structureflow.flow.colors import flow_normaliser as flow_normaliser
    from structureflow.flow.colors import flow_to_rgb as flow_to_rgb
    from structureflow.flow.exchange import export_flows as export_flows
    from structureflow.flow.exchange import import_flows as import_flows
    from structureflow.flow.exchange import save_flows as save_flows
    from structureflow.flow.fields import FlowMeta as FlowMeta
    from structureflow.flow.fields import FlowSource as FlowSource
    from structureflow.flow.fields import adjust_flow_field_count as adjust_flow_field_count
    from structureflow.flow.fields import resize_flow as resize_flow
    from structureflow.flow.files import extract_flows as extract_flows
    from structureflow.flow.files import extract_flows_of_frames as extract_flows_of_frames
    from structureflow.flow.files import open_flows as open_flows
    from structureflow.flow.image_files import read_flo as read_flo
    from structureflow.flow.image_files import read_kitti as read_kitti
    from structureflow.flow.image_files import write_flo as write_flo
    from structureflow.flow.image_files import write_kitti as write_kitti
    from structureflow.flow.sources import ArrayFlows as ArrayFlows
    from structureflow.frames.cache import Frame as Frame
    from structureflow.frames.cache import FrameCache as FrameCache
    from structureflow.frames.overlays import Overlay as Overlay
    from structureflow.frames.overlays import list_overlay_frames as list_overlay_frames
    from structureflow.frames.overlays import load_overlays as load_overlays
    from structureflow.frames.overlays import save_overlays as save_overlays
    from structureflow.guide.apply import apply_structure_motion as apply_structure_motion
    from structureflow.guide.masks import Masking as Masking
    from structureflow.guide.scene import GuideOptions as GuideOptions
    from structureflow.guide.scene import VideoFrames as VideoFrames
    from structureflow.guide.tracker import GuidanceTracker as GuidanceTracker
    from structureflow.guide.videos import RenderedGuide as RenderedGuide
    from structureflow.guide.videos import render_guide as render_guide
    from structureflow.guide.videos import write_guide as write_guide
    from structureflow.media.decode import VideoReader as VideoReader
    from structureflow.media.encode import encode_h264 as encode_h264
    from structureflow.media.limits import DecodeLimits as DecodeLimits
    from structureflow.storage.base import Storage as Storage
    from structureflow.storage.local import LocalStorage as LocalStorage
    from structureflow.storage.memory import MemoryStorage as MemoryStorage
    from structureflow.storage.s3 import S3Storage as S3Storage
    from structureflow.storage.s3_settings import S3Settings as S3Settings
    from structureflow.targets.follow import PointTracks as PointTracks
    from structureflow.targets.follow import track_points as track_points

__version__ = "0.1.0"

#: Public names by the module that has them; the imports above say the same to type checkers.
_MODULES: Final = {
    "api.client": ("ApiClient",),
    "errors": ("StructureFlowError",),
    "flow.archive": ("FlowArchive",),
    "flow.colors": ("flow_normaliser", "flow_to_rgb"),
    "flow.exchange": ("export_flows", "import_flows", "save_flows"),
    "flow.fields": ("FlowMeta", "FlowSource", "adjust_flow_field_count", "resize_flow"),
    "flow.files": ("extract_flows", "extract_flows_of_frames", "open_flows"),
    "flow.image_files": ("read_flo", "read_kitti", "write_flo", "write_kitti"),
    "flow.sources": ("ArrayFlows",),
    "frames.cache": ("Frame", "FrameCache"),
    "frames.overlays": ("Overlay", "list_overlay_frames", "load_overlays", "save_overlays"),
    "guide.apply": ("apply_structure_motion",),
    "guide.masks": ("Masking",),
    "guide.scene": ("GuideOptions", "VideoFrames"),
    "guide.tracker": ("GuidanceTracker",),
    "guide.videos": ("RenderedGuide", "render_guide", "write_guide"),
    "media.decode": ("VideoReader",),
    "media.encode": ("encode_h264",),
    "media.limits": ("DecodeLimits",),
    "storage.base": ("Storage",),
    "storage.local": ("LocalStorage",),
    "storage.memory": ("MemoryStorage",),
    "storage.s3": ("S3Storage",),
    "storage.s3_settings": ("S3Settings",),
    "targets.follow": ("PointTracks", "track_points"),
}
_HOMES: Final = {name: f"structureflow.{module}" for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Load a public name from its module.

    Raises:
        AttributeError: there is no such name.
        MissingExtraError: it needs an extra that is not installed; the message names it.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from structureflow.extras import importing

    with importing(f"structureflow.{name}"):
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
