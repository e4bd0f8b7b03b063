"""Archives that others wrote with numpy, and those of earlier versions: read in linear time and bounded memory."""

from __future__ import annotations

import hashlib
import io
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheError,
    FlowCacheFormatError,
    FlowCacheLimitError,
    FlowError,
)
from structureflow.flow.archive import FlowLimits, compress_flow, open_flow_archive, open_flow_file, quantise
from structureflow.flow.archive.blocks import FlowBlock
from structureflow.testing.flows import BytesReader, archive_bytes, packed_archive, smooth_flows
from structureflow.testing.old_archives import format_1_archive
from tests.conftest import real_clip


def _npz(compressed: bool = True, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


# --- format 2 and format 1 ---------------------------------------------------------------------------


def test_what_numpy_loads_is_what_code_for_the_original_design_expects(tmp_path: Path) -> None:
    flows = smooth_flows(5, 36, 64, scale_px=90)
    path = tmp_path / "structure_flows_t.npz"
    path.write_bytes(archive_bytes(flows, -flows))
    with np.load(path) as archive:
        for name in ("flows", "flows_backward"):
            stored = archive[name]
            assert stored.dtype == np.float32
            assert (stored * 16 == np.rint(stored * 16)).all()
            assert not np.signbit(stored[stored == 0]).any()
        # the original segment code, literally: resize each field, scale its vectors by the ratio
        resized = [cv2.resize(flow, (128, 72)) * np.array([2.0, 2.0], np.float32) for flow in archive["flows"]]
        assert np.abs(archive["flows"] - flows).max() <= 1 / 32
        assert int(archive["format_version"]) == 2
    assert [flow.shape for flow in resized] == [(72, 128, 2)] * 5
    np.testing.assert_allclose(resized[2].mean(axis=(0, 1)), 2 * flows[2].mean(axis=(0, 1)), atol=0.2)


def _canonical(data: bytes) -> str:
    """Digest what an archive says, without the lengths of compressed blocks, which depend on isal's version."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            plain = archive.read(info)
            if info.filename.endswith(("_offsets.npy", "_crc32.npy")):
                plain = plain[:128]
            record = (
                info.filename,
                info.compress_type,
                info.date_time,
                info.external_attr,
                info.create_version,
                info.extract_version,
                info.flag_bits,
                info.extra,
                info.file_size,
                len(plain),
            )
            digest.update(repr(record).encode())
            digest.update(plain)
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("backward", "digest"),
    [
        (True, "8c34d8dc42499bd6cb275fdf27d74d84955299f3d137c68b57d6fb28bcde827f"),
        (False, "b4a60de85447bda46d176abe5477e0e77042f8460d6393d57ac0b458b36ac9f0"),
    ],
)
def test_archives_of_format_1_are_those_that_its_writer_wrote(backward: bool, digest: str) -> None:
    """The digests were taken from the writer of format 1 itself (2026-11-25) on these very flows."""
    generator = np.random.default_rng(11)
    flows = np.round(generator.normal(0, 3, (3, 8, 12, 2)) * 16) / 16
    flows[1, 2, 3] = (-300.3, 2500.0)
    flows[2, 0, 0] = (-0.01, 0.0)
    flows = flows.astype(np.float32)
    stored = format_1_archive(flows, -flows[::-1] if backward else None)
    assert _canonical(stored) == digest
    archive = open_flow_archive(BytesReader({"a": stored}), "a")
    expected = quantise(flows).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(archive.read("forward", 0, 3), expected)
    meta = archive.meta
    assert (meta.scene_cuts, meta.display_max_px, meta.engine_params) == ((0,), 3.5, {"finest_scale": 0})


def test_every_flipped_bit_of_an_old_archive_is_harmless_or_noticed() -> None:
    flows = smooth_flows(3, 8, 12)
    stored = format_1_archive(flows)
    sound = open_flow_archive(BytesReader({"a": stored}), "a").read("forward", 0, 3).tobytes()
    for position in np.random.default_rng(3).choice(len(stored) * 8, 600, replace=False):
        damaged = bytearray(stored)
        damaged[position // 8] ^= 1 << (position % 8)
        try:
            read = open_flow_archive(BytesReader({"a": bytes(damaged)}), "a").read("forward", 0, 3)
        except FlowCacheError:
            continue
        assert read.tobytes() == sound


# --- what the seekable reader trusts ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_is_refused_although_its_checksums_hold(bad: float) -> None:
    flows = quantise(smooth_flows(3, 8, 12))
    flows[1, 4, 5, 1] = bad
    stored = packed_archive([compress_flow(flow) for flow in flows], 8, 12)
    archive = open_flow_archive(BytesReader({"a": stored}), "a")
    archive.read("forward", 0, 1)
    archive.read("forward", 2, 3)
    with pytest.raises(FlowCacheFormatError, match="not finite"):
        archive.read("forward", 0, 3)


def test_a_block_longer_than_deflate_makes_any_is_refused_although_it_inflates() -> None:
    flows = quantise(smooth_flows(3, 8, 12))
    blocks = [compress_flow(flow) for flow in flows]
    plain_bytes = 8 * 12 * 8

    def padded(length: int) -> bytes:
        # empty stored blocks in front change nothing of what comes out
        data = b"\x00\x00\x00\xff\xff" * (-(-(length - len(blocks[1].data)) // 5)) + blocks[1].data
        fat = FlowBlock(data, zlib.crc32(data), blocks[1].plain_crc32, plain_bytes)
        return packed_archive([blocks[0], fat, blocks[2]], 8, 12)

    archive = open_flow_archive(BytesReader({"a": padded(plain_bytes)}), "a")
    assert archive.read("forward", 0, 3).tobytes() == flows.tobytes()
    fat = padded(plain_bytes + 100)
    with np.load(io.BytesIO(fat)) as loaded:
        assert loaded["flows"].tobytes() == flows.tobytes(), "only its length is wrong"
    with pytest.raises(FlowCacheFormatError, match="offsets of flows"):
        open_flow_archive(BytesReader({"a": fat}), "a")


# --- plain archives -----------------------------------------------------------------------------------


def test_an_archive_in_fortran_order_is_read() -> None:
    path = real_clip("odd/flows_fortran.npz")
    with np.load(path) as loaded:
        flows = loaded["flows"]
    assert np.isfortran(flows)
    archive = open_flow_file(path)
    total = len(flows)
    np.testing.assert_array_equal(archive.read("forward", 0, total), flows.astype(np.float32))
    np.testing.assert_array_equal(archive.read("forward", 1, 2), flows[1:2].astype(np.float32))


@pytest.mark.parametrize("shape", [(2, 1024, 1024, 2), (1, 512, 1024, 2), (3, 64, 64, 2)])
def test_zeros_end_on_the_edge_of_a_buffer(shape: tuple[int, ...]) -> None:
    archive = open_flow_archive(BytesReader({"a": _npz(flows=np.zeros(shape, np.float32))}), "a")
    read = archive.read("forward", 0, shape[0])
    assert read.shape == shape
    assert not read.any()


def test_vectors_beyond_any_frame_are_cut_not_refused() -> None:
    flows = np.zeros((1, 4, 4, 2))
    flows[0, 0, 0] = 1e300, -1e300
    flows[0, 0, 1] = 3000.5, -3000.5
    archive = open_flow_archive(BytesReader({"a": _npz(flows=flows)}), "a")
    read = archive.read("forward", 0, 1)
    assert read[0, 0, 0].tolist() == [16384, -16384]
    assert read[0, 0, 1].tolist() == [3000.5, -3000.5]


def _noise(count: int, order: Any = "C") -> bytes:
    generator = np.random.default_rng(2)
    return _npz(flows=np.array(generator.normal(0, 3, (count, 32, 48, 2)), np.float32, order=order))


def test_plain_archives_cost_one_pass_and_then_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structureflow.flow.archive.stream.MARK_BYTES", 50_000)
    monkeypatch.setattr("structureflow.flow.archive.stream.PIECE_BYTES", 4096)
    monkeypatch.setattr("structureflow.flow.archive.stream.INPUT_BYTES", 4096)

    def sent(count: int) -> int:
        reader = BytesReader({"a": _noise(count)})
        archive = open_flow_archive(reader, "a")
        for start in range(count - 2, -1, -2):
            archive.read("forward", start, start + 2)
        return sum(size for _, _, size in reader.log)

    # twice as many flows cost twice as many bytes; read from the start each time they would cost four times as many
    assert sent(160) < 2.3 * sent(80)
    assert sent(160) < 6 * len(_noise(160))


def test_an_archive_in_fortran_order_costs_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _noise(40, "F")
    reader = BytesReader({"a": data})
    archive = open_flow_archive(reader, "a")
    archive.expect(10, 30)
    for start in (28, 10, 20, 12):
        archive.read("forward", start, start + 2)
    assert sum(size for _, _, size in reader.log) < 1.5 * len(data) + 2 * 192 * 1024
    # where the file may not hold all, it holds as many as it may
    small = open_flow_archive(reader, "a", limits=FlowLimits(max_spool_bytes=3 * 32 * 48 * 8))
    np.testing.assert_array_equal(small.read("forward", 5, 15), archive.read("forward", 5, 15))


def test_an_archive_in_fortran_order_needs_room_for_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    archive = open_flow_archive(BytesReader({"a": _noise(4, "F")}), "a")
    with pytest.raises(FlowCacheLimitError, match="temporary file"):
        archive.read("forward", 0, 1)


def test_memory_is_bounded_by_what_is_read() -> None:
    flows = np.zeros((60, 256, 320, 2), np.float32)
    flows[:, :8] = 1.5
    for order in ("C", "F"):
        data = _npz(flows=np.array(flows, order=order))
        archive = open_flow_archive(BytesReader({"a": data}), "a")
        archive.expect(50, 54)
        tracemalloc.start()
        assert archive.read("forward", 50, 52)[1, 3, 3, 0] == 1.5
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # 39 MB of flows; in Fortran order the blocks that are put in order come on top
        assert peak < (8e6 if order == "C" else 45e6)


def test_bytes_that_change_under_the_same_etag_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structureflow.flow.archive.stream.MARK_BYTES", 50_000)
    data = _noise(80)

    class Rotting(BytesReader):
        def get(self, key: str, **options: Any) -> Any:
            stored = super().get(key, **options)
            if len(self.log) > 12:
                flipped = bytearray(stored.data)
                flipped[len(flipped) // 2] ^= 1
                return type(stored)(bytes(flipped), stored.info, stored.start)
            return stored

    archive = open_flow_archive(Rotting({"a": data}), "a")
    archive.read("forward", 0, 2)

    def read_all() -> None:
        for start in range(2, 80, 2):
            archive.read("forward", start, start + 2)

    with pytest.raises(FlowCacheCorruptError):
        read_all()


def test_a_member_that_ends_early_on_a_later_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structureflow.flow.archive.stream.MARK_BYTES", 50_000)
    archive = open_flow_archive(BytesReader({"a": _noise(20)}), "a")
    archive.read("forward", 0, 20)
    monkeypatch.setattr("structureflow.flow.archive.stream.MemberStream._inflated", lambda *_: iter(()))
    with pytest.raises(FlowCacheCorruptError, match="ended otherwise"):
        archive.read("forward", 3, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f8", np.longdouble])
def test_plain_flows_that_are_not_finite_are_refused(dtype: Any, bad: float) -> None:
    flows = np.zeros((2, 4, 6, 2), dtype)
    flows[1, 3, 5, 1] = bad
    archive = open_flow_archive(BytesReader({"a": _npz(flows=flows)}), "a")
    assert not archive.read("forward", 0, 1).any()
    with pytest.raises(FlowCacheFormatError, match="not finite"):
        archive.read("forward", 1, 2)


def test_half_precision_beyond_any_frame_is_cut() -> None:
    flows = np.zeros((1, 4, 6, 2), np.float16)
    flows[0, 0] = 60_000, -20_000
    flows[0, 1] = 16_384, -16_368
    read = open_flow_archive(BytesReader({"a": _npz(flows=flows)}), "a").read("forward", 0, 1)
    assert read[0, 0, 0].tolist() == [16_384, -16_384]
    assert read[0, 1, 0].tolist() == [16_384, -16_368]


def test_a_grid_too_large_to_carry_motion_on_is_averaged_down() -> None:
    flows = smooth_flows(3, 48, 80, scale_px=9)
    data = _npz(flows=flows, flows_backward=-flows, original_resolution=(160, 96), display_max_px=9.0)
    archive = open_flow_archive(BytesReader({"a": data}), "a")
    assert archive.within(48 * 80) is archive
    small = archive.within(48 * 80 - 1)
    assert (small.meta.height, small.meta.width, small.meta.display_max_px) == (24, 40, 4.5)
    assert (small.meta.original_height, small.meta.total_flows, small.seekable) == (96, 3, False)
    expected = flows.reshape(3, 24, 2, 40, 2, 2).mean(axis=(2, 4)) / 2
    small.expect(0, 3)
    np.testing.assert_allclose(small.read("forward", 0, 3), expected, atol=1e-5)
    np.testing.assert_allclose(small.read("backward", 1, 2), -expected[1:2], atol=1e-5)
    odd = archive.within(400)
    assert (odd.meta.height, odd.meta.width) == (12, 20)
    uneven = open_flow_archive(BytesReader({"a": _npz(flows=np.full((1, 7, 11, 2), (11.0, 7.0)))}), "a").within(40)
    np.testing.assert_allclose(uneven.read("forward", 0, 1), np.full((1, 4, 6, 2), (6.0, 4.0)), rtol=1e-6)
    with pytest.raises(FlowError, match="expected 0 <= start"):
        small.read("forward", 2, 4)
