"""Flows to and from other programs: folders of ``.flo`` or KITTI's PNG files, and plain ``.npz`` files.

A folder has ``forward/000000.flo`` and so on, ``backward/…`` where that direction is there, and ``flows.json``, which
says what the files cannot: times, the video's size, scene cuts, engine. A file of flow ``t`` has the number ``t``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from structureflow import arguments
from structureflow.arguments import checked, optional
from structureflow.errors import FlowError, InputNotFoundError
from structureflow.files import made_folder, new_file
from structureflow.flow.archive import FlowArchive, FlowArchiveWriter, open_flow_file
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.archive.metadata import metadata_arrays
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.flow.image_files import Valid, read_flo, read_kitti, write_flo, write_kitti
from structureflow.flow.sources import flow_source

PathLike = str | os.PathLike[str]
FlowFormat = Literal["flo", "kitti", "npz"]

#: Flows that are read, or written, at a time.
_CHUNK_BYTES: Final = 64 * 2**20
_MAX_JSON_BYTES: Final = 4 * 2**20
_LIMITS: Final = FlowLimits()
_DIRECTIONS: Final[tuple[Direction, ...]] = ("forward", "backward")
_MEMBERS: Final = {"forward": "flows", "backward": "flows_backward"}
_NUMBER: Final = re.compile(r"(\d+)(?!.*\d)")
#: What an imported folder is of where nothing says so.
_UNKNOWN_FPS: Final = 16.0
_MAX_FPS: Final = 1000.0

Reader = Callable[[Path], tuple[Field32, Valid]]


@dataclass(frozen=True, slots=True)
class _FileKind:
    suffix: str
    read: Reader
    write: Callable[[Path, Field32], None]


_KINDS: Final = {"flo": _FileKind(".flo", read_flo, write_flo), "kitti": _FileKind(".png", read_kitti, write_kitti)}


@checked(flows=flow_source, target=arguments.path, form=arguments.text)
def export_flows(flows: FlowSource, target: PathLike, form: FlowFormat) -> list[Path]:
    """Write flows as files that other programs read; memory does not grow with their number.

    Args:
        flows: an archive, or any source of flows.
        target: of ``flo`` and ``kitti``, a folder, which must be empty or not there; of ``npz``, a file.
        form: ``flo`` (Middlebury, float32), ``kitti`` (PNG, 1/64 pixel), ``npz`` (what `numpy.savez_compressed` writes,
            of float32, with what is known of the flows beside them).

    Returns:
        The files that were written, those of the flows first.

    Raises:
        FlowError: the folder is not empty, or a vector does not fit into the format; nothing is left of it then.
        OutputError: the target cannot be written.
        FlowCacheError: the source cannot be read.

    >>> files = export_flows(open_flows("flows.npz"), "flows", "flo")
    >>> [file.as_posix() for file in files[:2]]
    ['flows/forward/000000.flo', 'flows/forward/000001.flo']
    """
    if form == "npz":
        return [_write_npz(flows, Path(target))]
    if form not in _KINDS:
        raise FlowError(f"form: expected flo, kitti or npz, got {form!r:.40}")
    folder = Path(target)
    with made_folder(folder, "target"):
        if any(folder.iterdir()):
            raise FlowError(f"target: expected an empty folder, or none, got {folder}")
        try:
            return _write_folder(flows, folder, _KINDS[form])
        except BaseException:
            for found in folder.iterdir():
                shutil.rmtree(found) if found.is_dir() else found.unlink()
            raise


@checked(
    source=arguments.path,
    archive=arguments.path,
    fps=optional(arguments.number(above=0, most=_MAX_FPS)),
    size=optional(arguments.size),
)
def import_flows(
    source: PathLike,
    archive: PathLike,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> FlowArchive:
    """Make a flow archive of what another program wrote; memory does not grow with the number of flows.

    Args:
        source: a folder as `export_flows` writes it; or a folder of ``.flo`` or PNG files of forward flows, in the
            order of the numbers in their names; or a ``.npz`` with `flows` ``(N, h, w, 2)`` of any float type.
        archive: the archive to write; an older file there is replaced.
        fps: of the video, where the source does not say it; default 16.
        size: of the video, (width, height) in pixels, where the source does not say it; default that of the flows.

    Returns:
        The archive, opened. Vectors are rounded to 1/16 pixel. Where a file says that a vector is unknown, it is 0.

    Raises:
        InputNotFoundError: there is no such file or folder.
        FlowError: it holds no flows, or flows of different sizes; nothing is written then.
        OutputError: the archive cannot be written.

    >>> imported = import_flows("flows.npz", "again.npz")
    >>> imported.meta.total_flows, imported.meta.has_backward
    (11, True)
    """
    path, target = Path(source), Path(archive)
    if path.is_dir():
        return _from_folder(path, target, fps, size)
    opened = open_flow_file(path)
    meta = opened.meta
    notes = _described(meta)
    if fps is not None and not _says(opened, "original_fps"):
        notes["original_fps"] = fps
        if not _says(opened, "timestamps_s"):
            notes.pop("timestamps_s")
    if size is not None and not _says(opened, "original_resolution"):
        notes["original_resolution"] = list(size)
    backward = (flow for _, flow in _each(opened, "backward")) if meta.has_backward else None
    forward = (flow for _, flow in _each(opened, "forward"))
    return _written(target, (meta.height, meta.width), forward, backward, notes, opened.meta.total_flows)


@checked(flows=flow_source, archive=arguments.path)
def save_flows(flows: FlowSource, archive: PathLike) -> FlowArchive:
    """Write flows of any source as an archive, such as those of frames in memory; an older file there is replaced.

    Returns:
        The archive, opened. Vectors are rounded to 1/16 pixel.

    Raises:
        FlowError, FlowCacheError: the source cannot be read, or has more than an archive may hold.
        OutputError: the archive cannot be written.

    >>> save_flows(open_flows("flows.npz"), "copy.npz").meta.total_flows
    11
    """
    meta = flows.meta
    backward = (flow for _, flow in _each(flows, "backward")) if meta.has_backward else None
    forward = (flow for _, flow in _each(flows, "forward"))
    return _written(Path(archive), (meta.height, meta.width), forward, backward, _described(meta), meta.total_flows)


# --- out ---------------------------------------------------------------------------------------------


def _write_folder(flows: FlowSource, folder: Path, kind: _FileKind) -> list[Path]:
    files: list[Path] = []
    for direction in _directions(flows.meta):
        place = folder / direction
        place.mkdir()
        for index, flow in _each(flows, direction):
            file = place / f"{index:06d}{kind.suffix}"
            kind.write(file, flow)
            files.append(file)
    notes = folder / "flows.json"
    notes.write_text(json.dumps(_described(flows.meta), indent=1), encoding="utf-8")
    return [*files, notes]


def _directions(meta: FlowMeta) -> tuple[Direction, ...]:
    return _DIRECTIONS if meta.has_backward else ("forward",)


def _each(flows: FlowSource, direction: Direction) -> Iterator[tuple[int, Field32]]:
    meta = flows.meta
    step = max(1, _CHUNK_BYTES // (meta.height * meta.width * 8))
    for first in range(0, meta.total_flows, step):
        yield from enumerate(flows.read(direction, first, min(meta.total_flows, first + step)), first)


def _described(meta: FlowMeta) -> dict[str, Any]:
    return {
        "total_flows": meta.total_flows,
        "original_fps": meta.original_fps,
        "original_resolution": [meta.original_width, meta.original_height],
        "timestamps_s": [float(time) for time in meta.timestamps_s],
        "scene_cuts": list(meta.scene_cuts),
        "engine": meta.engine,
        "engine_params": dict(meta.engine_params),
        "source_video": meta.source_video,
        "source_identity": meta.source_identity,
        "display_max_px": meta.display_max_px,
    }


def _write_npz(flows: FlowSource, target: Path) -> Path:
    """Write what `numpy.load` reads, without holding all flows at once as `numpy.savez` would."""
    meta = flows.meta
    with (
        new_file(target, "target") as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as pack,
    ):
        for direction in _directions(meta):
            with pack.open(f"{_MEMBERS[direction]}.npy", "w", force_zip64=True) as member:
                shape = (meta.total_flows, meta.height, meta.width, 2)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for _, flow in _each(flows, direction):
                    member.write(np.ascontiguousarray(flow, "<f4").data)
        for name, value in metadata_arrays(meta).items():
            # A plain archive is of no version of ours.
            if name != "format_version":
                with pack.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)
    return target


# --- in ----------------------------------------------------------------------------------------------


def _from_folder(folder: Path, target: Path, fps: float | None, size: tuple[int, int] | None) -> FlowArchive:
    forward_folder = folder / "forward" if (folder / "forward").is_dir() else folder
    kind, files = _files(forward_folder)
    backward: list[Path] | None = None
    if (folder / "backward").is_dir():
        other, backward = _files(folder / "backward")
        if other != kind or len(backward) != len(files):
            raise FlowError(f"{folder}: expected as many backward flows as forward ones ({len(files)}), of one kind")
    read = _KINDS[kind].read
    height, width = read(files[0])[0].shape[:2]
    notes = _guessed(fps, size, height, width) | {"engine": "imported"} | _notes(folder / "flows.json")

    def flows(paths: list[Path]) -> Iterator[Field32]:
        return (read(path)[0] for path in paths)

    return _written(
        target,
        (height, width),
        flows(files),
        None if backward is None else flows(backward),
        notes,
        len(files),
    )


def _files(folder: Path) -> tuple[str, list[Path]]:
    """Return the kind of a folder's flow files, and the files by number."""
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: expected a folder")
    found = {kind: sorted(folder.glob(f"*{files.suffix}"), key=_number) for kind, files in _KINDS.items()}
    kinds = [kind for kind, files in found.items() if files]
    if len(kinds) != 1:
        raise FlowError(f"{folder}: expected files of one kind, .flo or .png, got {'both' if kinds else 'none'}")
    return kinds[0], found[kinds[0]]


def _number(path: Path) -> tuple[int, str]:
    found = _NUMBER.search(path.stem)
    return (int(found[1]) if found else -1, path.name)


def _notes(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_JSON_BYTES))
    except ValueError as error:
        raise FlowError(f"{path}: expected what export_flows writes, got no JSON: {error}") from error
    if not isinstance(found, dict):
        raise FlowError(f"{path}: expected what export_flows writes, got {type(found).__name__}")
    return found


def _guessed(fps: float | None, size: tuple[int, int] | None, height: int, width: int) -> dict[str, Any]:
    return {"original_fps": fps or _UNKNOWN_FPS, "original_resolution": list(size or (width, height))}


def _says(archive: FlowArchive, name: str) -> bool:
    return f"{name}.npy" in archive.members


def _written(
    target: Path,
    grid: tuple[int, int],
    forward: Iterator[Field32],
    backward: Iterator[Field32] | None,
    notes: dict[str, Any],
    total: int,
) -> FlowArchive:
    if total > _LIMITS.max_flows:
        raise FlowError(f"expected at most {_LIMITS.max_flows} flows, got {total}")
    try:
        fps = float(notes["original_fps"])
        width, height = (int(side) for side in notes["original_resolution"])
        times = np.asarray(notes.get("timestamps_s") or np.arange(total + 1) / fps, np.float64)
        cuts = tuple(int(cut) for cut in notes.get("scene_cuts", ()))
        engine, params = str(notes.get("engine", "imported")), dict(notes.get("engine_params", {}))
        display_max_px = float(notes.get("display_max_px", 0.0))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise FlowError(f"flows.json: expected what export_flows writes: {error}") from error
    if not 0 < fps <= _MAX_FPS or min(width, height) < 1:
        raise FlowError(
            f"flows.json: expected a rate up to {_MAX_FPS:g} and sides of 1 or more, got {fps} and {width}x{height}"
        )
    with (
        new_file(target, "archive") as part,
        FlowArchiveWriter(part, height=grid[0], width=grid[1], backward=backward is not None) as writer,
    ):
        for flow in forward:
            writer.feed(flow, None if backward is None else next(backward))
        writer.finish(
            original_height=height,
            original_width=width,
            original_fps=fps,
            engine=engine,
            engine_params=params,
            timestamps_s=times,
            scene_cuts=cuts,
            display_max_px=display_max_px,
            source_video=str(notes.get("source_video", "")),
            source_identity=str(notes.get("source_identity", "")),
        )
    return open_flow_file(target)
