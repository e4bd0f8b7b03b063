"""The nodes: flows of a video (once, kept on disk), guide and mask, tracks.

Images are ComfyUI's: ``(frames, height, width, 3)`` float32, 0 to 1; masks ``(frames, height, width)``, 1 where the
generator makes the picture. Work is done on the CPU, in the library; PyTorch only carries pictures in and out.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import structureflow as sf

CATEGORY = "structureflow"
FLOWS = "STRUCTURE_FLOWS"
#: ``5``, ``5-9``, ``-5--1``.
_RANGE = re.compile(r"(-?[0-9]{1,9})(?:-(-?[0-9]{1,9}))?")
#: What ComfyUI's INT inputs take; of lengths what Wan takes, of sides what it packs into one place.
_LENGTH = {"default": 81, "min": 5, "max": 1997, "step": 4}
_WIDTH = {"default": 832, "min": 32, "max": 4096, "step": 16}
_HEIGHT = {"default": 480, "min": 32, "max": 4096, "step": 16}
#: Of the motion, to look at: as float32 images the flows of a long film would fill the memory.
_MOST_PICTURES = 256
#: What `PointTracks.save` writes for a node.
_TRACK_FILES = {"WanTrackToVideo": "ati.json", "WanMoveTracksFromCoords": "wan_move.json"}


@dataclass(frozen=True, eq=False)
class StructureMotion:
    """What goes over a connection of type `FLOWS`.

    Attributes:
        flows: the structure video's.
        structure: the video itself: its file, or its frames, ``(T, H, W, 3)`` uint8 RGB.
    """

    flows: sf.FlowSource
    structure: Path | np.ndarray


class StructureFlowsFromImages:
    """The motion of the frames of a structure video, such as of Get Video Components."""

    DESCRIPTION = "Computes the optical flow of a structure video's frames, once: it is found again on disk."
    RETURN_TYPES = (FLOWS, "IMAGE")
    RETURN_NAMES = ("flows", "flow_pictures")
    OUTPUT_TOOLTIPS = (
        "For Structure Guide and Structure Tracks.",
        f"The motion in colours, to look at: of a long film {_MOST_PICTURES} pictures, evenly spread.",
    )
    FUNCTION = "extract"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Declare the inputs."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "Every frame of the structure video, at least two."}),
                "fps": ("FLOAT", {"default": 16.0, "min": 1.0, "max": 240.0, "step": 0.01}),
                **_engine(),
            }
        }

    def extract(
        self, images: torch.Tensor, fps: float, engine: str, quality: str
    ) -> tuple[StructureMotion, torch.Tensor]:
        """Return the flows, and pictures of them."""
        frames = _frames(images)
        digest = hashlib.sha256(f"{frames.shape} {fps} {engine} {quality} {_versions()}".encode())
        digest.update(frames.data)
        archive = _cache_folder() / f"{digest.hexdigest()}.npz"
        try:
            flows = sf.open_flows(archive)
        except sf.StructureFlowError:
            # not there, or of no use
            flows = sf.save_flows(sf.extract_flows_of_frames(frames, fps=fps, engine=engine, quality=quality), archive)
        return StructureMotion(flows, frames), _flow_pictures(flows)


class StructureFlowsFromFile:
    """The motion of a video file, whose frames need not be loaded."""

    DESCRIPTION = "Computes the optical flow of a video file, once: it is found again on disk."
    RETURN_TYPES = (FLOWS, "IMAGE")
    RETURN_NAMES = ("flows", "flow_pictures")
    OUTPUT_TOOLTIPS = StructureFlowsFromImages.OUTPUT_TOOLTIPS
    FUNCTION = "extract"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Declare the inputs."""
        return {
            "required": {
                "video": ("STRING", {"default": "", "tooltip": "Path of the file, on ComfyUI's machine."}),
                **_engine(),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, video: str | None) -> bool | str:  # noqa: N802 - ComfyUI's name
        """Say before anything runs that there is no such file; one that another node names is not known yet."""
        return True if video is None or _path(video).is_file() else f"video: expected a file, got {video!r}"

    @classmethod
    def IS_CHANGED(cls, video: str | None, engine: str, quality: str) -> str:  # noqa: N802 - ComfyUI's name
        """Tell another file under the same name; of one that another node names, ComfyUI sees that itself."""
        if video is None:
            return ""
        status = _path(video).stat()
        return f"{status.st_mtime_ns} {status.st_size} {engine} {quality}"

    def extract(self, video: str, engine: str, quality: str) -> tuple[StructureMotion, torch.Tensor]:
        """Return the flows, and pictures of them."""
        path = _path(video)
        flows = sf.extract_flows(path, cache=_cache_folder(), engine=engine, quality=quality)
        return StructureMotion(flows, path), _flow_pictures(flows)


class StructureGuide:
    """Key frames carried along the motion: guide and mask for WanVaceToVideo."""

    DESCRIPTION = (
        "Puts key frames at their places and carries them through the frames between, along the structure video's "
        "motion. Connect to control_video and control_masks of WanVaceToVideo, with the same width, height and length."
    )
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("control_video", "control_masks")
    OUTPUT_TOOLTIPS = ("The guide: mid-grey where nothing is known.", "1: generate, 0: keep.")
    FUNCTION = "render"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Declare the inputs."""
        return {
            "required": {
                "flows": (FLOWS,),
                "keyframes": ("IMAGE", {"tooltip": "Pictures of any size; they are cut, not stretched."}),
                "positions": (
                    "STRING",
                    {
                        "default": "0, -1",
                        "tooltip": "Of each key frame: its number, or a range in which it is held, as 0-19. -1 is the "
                        "last frame.",
                    },
                ),
                "width": ("INT", _WIDTH),
                "height": ("INT", _HEIGHT),
                "length": ("INT", _LENGTH),
                "treatment": (["retime", "adjust", "clip"], {"default": "retime"}),
                "anchors": (["both", "start"], {"default": "both"}),
                "mask": (["visibility", "keyframes", "filled"], {"default": "visibility"}),
                "holes": (["grey", "warp"], {"default": "grey"}),
                "motion_strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, positions: str | None) -> bool | str:  # noqa: N802 - ComfyUI's name
        """Say before anything runs that a position is none; one that another node gives is not known yet."""
        if positions is not None:
            try:
                _ranges(positions)
            except ValueError as error:
                return str(error)
        return True

    def render(
        self,
        flows: StructureMotion,
        keyframes: torch.Tensor,
        positions: str,
        width: int,
        height: int,
        length: int,
        treatment: str,
        anchors: str,
        mask: str,
        holes: str,
        motion_strength: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return guide and mask."""
        places = _positions(positions, length)
        pictures = _frames(keyframes)
        if len(places) != len(pictures):
            raise ValueError(f"positions: expected one for each of {len(pictures)} key frames, got {len(places)}")
        options = sf.GuideOptions(
            treatment=treatment,
            anchors=anchors,
            motion_strength=motion_strength,
            # what Wan packs into one place: 16 pixels a side, and four frames after the first
            masking=sf.Masking(mask, holes, 16, 4),
        )
        guide = sf.render_guide(
            flows.flows,
            dict(zip(places, pictures, strict=True)),
            length,
            structure=flows.structure,
            size=(width, height),
            options=options,
        )
        return _image(guide.frames), torch.from_numpy(guide.masks.astype(np.float32) / 255)


class StructureTracks:
    """Points followed along the motion, for ComfyUI's track nodes."""

    DESCRIPTION = "Follows a grid of points of the first frame along the structure video's motion."
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("tracks",)
    OUTPUT_TOOLTIPS = ("JSON, for the input `tracks` of WanTrackToVideo or `track_coords` of WanMoveTracksFromCoords.",)
    FUNCTION = "follow"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Declare the inputs."""
        return {
            "required": {
                "flows": (FLOWS,),
                "width": ("INT", _WIDTH),
                "height": ("INT", _HEIGHT),
                "length": ("INT", _LENGTH),
                "columns": ("INT", {"default": 16, "min": 1, "max": 32, "step": 1}),
                "rows": ("INT", {"default": 9, "min": 1, "max": 32, "step": 1}),
                "form": (
                    list(_TRACK_FILES),
                    {"tooltip": "121 points a track, up to where it is last seen; or one for every frame."},
                ),
            }
        }

    def follow(
        self, flows: StructureMotion, width: int, height: int, length: int, columns: int, rows: int, form: str
    ) -> tuple[str]:
        """Return the tracks as JSON."""
        tracks = sf.track_points(
            flows.flows, length, grid=(columns, rows), structure=flows.structure, size=(width, height)
        )
        with tempfile.TemporaryDirectory(prefix="structureflow-") as folder:
            tracks.save(folder)
            return ((Path(folder) / _TRACK_FILES[form]).read_text(encoding="utf-8"),)


NODE_CLASS_MAPPINGS = {
    "StructureFlowsFromImages": StructureFlowsFromImages,
    "StructureFlowsFromFile": StructureFlowsFromFile,
    "StructureGuide": StructureGuide,
    "StructureTracks": StructureTracks,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "StructureFlowsFromImages": "Structure Flows (images)",
    "StructureFlowsFromFile": "Structure Flows (video file)",
    "StructureGuide": "Structure Guide",
    "StructureTracks": "Structure Tracks",
}


def _engine() -> dict[str, Any]:
    return {
        "engine": (["dis", "farneback"], {"default": "dis"}),
        "quality": (["fast", "balanced", "best"], {"default": "balanced"}),
    }


def _versions() -> str:
    import cv2

    return f"{sf.__version__} {cv2.__version__}"


def _cache_folder() -> Path:
    """Return where flows are kept: in ComfyUI's folder of the user, outside of it in that of temporary files."""
    try:
        import folder_paths
    except ImportError:
        return Path(tempfile.gettempdir()) / "structureflow"
    return Path(folder_paths.get_user_directory()) / "structureflow"


def _path(text: str) -> Path:
    """Return a path as people paste it: Windows copies paths in quotes."""
    return Path(text.strip().removeprefix('"').removesuffix('"'))


def _positions(text: str, length: int) -> list[tuple[int, int]]:
    """Read ``0, 5-9, -1`` as inclusive ranges of a clip of `length` frames.

    Raises:
        ValueError: a part is no place in it.
    """
    found = []
    for first, last in _ranges(text):
        begin, end = (number + length if number < 0 else number for number in (first, last))
        if not 0 <= begin <= end < length:
            raise ValueError(f"positions: expected places in {length} frames, got {first} to {last}")
        found.append((begin, end))
    return found


def _ranges(text: str) -> list[tuple[int, int]]:
    """Read ``0, 5-9, -1`` as pairs of numbers, of which a negative one counts from the end."""
    found = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"positions: expected numbers of frames, as in 0, 5-9, -1, got {part.strip()!r}")
        first, last = match[1], match[2] or match[1]
        found.append((int(first), int(last)))
    return found


def _frames(images: torch.Tensor) -> np.ndarray:
    """Return ComfyUI's images as ``(T, H, W, 3)`` uint8 RGB."""
    pixels = images[..., :3].detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.numpy())


def _image(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames.astype(np.float32) / 255)


def _flow_pictures(flows: sf.FlowSource) -> torch.Tensor:
    longest = sf.flow_normaliser(flows)
    meta = flows.meta
    chosen = np.linspace(0, meta.total_flows - 1, min(meta.total_flows, _MOST_PICTURES)).round().astype(int).tolist()
    painted = [sf.flow_to_rgb(flows.read("forward", index, index + 1)[0], longest) for index in chosen]
    return _image(np.stack(painted))
