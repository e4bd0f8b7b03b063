"""Flows of video files and of frames in memory, for callers who have no job: extract them, keep them, open them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, optional
from structureflow.errors import (
    EngineUnavailableError,
    FlowCacheError,
    FlowError,
    InputNotFoundError,
    InvalidArgumentError,
)
from structureflow.extras import importing
from structureflow.files import new_file
from structureflow.flow.address import flow_address
from structureflow.flow.archive import FlowArchive, open_flow_archive, open_flow_file
from structureflow.flow.engines import DEFAULT_ENGINES, EngineName, FlowEngine, Quality
from structureflow.flow.extract import extract_from_frames, extract_to_archive, plan_extraction, plan_for_size
from structureflow.flow.raft_weights import RaftModel
from structureflow.flow.sources import ArrayFlows
from structureflow.media.limits import DecodeLimits
from structureflow.processors import usable_cpus
from structureflow.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from structureflow.media.decode import DecodedFrame

PathLike = str | os.PathLike[str]

_READ_BYTES: Final = 1 << 20
_DEFAULT_LIMITS: Final = DecodeLimits()

_ENGINE: Final = {
    "engine": arguments.text,
    "quality": arguments.text,
    "raft_weights": optional(arguments.path),
    "workers": optional(arguments.whole(1)),
}

_log = logging.getLogger(__name__)


@checked(
    video=arguments.path,
    archive=optional(arguments.path),
    cache=optional(arguments.path),
    **_ENGINE,
    limits=arguments.instance(DecodeLimits, "DecodeLimits"),
    on_frame=optional(arguments.function),
)
def extract_flows(
    video: PathLike,
    archive: PathLike | None = None,
    *,
    cache: PathLike | None = None,
    engine: EngineName = "dis",
    quality: Quality = "balanced",
    raft_weights: PathLike | None = None,
    limits: DecodeLimits = _DEFAULT_LIMITS,
    workers: int | None = None,
    on_frame: Callable[[DecodedFrame], None] | None = None,
) -> FlowArchive:
    """Compute the optical flow of a video once, in both directions, and return the archive that holds it.

    Args:
        video: a local file.
        archive: where the archive shall be (``.npz``); an older file there is replaced. Without it, and without
            `cache`, the archive is kept in memory: 0.1 to 0.2 MB a frame at the default quality.
        cache: a folder of archives, named by the video's bytes, engine and quality: what is there is opened, not
            computed again. Several processes may share it.
        engine: ``dis``, ``farneback``, or ``raft``, which needs PyTorch (extra ``raft``).
        quality: ``fast``, ``balanced`` or ``best``: the engine's settings and the size at which flow is computed.
        raft_weights: file of RAFT's weights, as torchvision publishes them; for ``raft`` only.
        limits: bounds of what is decoded.
        workers: CPU threads; None takes all that this process may use.
        on_frame: called once per frame, in order, from one other thread. Not where the archive was found in `cache`.

    Returns:
        An opened archive; a `FlowSource`.

    Raises:
        InputNotFoundError: there is no such video, or no weights.
        MediaError: it cannot be used; nothing is left behind.
        EngineUnavailableError: no such engine or quality, or it cannot run here.
        OutputError: `archive` or `cache` cannot be written.
        InvalidArgumentError: an argument of another type, or `archive` and `cache` are both given.

    >>> flows = extract_flows("clip.mp4", "clip.npz")
    >>> flows.meta.total_flows, flows.meta.engine
    (11, 'dis')
    >>> flows.read("forward", 0, 1).shape == (1, flows.meta.height, flows.meta.width, 2)
    True
    """
    # not with the module: flows of frames in memory need no decoder of videos
    with importing("extract_flows"):
        from structureflow.media.decode import VideoReader

    if archive is not None and cache is not None:
        raise InvalidArgumentError("expected archive or cache, got both")
    path = Path(video)
    identity = _digest(path, "video")
    runner = _runner(engine, quality, raft_weights)
    count = workers or usable_cpus()

    def extract(target: Path) -> None:
        with VideoReader(path, limits, threads=count) as reader:
            plan = plan_extraction(reader.info, engine, quality)
        extract_to_archive(
            path,
            target,
            plan,
            source_video=path.name,
            source_identity=identity,
            limits=limits,
            workers=count,
            on_frame=on_frame,
            engine=runner,
        )

    if cache is not None:
        weights = None if runner is None else _other_weights(runner, engine, quality)
        return _cached(Path(cache) / f"{flow_address(identity, engine, quality, weights=weights)}.npz", extract)
    if archive is not None:
        with new_file(archive, "archive") as scratch:
            extract(scratch)
        return open_flow_file(Path(archive))
    with TemporaryDirectory(prefix="structureflow-") as folder:
        target = Path(folder) / "flows.npz"
        extract(target)
        store = MemoryStorage()
        store.put_file(target.name, target)
    return open_flow_archive(store, target.name)


@checked(
    frames=arguments.iterable("pictures, (H, W, 3) uint8 RGB each"),
    fps=arguments.number(above=0),
    **_ENGINE,
)
def extract_flows_of_frames(
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: float = 16.0,
    engine: EngineName = "dis",
    quality: Quality = "balanced",
    raft_weights: PathLike | None = None,
    workers: int | None = None,
) -> ArrayFlows:
    """Compute the optical flow of frames in memory, in both directions; otherwise as `extract_flows`.

    Args:
        frames: at least two, each ``(H, W, 3)`` uint8 RGB, of one size; read as they are needed.
        fps: frames per second.
        engine, quality, raft_weights, workers: as `extract_flows`.

    Returns:
        A `FlowSource` in memory: 8 bytes per pixel of the working size, frame and direction.

    Raises:
        FlowError: fewer than two frames, of different sizes, or smaller than 32 pixels a side.
        EngineUnavailableError: as `extract_flows`.

    >>> import numpy as np
    >>> picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    >>> flows = extract_flows_of_frames([picture, np.roll(picture, 2, axis=1)])
    >>> flows.meta.total_flows, flows.meta.has_backward
    (1, True)
    """
    waiting = iter(frames)
    first = next(waiting, None)
    if first is None:
        raise FlowError("frames: expected (H, W, 3) uint8 RGB, got none")
    arguments.picture(first, "frames")
    height, width = first.shape[:2]
    plan = plan_for_size(height, width, engine, quality)

    def all_frames() -> Iterable[NDArray[np.uint8]]:
        yield first
        for frame in waiting:
            arguments.picture(frame, "frames")
            yield frame

    return extract_from_frames(
        all_frames(),
        plan,
        original_fps=fps,
        workers=workers or usable_cpus(),
        engine=_runner(engine, quality, raft_weights),
    )


@checked(archive=arguments.path)
def open_flows(archive: PathLike) -> FlowArchive:
    """Open a flow archive that is a local file: one of ours, or any ``.npz`` with `flows` ``(N, h, w, 2)``.

    Flows are read when they are asked for, and only those. An archive in a store is opened by
    `structureflow.flow.archive.open_flow_archive`.

    Raises:
        InputNotFoundError: no such file.
        FlowCacheError: it is no flow archive, or damaged.

    >>> open_flows("flows.npz").meta.total_flows
    11
    """
    return open_flow_file(Path(archive))


def _cached(path: Path, extract: Callable[[Path], None]) -> FlowArchive:
    try:
        return open_flow_file(path)
    except InputNotFoundError:
        _log.debug("%s is not there yet", path)
    except FlowCacheError as error:
        _log.warning("%s is of no use and is made anew: %s", path, error)
    with new_file(path, "cache") as scratch:
        extract(scratch)
    return open_flow_file(path)


def _other_weights(runner: FlowEngine, engine: str, quality: str) -> str | None:
    """Return the name of a network's weights where they are others than the preset names."""
    found = str(runner.params()["weights"])
    return None if found == DEFAULT_ENGINES.preset(engine, quality).params["weights"] else found


def _digest(video: Path, argument: str) -> str:
    digest = hashlib.sha256()
    try:
        with video.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise InputNotFoundError(f"{argument}: {video} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _runner(engine: str, quality: str, weights: PathLike | None) -> FlowEngine | None:
    """Return what runs the engine where it is not one of OpenCV's."""
    preset = DEFAULT_ENGINES.preset(engine, quality)
    if engine != "raft":
        if weights is not None:
            raise EngineUnavailableError(f"raft_weights: expected with engine raft only, got {engine}")
        return None
    if weights is None:
        raise EngineUnavailableError("raft: expected raft_weights, the file of its weights")
    # PyTorch is imported when it runs
    from structureflow.flow.raft import RaftEngine

    return RaftEngine(
        model=cast("RaftModel", preset.params["model"]),
        weights=Path(weights),
        weights_sha256=_digest(Path(weights), "raft_weights"),
        iterations=int(preset.params["iterations"]),
    )
