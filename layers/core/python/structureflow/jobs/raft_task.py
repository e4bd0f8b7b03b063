"""Carry out an order with RAFT: weights, video, and the same extraction as the orchestrator's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from structureflow.errors import JobStateError, ModelWeightsError
from structureflow.flow.engines import DEFAULT_ENGINES, EnginePreset
from structureflow.flow.progress import ReportingEngine
from structureflow.flow.raft import Device, Precision, RaftEngine
from structureflow.flow.raft_weights import RaftModel, weights_name
from structureflow.jobs.extract_job import commit_cached, extract_and_commit, finish_commit
from structureflow.jobs.extraction_order import committed_record, load_order, look_up, order_source
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.results import JobRecord
from structureflow.references import Reference

__all__ = ["MODEL_FIELD", "Progress", "RaftOptions", "carry_out_order"]

#: Stands for the model's name in `RaftOptions.weights`.
MODEL_FIELD: Final = "{model}"


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """How a machine runs RAFT; what it computes is the order's business.

    Attributes:
        weights: absolute path, or a reference as in requests (``s3://`` of an allowed bucket, or a key of the data
            bucket); `MODEL_FIELD` in it stands for ``raft_large`` or ``raft_small``.
        weights_sha256: the checksum of each model's weights that there are.
        batch_pairs, memory_bytes, device, precision: as `RaftEngine`.
    """

    weights: str
    weights_sha256: Mapping[RaftModel, str]
    batch_pairs: int = 8
    memory_bytes: int | None = None
    device: Device = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an extraction is; `frames_total` is 0 where the video promises no number."""

    frames_done: int
    frames_total: int
    pairs_per_s: float


def carry_out_order(
    key: str, options: RaftOptions, services: Services, *, report: Callable[[Progress], None]
) -> JobRecord:
    """Extract what the order at `key` asks for, and start its segments.

    Returns:
        The job's record; the one that is there, and no work is done, if the run is committed already.

    Raises:
        JobStateError: there is no such order, it is not for RAFT, or (`SupersededRunError`) its job began anew.
        ModelWeightsError: the weights are missing, or not those that the checksum names.
        MediaError, InputNotFoundError, EngineUnavailableError, FlowError: as `extract_and_commit`.
        TransientError: a later try may succeed.
    """
    order = load_order(services.storage, key)
    if order.engine != "raft":
        raise JobStateError(f"{key}: expected an order for raft, got one for {order.engine!r:.40}")
    committed = committed_record(services.storage, order)
    if committed is not None:
        finish_commit(order, committed, services)
        return committed
    preset = DEFAULT_ENGINES.preset("raft", order.request.quality)
    model = cast("RaftModel", preset.params["model"])
    weights = weights_name(_checksum(model, options))
    if weights != preset.params["weights"]:
        # The orchestrator looked for flows by the preset's weights only.
        order, meta = look_up(order.model_copy(update={"weights": weights}), services)
        if meta is not None:
            return commit_cached(order, meta, services)
    source = order_source(order, services)
    with services.scratch() as folder:
        engine = _engine(preset, model, options, services, folder)
        video = folder / "structure_video"
        begin = time.perf_counter()
        source = source.fetch(video)
        timings_s = order.timings_s | {"download": round(time.perf_counter() - begin, 3)}
        with VideoReader(video, DecodeLimits(max_frames=services.max_video_frames)) as reader:
            frames = reader.info.frames

        def tell(pairs: int, elapsed_s: float) -> None:
            report(Progress(pairs + 1, frames, round(pairs / elapsed_s, 2) if elapsed_s > 0 else 0.0))

        return extract_and_commit(
            order.model_copy(update={"timings_s": timings_s}),
            source,
            services,
            engine=ReportingEngine(engine, tell),
            fetched=video,
        )


def _checksum(model: RaftModel, options: RaftOptions) -> str:
    if model not in options.weights_sha256:
        known = ", ".join(sorted(options.weights_sha256)) or "none"
        raise ModelWeightsError(f"weights of {model}: no checksum is set; there are: {known}", model=model)
    return options.weights_sha256[model]


def _engine(
    preset: EnginePreset, model: RaftModel, options: RaftOptions, services: Services, folder: Path
) -> RaftEngine:
    place = options.weights.replace(MODEL_FIELD, model)
    path = Path(place)
    if not path.is_absolute():
        path = folder / f"{model}.pth"
        services.inputs.find(Reference(place)).fetch(path)
    return RaftEngine(
        model=model,
        weights=path,
        weights_sha256=options.weights_sha256[model],
        iterations=int(preset.params["iterations"]),
        batch_pairs=options.batch_pairs,
        memory_bytes=options.memory_bytes,
        device=options.device,
        precision=options.precision,
    )
