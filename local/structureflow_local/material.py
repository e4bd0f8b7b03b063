"""What the files that a job names really hold: each is opened once, and no more is decoded than its first frames."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from structureflow.errors import CorruptMediaError, MediaLimitError, StructureFlowError
from structureflow.limits import MAX_IMAGE_BYTES, MAX_VIDEO_FRAMES, MAX_WORKING_GRID_PX
from structureflow.models.problems import counted
from structureflow.ordered import ordered_map
from structureflow.processors import usable_cpus

if TYPE_CHECKING:
    from structureflow import FlowMeta
    from structureflow.media.probe import VideoInfo

Role = Literal["structure", "guide", "image", "archive"]
#: What a field of a request names.
ROLES: Final[dict[str, Role]] = {
    "structure_video": "structure",
    "structure_video_path": "structure",
    "path": "structure",
    "flow_cache": "archive",
    "structure_flow_cache_url": "archive",
    "images": "image",
    "image": "image",
    "fade": "image",
    "video": "guide",
}
_AHEAD: Final = 2


@dataclass(frozen=True)
class Film:
    """A video that can be decoded.

    Attributes:
        path: of its file.
        info: what it says of itself.
        frames: how many it holds, by its packets.
    """

    path: Path
    info: VideoInfo
    frames: int

    def has(self, count: int) -> int:
        """Return how many of its first `count` frames there are; where packets say fewer, they are decoded.

        Raises:
            MediaError: it is damaged before.
        """
        if count <= self.frames:
            return count
        from structureflow import DecodeLimits, VideoReader

        with VideoReader(self.path, DecodeLimits(max_frames=MAX_VIDEO_FRAMES, min_frames=1)) as reader:
            return reader.skip(count)


@dataclass(frozen=True)
class Material:
    """What was found in files, by path and role: films, archives, and what is wrong with the others."""

    films: dict[tuple[Path, Role], Film]
    archives: dict[Path, FlowMeta]
    refused: dict[tuple[Path, Role], str]


def look_at(files: dict[tuple[Path, Role], None]) -> Material:
    """Open every file once, a few at a time."""
    found = Material({}, {}, {})
    if not files:
        return found
    with ThreadPoolExecutor(usable_cpus(), thread_name_prefix="look") as pool:
        for file, result in zip(files, ordered_map(files, _looked_at, _AHEAD, pool=pool), strict=True):
            if isinstance(result, str):
                found.refused[file] = result
            elif isinstance(result, Film):
                found.films[file] = result
            elif result is not None:
                found.archives[file[0]] = result
    return found


def _looked_at(file: tuple[Path, Role]) -> Film | FlowMeta | str | None:
    """Return what a file holds, or what is wrong with it; None of an image that is as it should be."""
    path, role = file
    looks: dict[Role, Callable[[Path], Film | FlowMeta | None]] = {
        "structure": _structure,
        "guide": _guide,
        "image": _image,
        "archive": _archive,
    }
    what = {"image": "an image", "archive": "a flow archive"}.get(role, "a video")
    try:
        if not path.stat().st_size:
            return f"expected {what}, got an empty file"
        return looks[role](path)
    except StructureFlowError as error:
        said = error.message.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
        return said if said.startswith("expected") else f"expected {what} that is whole, got one that is not: {said}"
    except OSError as error:
        return f"expected a file that can be read, got: {error.strerror}"


def _structure(path: Path) -> Film:
    film, damage = _film(path, 2)
    if damage is not None:
        raise CorruptMediaError(f"expected a whole video, got {counted(film.frames, 'frame')}: {damage}")
    return film


def _guide(path: Path) -> Film:
    return _film(path, 1)[0]


def _film(path: Path, least: int) -> tuple[Film, str | None]:
    from structureflow import DecodeLimits
    from structureflow.media.survey import survey_video

    found = survey_video(path, DecodeLimits(max_frames=MAX_VIDEO_FRAMES, min_frames=least))
    return Film(path, found.info, found.frames), found.damage


def _image(path: Path) -> None:
    from structureflow.media.still import open_image

    size_bytes = path.stat().st_size
    if size_bytes > MAX_IMAGE_BYTES:
        raise MediaLimitError(f"expected an image file of at most {MAX_IMAGE_BYTES} bytes, got {size_bytes}")
    with open_image(path.read_bytes(), what=path.name):
        pass


def _archive(path: Path) -> FlowMeta:
    from structureflow.flow.archive import open_flow_file

    archive = open_flow_file(path).within(MAX_WORKING_GRID_PX)
    archive.read("forward", 0, 1)
    return archive.meta
