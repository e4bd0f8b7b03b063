"""How archives are read: limits, requests, ranges, caches; and what their writer refuses."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheFormatError,
    FlowCacheLimitError,
    FlowError,
    ObjectNotFoundError,
)
from structureflow.flow.archive import (
    TAIL_BYTES,
    FlowArchiveWriter,
    FlowLimits,
    open_flow_archive,
    open_flow_file,
)
from structureflow.flow.sources import ArrayFlows
from structureflow.storage.base import ByteRange, StoredObject, Suffix
from structureflow.testing.flows import BytesReader, archive_bytes, smooth_flows

FLOWS = smooth_flows(6, 24, 32, seed=3)
STORED = archive_bytes(FLOWS, -FLOWS, scene_cuts=(2,))


def _read_all(data: bytes, *, limits: FlowLimits | None = None) -> tuple[Any, bytes, bytes]:
    archive = open_flow_archive(BytesReader({"a": data}), "a", limits=limits)
    meta = archive.meta
    return (
        (meta.total_flows, meta.scene_cuts, meta.engine, meta.original_fps, meta.timestamps_s.tobytes()),
        archive.read("forward", 0, meta.total_flows).tobytes(),
        archive.read("backward", 0, meta.total_flows).tobytes() if meta.has_backward else b"",
    )


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_limits_hold() -> None:
    for limits in (
        FlowLimits(max_flows=5),
        FlowLimits(max_side_px=31),
        FlowLimits(max_grid_px=24 * 32 - 1),
        FlowLimits(max_members=5),
        FlowLimits(max_tail_bytes=100),
        FlowLimits(max_read_bytes=6 * 24 * 32 * 8 - 1),
    ):
        with pytest.raises(FlowCacheLimitError):
            _read_all(STORED, limits=limits)
    plain = _npz(flows=FLOWS)
    for limits in (FlowLimits(max_flows=5), FlowLimits(max_side_px=31), FlowLimits(max_stream_bytes=1000)):
        with pytest.raises(FlowCacheLimitError):
            _read_all(plain, limits=limits)


def test_an_overwritten_object_does_not_tear() -> None:
    large = np.random.default_rng(0).normal(0, 5, (40, 48, 64, 2))
    reader = BytesReader({"a": archive_bytes(large)})
    archive = open_flow_archive(reader, "a")
    reader.objects["a"] = archive_bytes(large[::-1])
    with pytest.raises(FlowCacheCorruptError, match="overwritten"):
        archive.read("forward", 0, 3)


def test_a_store_that_breaks_off_is_noticed() -> None:
    class Short(BytesReader):
        def get(
            self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
        ) -> StoredObject:
            stored = super().get(key, byte_range=byte_range, if_match=if_match)
            return StoredObject(stored.data[:-1], stored.info, stored.start) if self.log[1:] else stored

    large = np.random.default_rng(0).normal(0, 5, (40, 48, 64, 2))
    archive = open_flow_archive(Short({"a": archive_bytes(large)}), "a")
    with pytest.raises(FlowCacheFormatError, match=r"expected \d+ bytes"):
        archive.read("forward", 0, 3)


def test_requests_are_one_for_the_tail_and_one_per_range() -> None:
    flows = np.random.default_rng(0).normal(0, 5, (60, 48, 64, 2))
    stored = archive_bytes(flows, -flows)
    assert len(stored) > 2 * TAIL_BYTES
    reader = BytesReader({"a": stored})
    archive = open_flow_archive(reader, "a")
    assert [entry[1] for entry in reader.log] == [Suffix(TAIL_BYTES)]
    archive.read("forward", 10, 20)
    assert archive.requests == len(reader.log) == 2
    archive.read("backward", 0, 10)
    assert archive.requests == len(reader.log) == 3
    assert reader.log[1][2] < len(stored) / 2 * 11 / 60


def test_an_expected_range_is_fetched_once_per_direction_and_its_checksums_hold() -> None:
    flows = np.random.default_rng(0).normal(0, 5, (120, 48, 64, 2))
    stored = archive_bytes(flows, -flows)
    reader = BytesReader({"a": stored})
    archive = open_flow_archive(reader, "a")
    archive.expect(10, 40)
    for start in (30, 10, 20):
        archive.read("forward", start, start + 4)
        archive.read("backward", start, start + 4)
    assert len(reader.log) == 3
    archive.read("forward", 38, 42)
    assert len(reader.log) == 4, "what goes beyond the range is read as it is asked for"
    with pytest.raises(FlowError):
        archive.expect(100, 121)
    damaged = bytearray(stored)
    damaged[len(stored) // 8] ^= 1  # a forward flow before the 40th
    archive = open_flow_archive(BytesReader({"a": bytes(damaged)}), "a")
    archive.expect(0, 40)
    with pytest.raises(FlowCacheCorruptError, match="CRC-32"):
        list(map(functools.partial(archive.read, "forward"), range(40), range(1, 41)))


def test_a_long_expected_range_is_fetched_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    flows = np.random.default_rng(0).normal(0, 5, (120, 48, 64, 2))
    reader = BytesReader({"a": archive_bytes(flows)})
    monkeypatch.setattr("structureflow.flow.archive.seekable.WINDOW_BYTES", 100_000)
    archive = open_flow_archive(reader, "a")
    archive.expect(0, 60)
    expected = open_flow_archive(BytesReader(reader.objects), "a").read("forward", 0, 60)
    for start in (*range(59), *range(58, -1, -1)):
        assert (archive.read("forward", start, start + 2) == expected[start : start + 2]).all()
    sizes = [size for _, _, size in reader.log[1:]]
    windows = -(-60 * 9_000 // 100_000)
    assert max(sizes) <= 100_000
    # there and back, but for the two windows held at the turn
    assert windows <= len(sizes) <= 3 * windows
    before = len(reader.log)
    assert (archive.read("forward", 0, 60) == expected).all()
    assert len(reader.log) == before + 1, "longer than two windows: one request, as without them"


def test_a_small_archive_is_read_with_one_request() -> None:
    reader = BytesReader({"a": STORED})
    archive = open_flow_archive(reader, "a")
    archive.read("backward", 0, 6)
    assert len(reader.log) == 1


def test_a_seek_table_longer_than_the_tail_costs_one_request_more() -> None:
    flows = np.zeros((9000, 1, 1, 2), np.float32)
    flows[:, 0, 0, 0] = np.arange(9000) % 50
    reader = BytesReader({"a": archive_bytes(flows)})
    archive = open_flow_archive(reader, "a")
    np.testing.assert_array_equal(archive.read("forward", 4000, 4100)[:, 0, 0, 0], np.arange(4000, 4100) % 50)
    assert len(reader.log) <= 3


def test_a_missing_object_is_no_bad_archive(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError):
        open_flow_archive(BytesReader({}), "a")
    with pytest.raises(FileNotFoundError):
        open_flow_file(tmp_path / "none.npz")


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 7), (3, 3), (4, 2)])
def test_ranges_outside_are_refused(start: int, stop: int) -> None:
    archive = open_flow_archive(BytesReader({"a": STORED}), "a")
    with pytest.raises(FlowError, match="expected 0 <= start"):
        archive.read("forward", start, stop)
    arrays = ArrayFlows(archive.meta, archive.read("forward", 0, 6), archive.read("backward", 0, 6))
    with pytest.raises(FlowError, match="expected 0 <= start"):
        arrays.read("backward", start, stop)


def test_an_absent_direction_is_refused() -> None:
    archive = open_flow_archive(BytesReader({"a": archive_bytes(FLOWS)}), "a")
    with pytest.raises(FlowError, match="only forward"):
        archive.read("backward", 0, 1)


def test_a_writer_that_does_not_finish_leaves_nothing(tmp_path: Path) -> None:
    def start_and_fail() -> None:
        with FlowArchiveWriter(tmp_path / "a.npz", height=24, width=32) as writer:
            writer.feed(FLOWS[0], FLOWS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    final: dict[str, Any] = {
        "original_height": 48,
        "original_width": 64,
        "original_fps": 25.0,
        "engine": "dis",
        "engine_params": {},
    }
    path = tmp_path / "a.npz"
    with FlowArchiveWriter(path, height=24, width=32) as writer:
        with pytest.raises(FlowError, match="expected"):
            writer.feed(FLOWS[0, :, :-1], FLOWS[0])
        with pytest.raises(FlowError, match="backward"):
            writer.feed(FLOWS[0])
        with pytest.raises(FlowError, match="finite"):
            writer.feed(np.full((24, 32, 2), np.nan, np.float32), FLOWS[0])
        with pytest.raises(FlowError, match="at least one"):
            writer.finish(**final, timestamps_s=np.zeros(1))
        writer.feed(FLOWS[0], FLOWS[0])
        with pytest.raises(FlowError, match="timestamps_s"):
            writer.finish(**final, timestamps_s=np.zeros(1))
        with pytest.raises(FlowError, match="scene_cuts"):
            writer.finish(**final, timestamps_s=np.zeros(2), scene_cuts=(1,))
        writer.finish(**final, timestamps_s=np.arange(2.0), source_identity="etag-1")
        with pytest.raises(FlowError, match="already"):
            writer.feed(FLOWS[0], FLOWS[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
    assert open_flow_file(path).meta.source_identity == "etag-1"
    with np.load(path) as loaded:
        assert str(loaded["source_etag"]) == "etag-1"
        np.testing.assert_array_equal(loaded["original_resolution"], [64, 48])
