"""Encode one segment's frames as H.264 and close the segment with its result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import JobStateError, ObjectNotFoundError, StructureFlowError
from structureflow.jobs.documents import get_document, put_document
from structureflow.jobs.services import Services
from structureflow.media.encode import encode_h264, encode_mask
from structureflow.media.handover import HandoverReader, Planes
from structureflow.models.results import OutputObject, SegmentResult

_MP4 = "video/mp4"


class EncodeSegmentInput(BaseModel):
    """Which segment of which run; without `run_id`, of the run that the job's record names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str | None = None
    index: int


class EncodedSegment(BaseModel):
    """What the step says of itself; the result itself is in the bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    index: int
    frames: int
    result_key: str


def encode_segment(event: EncodeSegmentInput, services: Services) -> EncodedSegment:
    """Encode ``guide.mp4`` and ``mask.mp4`` of a segment, then write its ``result.json``.

    Raises:
        JobStateError: RenderSegment left nothing, or left it for another run.
        HandoverError: the frames arrived damaged.
        EncodeError: the encoder failed.
    """
    try:
        return _encode(event, services)
    except StructureFlowError as error:
        raise error.within(f"segment {event.index}") from error


def _encode(event: EncodeSegmentInput, services: Services) -> EncodedSegment:
    storage, task_id, index = services.storage, event.task_id, event.index
    rendered = get_document(
        storage, keys.work_file(task_id, index, "render.json"), SegmentResult, made_by="RenderSegment"
    )
    if event.run_id not in (None, rendered.run_id):
        raise JobStateError(f"expected frames of run {event.run_id}, got those of run {rendered.run_id}")
    timings = dict(rendered.timings_s)
    outputs: dict[str, OutputObject] = {}
    with services.scratch() as folder:
        begin = time.perf_counter()
        for name in ("guide", *rendered.extra_outputs):
            source = keys.handover_name(name)
            handed = _fetch(services, event, source, folder / source)
            outputs[name] = _encode_one(services, event, handed, folder, name, rendered)
            if name == "guide":
                with HandoverReader(handed) as reader:
                    masks = reader.masks()
                mask = folder / "mask.mp4"
                encode_mask(masks, mask, height=rendered.height_px, width=rendered.width_px, fps=rendered.fps)
                outputs["mask"] = _store(services, event, mask)
            handed.unlink()
        timings["encode"] = round(time.perf_counter() - begin, 3)
    result = rendered.model_copy(
        update={
            "outputs": outputs,
            "timings_s": timings,
            "usage": rendered.usage + services.usage("EncodeSegment"),
        }
    )
    result_key = keys.segment_file(task_id, index, "result.json")
    put_document(storage, result_key, result)
    return EncodedSegment(task_id=task_id, index=index, frames=result.frames, result_key=result_key)


def _fetch(services: Services, event: EncodeSegmentInput, name: str, path: Path) -> Path:
    key = keys.work_file(event.task_id, event.index, name)
    try:
        services.storage.get_to_file(key, path)
    except ObjectNotFoundError as error:
        raise JobStateError(f"{key}: expected from RenderSegment, but it is not there") from error
    return path


def _encode_one(
    services: Services, event: EncodeSegmentInput, handed: Path, folder: Path, name: str, rendered: SegmentResult
) -> OutputObject:
    path = folder / f"{name}.mp4"
    with HandoverReader(handed) as reader:
        encode_h264(
            _planes(reader),
            path,
            height=rendered.height_px,
            width=rendered.width_px,
            fps=rendered.fps,
            threads=services.workers,
        )
    return _store(services, event, path)


def _planes(reader: HandoverReader) -> Iterator[Planes]:
    for frame in reader:
        yield frame.planes


def _store(services: Services, event: EncodeSegmentInput, path: Path) -> OutputObject:
    info = services.storage.put_file(keys.segment_file(event.task_id, event.index, path.name), path, content_type=_MP4)
    return OutputObject(key=info.key, size_bytes=info.size_bytes, etag=info.etag)
