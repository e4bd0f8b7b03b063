"""Bad archives raise typed errors, quickly and in bounded memory; no damage passes for data."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheError,
    FlowCacheFormatError,
    FlowCacheLimitError,
    FlowCacheVersionError,
)
from structureflow.flow.archive import (
    FlowLimits,
    open_flow_archive,
)
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


def _with_member(name: str, value: Any) -> bytes:
    """The sound archive with one small member replaced, as a ZIP in every respect correct."""
    buffer = io.BytesIO(STORED)
    with zipfile.ZipFile(io.BytesIO(STORED)) as source:
        members = source.infolist()
    # zipfile writes the new member over the directory, and then a directory without the old one.
    with zipfile.ZipFile(buffer, "a") as target:
        target.filelist = [info for info in members if info.filename != f"{name}.npy"]
        target.NameToInfo.pop(f"{name}.npy", None)
        target._didModify = True  # type: ignore[attr-defined]
        if value is not None:
            array = io.BytesIO()
            np.save(array, value)
            target.writestr(f"{name}.npy", array.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("count", [*range(64), *range(64, len(STORED), 97), *range(len(STORED) - 30, len(STORED))])
def test_a_truncated_archive_is_refused(count: int) -> None:
    with pytest.raises(FlowCacheError):
        _read_all(STORED[:count])


def test_no_flipped_bit_passes_for_data() -> None:
    sound = _read_all(STORED)
    generator = np.random.default_rng(7)
    refused = 0
    for position in generator.choice(len(STORED) * 8, 1500, replace=False):
        damaged = bytearray(STORED)
        damaged[position // 8] ^= 1 << (position % 8)
        try:
            read = _read_all(bytes(damaged))
        except FlowCacheError:
            refused += 1
        else:
            assert read == sound, f"bit {position}"
    # What a flip may leave unnoticed are dates, attributes and padding, which nothing depends on.
    assert refused > 1350


def test_every_flipped_bit_of_the_directory_is_harmless_or_noticed() -> None:
    sound = _read_all(STORED)
    start = STORED.rfind(b"flows_shape.npy", 0, STORED.find(b"PK\1\2")) - 30
    for position in range(start * 8, len(STORED) * 8, 13):
        damaged = bytearray(STORED)
        damaged[position // 8] ^= 1 << (position % 8)
        try:
            assert _read_all(bytes(damaged)) == sound
        except FlowCacheError:
            continue


def test_garbage_is_refused() -> None:
    generator = np.random.default_rng(1)
    for data in (b"", b"PK", b"\x00" * 100, generator.bytes(5000), b"PK\5\6" + b"\xff" * 18, b"PK\5\6" + b"\0" * 18):
        with pytest.raises(FlowCacheError):
            _read_all(data)


def test_another_version_is_told_apart() -> None:
    with pytest.raises(FlowCacheVersionError, match="got 3") as caught:
        _read_all(_with_member("format_version", np.array(3)))
    assert caught.value.detail["version"] == 3


_OFFSETS = np.load(io.BytesIO(STORED))["flows_offsets"]


def _moved(index: int, value: int) -> Any:
    offsets = _OFFSETS.copy()
    offsets[index] = value
    return offsets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flows_offsets", _moved(2, int(_OFFSETS[4]))),
        ("flows_offsets", _moved(-1, 2**40)),
        ("flows_offsets", _moved(0, 0)),
        ("flows_offsets", _moved(3, -5)),
        ("flows_offsets", _OFFSETS[:-1]),
        ("flows_offsets", _OFFSETS.astype(np.float64) + np.nan),
        ("flows_offsets", None),
        ("flows_crc32", np.zeros(3, np.uint32)),
        ("flows_shape", np.array([6, 24, 32])),
        ("flows_shape", np.array([6, 24, 2**20, 2])),
        ("flows_shape", np.array([5, 24, 32, 2])),
        ("flows_shape", np.array([6, 32, 48, 2])),
        ("flows_shape", np.array([6, -24, -32, 2])),
        ("flows_shape", np.array([np.nan] * 4)),
        ("flows_backward_offsets", _OFFSETS),
        ("total_flows", np.array(5)),
        ("total_flows", np.array("six")),
        ("timestamps_s", np.zeros(3)),
        ("timestamps_s", np.full(7, np.inf)),
        ("scene_cuts", np.array([99])),
        ("scene_cuts", np.array([-1])),
        ("scene_cuts", np.array([[1]])),
        ("engine_params", np.array("{")),
        ("engine_params", np.array("[" * 5000)),
        ("engine_params", np.array("[1]")),
        ("original_resolution", np.array([1])),
        ("engine", np.array(3)),
        ("engine", None),
        ("surprise", np.array(3)),
    ],
)
def test_metadata_that_does_not_fit_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FlowCacheError):
        _read_all(_with_member(name, value))


def test_a_wrong_block_is_noticed_although_it_inflates() -> None:
    crcs = np.load(io.BytesIO(STORED))["flows_crc32"].copy()
    crcs[4] ^= 1
    data = _with_member("flows_crc32", crcs)
    archive = open_flow_archive(BytesReader({"a": data}), "a")
    archive.read("forward", 0, 4)
    with pytest.raises(FlowCacheCorruptError, match="forward flow 4") as caught:
        archive.read("forward", 0, 6)
    assert caught.value.detail["flow"] == 4


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_plain_archive_that_is_damaged_or_odd_is_refused(write: Callable[..., None]) -> None:
    buffer = io.BytesIO()
    write(buffer, flows=FLOWS)
    good = buffer.getvalue()
    sound = _read_all(good)
    for position in range(200, len(good) - 200, 211):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        with pytest.raises(FlowCacheError):
            _read_all(bytes(damaged))
    for count in range(0, len(good), 301):
        with pytest.raises(FlowCacheError):
            _read_all(good[:count])
    assert sound[1] == FLOWS.tobytes()


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": FLOWS},
        {"flows": FLOWS.astype(np.int32)},
        {"flows": FLOWS[..., :1]},
        {"flows": FLOWS[0]},
        {"flows": np.zeros((0, 4, 4, 2), np.float32)},
        {"flows": np.where(FLOWS > 3, np.nan, FLOWS)},
        {"flows": np.where(FLOWS > 3, np.inf, FLOWS)},
        {"flows": FLOWS, "flows_backward": FLOWS[1:]},
        {"flows": FLOWS, "total_flows": 3},
        {"flows": FLOWS, "original_resolution": np.array([np.nan, 1.0])},
        {"flows": FLOWS, "original_resolution": np.array([0, 64])},
        {"flows": FLOWS, "original_resolution": np.array([64, 2**62])},
        {"flows": FLOWS, "display_max_px": -1.0},
        {"flows": FLOWS, "original_fps": np.nan},
        {"flows": FLOWS, "engine": "x" * 5000},
        {"flows": FLOWS, "engine": np.array(["\ud800"])},
        {"flows": FLOWS, "engine": np.array([0x7FFF_FFFF], "<u4").view("<U1")},
        {"flows": FLOWS, "engine_params": np.array([0x11_0000, 0x7B], "<u4").view("<U2")},
        {"flows": FLOWS, "engine_params": '{"a": NaN}'},
        {"flows": FLOWS, "engine_params": '{"a": 1e999}'},
        {"flows": FLOWS, "engine_params": '{"a": "\\ud800"}'},
        {"flows": FLOWS, "engine_params": f'{{"a": {"9" * 5000}}}'},
        {"flows": FLOWS, "scene_cuts": np.zeros(7, np.int64)},
        {"flows": FLOWS, "timestamps_s": np.array([np.longdouble("1e4000")] * 7)},
        {"flows": FLOWS, "source_video": np.array(b"bytes")},
        {"flows": FLOWS.astype(np.complex64)},
    ],
)
def test_a_plain_archive_of_something_else_is_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(FlowCacheFormatError):
        _read_all(_npz(**arrays))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    objects = np.empty(1, object)
    objects[0] = Trap()
    for arrays in ({"flows": objects}, {"flows": FLOWS, "source_video": objects}):
        with pytest.raises(FlowCacheFormatError):
            _read_all(_npz(**arrays))
    with pytest.raises(FlowCacheError):
        _read_all(_with_member("source_video", objects))
    assert not (tmp_path / "sprung").exists()


def _zip_of_header(text: str, payload: bytes, *, declared: int | None = None) -> bytes:
    """An archive whose member 'flows' has the given array header and deflated payload."""
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flows.npy", header + payload)
    data = bytearray(buffer.getvalue())
    if declared is not None:
        position = data.rfind(b"PK\1\2")
        data[position + 24 : position + 28] = struct.pack("<I", declared)
    return bytes(data)


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "payload", "declared"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (9000000, 1000, 1000, 2), }", b"x" * 100, None),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4, 4, 2), }", b"", None),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (100, 4000, 4000, 2), }", b"", 2**32 - 2),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4, 4, 2), }", b"", None),
        ("{'descr': '<f9', 'fortran_order': False, 'shape': (1, 4, 4, 2), }", b"", None),
        ("{'descr': '<U9999999', 'fortran_order': False, 'shape': (1, 4, 4, 2), }", b"", None),
        ("__import__('os').system('true')", b"", None),
        ("(" * 60000, b"", None),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4, 4, 2), }", b"x" * 3, None),
    ],
)
def test_giant_or_strange_headers_cost_nothing(text: str, payload: bytes, declared: int | None) -> None:
    data = _zip_of_header(text, payload, declared=declared)

    def attempt() -> None:
        with pytest.raises(FlowCacheError):
            _read_all(data)

    assert _peak(attempt) < 4e6


def test_a_bomb_is_stopped_at_its_declared_size() -> None:
    # 60 MB of zeros behind a header of 20 x 64 x 64: only what is declared may be inflated.
    text = "{'descr': '<f2', 'fortran_order': False, 'shape': (20, 64, 64, 2), }"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    data = _zip_of_header(text, bytes(60_000_000), declared=len(header) + 20 * 64 * 64 * 4)

    def attempt() -> None:
        with pytest.raises(FlowCacheLimitError, match="inflates beyond"):
            _read_all(data)

    # The pieces that are inflated at a time bound it, not the bomb.
    assert _peak(attempt) < 5e6


def test_a_bomb_in_a_block_is_stopped() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bomb.compress(bytes(500_000)) + bomb.flush(zlib.Z_FULL_FLUSH)
    flows = np.random.default_rng(0).normal(0, 9, (2, 24, 32, 2)).astype(np.float32)
    stored = bytearray(archive_bytes(flows))
    loaded = np.load(io.BytesIO(stored))
    start, stop = (int(value) for value in loaded["flows_offsets"][:2])
    assert len(block) < stop - start
    stored[start:stop] = block + bytes(stop - start - len(block))
    crcs = loaded["flows_crc32"].copy()
    old = crcs.astype("<u4").tobytes()
    crcs[0] = zlib.crc32(stored[start:stop])
    position = bytes(stored).find(old)
    stored[position : position + 8] = crcs.astype("<u4").tobytes()
    # The member's own CRC-32 stands in its local header and in the directory.
    name = stored.find(b"flows_crc32.npy")
    member = bytes(stored[name + 15 : position + 8])
    for signature, distance in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        record = stored.rfind(
            signature, 0, stored.find(b"flows_crc32.npy", name if signature == b"PK\3\4" else name + 1)
        )
        stored[record + distance : record + distance + 4] = struct.pack("<I", zlib.crc32(member))
    archive = open_flow_archive(BytesReader({"a": bytes(stored)}), "a")
    with pytest.raises(FlowCacheCorruptError, match="does not inflate to"):
        archive.read("forward", 0, 1)
    archive.read("forward", 1, 2)
