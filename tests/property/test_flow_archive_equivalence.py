"""The flow archive's fast paths equal the plain ones, for any shape, range and content."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.flow.archive import (
    MAX_VECTOR_PX,
    FlowArchiveWriter,
    FlowBlock,
    compress_flow,
    open_flow_archive,
    quantise,
)
from structureflow.flow.archive.blocks import widen
from structureflow.testing.flows import BytesReader, archive_bytes, flow_sequences, smooth_flows
from structureflow.testing.old_archives import format_1_archive


def _loaded(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@given(flow_sequences(), st.booleans(), st.data())
@settings(max_examples=120)
def test_a_seekable_read_is_the_slice_that_numpy_loads(
    flows: NDArray[np.float32], with_backward: bool, data: st.DataObject
) -> None:
    stored = archive_bytes(flows, -flows[::-1] if with_backward else None)
    loaded = _loaded(stored)
    archive = open_flow_archive(BytesReader({"a": stored}), "a", workers=data.draw(st.integers(1, 3)))
    total = len(flows)
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    read = archive.read("forward", start, stop)
    assert read.dtype == np.float32
    assert read.tobytes() == loaded["flows"][start:stop].tobytes()
    assert read.tobytes() == quantise(flows[start:stop]).tobytes()
    if with_backward:
        assert archive.read("backward", start, stop).tobytes() == loaded["flows_backward"][start:stop].tobytes()
    assert archive.meta.has_backward is with_backward


@given(flow_sequences(), st.data())
@settings(max_examples=60)
def test_reads_join_to_the_whole(flows: NDArray[np.float32], data: st.DataObject) -> None:
    archive = open_flow_archive(BytesReader({"a": archive_bytes(flows)}), "a")
    whole = archive.read("forward", 0, len(flows))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(flows))))) or [len(flows)]
    edges = [0, *cuts] if cuts[-1] == len(flows) else [0, *cuts, len(flows)]
    parts = [archive.read("forward", a, b) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@given(flow_sequences(), st.data())
@settings(max_examples=60)
def test_pieces_of_an_expected_range_are_the_same_flows(flows: NDArray[np.float32], data: st.DataObject) -> None:
    stored = archive_bytes(flows, -flows)
    plain, ahead = (open_flow_archive(BytesReader({"a": stored}), "a") for _ in range(2))
    total = len(flows)
    first = data.draw(st.integers(0, total - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structureflow.flow.archive.seekable.WINDOW_BYTES", data.draw(st.sampled_from([1, 200, 10_000])))
        ahead.expect(first, data.draw(st.integers(first + 1, total)))
    for _ in range(3):
        start = data.draw(st.integers(0, total - 1))
        stop = data.draw(st.integers(start + 1, total))
        for direction in ("forward", "backward"):
            assert ahead.read(direction, start, stop).tobytes() == plain.read(direction, start, stop).tobytes()


@given(flow_sequences(max_flows=4))
@settings(max_examples=60)
def test_other_readers_agree_that_it_is_a_sound_archive(flows: NDArray[np.float32]) -> None:
    stored = archive_bytes(flows, flows)
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        assert archive.testzip() is None
    loaded = _loaded(stored)
    assert loaded["flows"].shape == flows.shape
    assert loaded["flows"].dtype == np.dtype("<f4")


def _written(path: Path, blocks: list[tuple[FlowBlock, FlowBlock]], size: tuple[int, int]) -> bytes:
    with FlowArchiveWriter(path, height=size[0], width=size[1]) as writer:
        for forward, backward in blocks:
            writer.feed_blocks(forward, backward)
        writer.finish(
            original_height=2 * size[0],
            original_width=2 * size[1],
            original_fps=25.0,
            engine="dis",
            engine_params={"finest_scale": 0},
            timestamps_s=np.arange(len(blocks) + 1) / 25,
            source_video="s3://bucket/video.mp4",
            source_identity="5a" * 32,
        )
    return path.read_bytes()


@pytest.mark.parametrize("processes", [False, True])
def test_blocks_packed_in_parallel_make_the_same_bytes(tmp_path: Path, processes: bool) -> None:
    flows = smooth_flows(12, 40, 56)
    serial = archive_bytes(flows, -flows)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) if processes else ThreadPoolExecutor(3) as workers:
        forward = list(workers.map(compress_flow, [quantise(flow) for flow in flows]))
        backward = list(workers.map(compress_flow, [quantise(-flow) for flow in flows]))
    parallel = _written(tmp_path / "p.npz", list(zip(forward, backward, strict=True)), (40, 56))
    assert parallel == serial


@given(
    flow_sequences(max_flows=5),
    st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", np.longdouble]),
    st.sampled_from(["C", "F"]),
    st.booleans(),
    st.data(),
)
@settings(max_examples=150)
def test_plain_archives_are_read_alike(
    flows: NDArray[np.float32], dtype: Any, order: Any, compressed: bool, data: st.DataObject
) -> None:
    plain = np.array(np.clip(flows, -2000, 2000), dtype, order=order)
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, flows=plain, flows_backward=plain[::-1] * 2)
    archive = open_flow_archive(BytesReader({"a": buffer.getvalue()}), "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structureflow.flow.archive.stream.MARK_BYTES", data.draw(st.sampled_from([1, 300, 8 << 20])))
        patch.setattr("structureflow.flow.archive.stream.PIECE_BYTES", data.draw(st.sampled_from([7, 256, 1 << 20])))
        patch.setattr("structureflow.flow.archive.stream.INPUT_BYTES", data.draw(st.sampled_from([11, 1 << 16])))
        patch.setattr("structureflow.flow.archive.fortran._BLOCK_BYTES", data.draw(st.sampled_from([1, 500, 1 << 24])))
        if data.draw(st.booleans()):
            archive.expect(0, data.draw(st.integers(1, len(flows))))
        for _ in range(3):
            start = data.draw(st.integers(0, len(flows) - 1))
            stop = data.draw(st.integers(start + 1, len(flows)))
            wanted = plain[start:stop].astype(np.float32)
            assert archive.read("forward", start, stop).tobytes() == wanted.tobytes()
            backward = (plain[::-1] * 2)[start:stop].astype(np.float32)
            assert archive.read("backward", start, stop).tobytes() == backward.tobytes()
    assert archive.meta.total_flows == len(flows)
    assert len(archive.meta.timestamps_s) == len(flows) + 1


@given(flow_sequences(max_flows=4), st.booleans(), st.data())
@settings(max_examples=60)
def test_archives_of_format_1_are_read_as_numpy_loads_them(
    flows: NDArray[np.float32], with_backward: bool, data: st.DataObject
) -> None:
    stored = format_1_archive(flows, -flows if with_backward else None)
    loaded = _loaded(stored)
    archive = open_flow_archive(BytesReader({"a": stored}), "a")
    start = data.draw(st.integers(0, len(flows) - 1))
    stop = data.draw(st.integers(start + 1, len(flows)))
    assert loaded["flows"].dtype == np.float16
    assert archive.read("forward", start, stop).tobytes() == loaded["flows"][start:stop].astype("<f4").tobytes()
    if with_backward:
        wanted = loaded["flows_backward"][start:stop].astype("<f4")
        assert archive.read("backward", start, stop).tobytes() == wanted.tobytes()
    assert (archive.meta.format_version, archive.seekable) == (1, True)


def test_half_precision_is_widened_exactly() -> None:
    every = np.arange(65_536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    out = np.empty(finite.shape, np.float32)
    assert widen(finite, out).tobytes() == finite.astype(np.float32).tobytes()


@given(flow_sequences())
@settings(max_examples=100)
def test_quantising_keeps_within_half_a_step_and_is_idempotent(flows: NDArray[np.float32]) -> None:
    stored = quantise(flows)
    assert stored.dtype == np.float32
    assert (stored * 16 == np.rint(stored * 16)).all()
    assert np.isfinite(stored).all()
    assert not np.signbit(stored[stored == 0]).any()
    assert quantise(stored).tobytes() == stored.tobytes()
    clipped = np.clip(flows, -MAX_VECTOR_PX, MAX_VECTOR_PX)
    error = np.abs(stored.astype(np.float64) - clipped)
    assert (error <= 1 / 32).all()
