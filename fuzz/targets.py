"""What is fuzzed: each target takes any bytes, and raises only if structureflow does what it must not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Final

import numpy as np

from fuzz.sealing import seal
from structureflow.errors import FlowCacheError, InvalidRequestError, RangeNotSatisfiableError
from structureflow.flow.archive import FlowArchive, open_flow_archive
from structureflow.flow.fields import MAX_DISPLACEMENT_PX, Direction
from structureflow.models.job import JobRequest
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix

#: Of one read: what a caller asks for is the caller's to bound.
_MOST_READ_BYTES: Final = 1 << 20
_TASK: Final = "t1"


class _Bytes:
    """One object in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        data = self._data
        start, stop = 0, len(data)
        if isinstance(byte_range, Suffix):
            start = max(0, stop - byte_range.length)
        elif byte_range is not None:
            start, stop = byte_range.start, min(stop, byte_range.stop)
            if start >= stop:
                raise RangeNotSatisfiableError(f"{key}: {start} is past {stop}")
        return StoredObject(data[start:stop], ObjectInfo(key, len(data), if_match or "e"), start)


def fuzz_archive(data: bytes) -> None:
    """Read a flow archive: typed errors only, and flows that are the same however they are read.

    The first byte says whether checksums are put right first.
    """
    if data[:1] and data[0] & 1:
        data = b"\0" + seal(data[1:])
    try:
        archive = open_flow_archive(_Bytes(data[1:]), "a", workers=1)
        _read(archive, data[1:])
    except FlowCacheError:
        return


def _read(archive: FlowArchive, data: bytes) -> None:
    meta = archive.meta
    # what reaches a job's record must be JSON in UTF-8
    told = [meta.engine, dict(meta.engine_params), meta.source_video, meta.source_identity, meta.original_fps]
    json.dumps([*told, meta.display_max_px, meta.scene_cuts], allow_nan=False, ensure_ascii=False).encode()
    assert len(meta.timestamps_s) == meta.total_flows + 1
    count = min(meta.total_flows, _MOST_READ_BYTES // (meta.height * meta.width * 8))
    if not count:
        return
    directions: tuple[Direction, ...] = ("forward", "backward") if meta.has_backward else ("forward",)
    for direction in directions:
        archive.expect(0, count)
        last = archive.read(direction, count - 1, count)
        whole = archive.read(direction, 0, count)
        assert whole.dtype == np.float32
        assert whole.shape == (count, meta.height, meta.width, 2)
        assert np.isfinite(whole).all()
        assert np.abs(whole).max() <= MAX_DISPLACEMENT_PX
        assert last.tobytes() == whole[-1:].tobytes()
    if not archive.seekable and count == meta.total_flows:
        _compare_with_numpy(archive, data)


def _compare_with_numpy(archive: FlowArchive, data: bytes) -> None:
    """Two readers of one archive must not see two things; that one of them refuses it is no matter."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            flows = loaded["flows"]
    except Exception:  # noqa: BLE001 - what numpy and zipfile raise on hostile bytes is theirs
        return
    with np.errstate(all="ignore"):
        seen = np.clip(flows.astype(np.float64), -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX).astype(np.float32)
    np.testing.assert_array_equal(archive.read("forward", 0, archive.meta.total_flows), seen)


def fuzz_request(data: bytes) -> None:
    """Parse a job request: typed errors only, and what was accepted is accepted again."""
    try:
        request = JobRequest.parse_json(data, expected_task_id=_TASK)
    except InvalidRequestError as error:
        json.dumps(error.as_dict(), ensure_ascii=True)
        return
    # the queries of URLs stay out of documents, so the request itself need not be the same
    document = request.to_document()
    again = JobRequest.parse_json(json.dumps(document).encode(), expected_task_id=_TASK)
    assert again.to_document() == document


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"archive": fuzz_archive, "request": fuzz_request}
