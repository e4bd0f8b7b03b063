"""Archives made to mislead: each gets a typed error that costs little, and none passes for flows."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from structureflow.errors import FlowCacheError, FlowCacheFormatError, FlowCacheLimitError
from structureflow.flow.archive import FlowLimits, open_flow_archive
from structureflow.flow.archive.limits import longest_deflate
from structureflow.testing.flows import BytesReader, archive_bytes, smooth_flows

FLOWS = smooth_flows(3, 8, 12, seed=5)
PLAIN_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12, 2), }"


def _member(text: str = PLAIN_HEADER, payload: bytes | None = None, *, version: int = 1) -> bytes:
    header = text.encode("latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + (FLOWS.tobytes() if payload is None else payload)


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _patched(data: bytes, at: int, form: str, *values: Any) -> bytes:
    patched = bytearray(data)
    struct.pack_into(form, patched, at, *values)
    return bytes(patched)


def _read_all(data: bytes, limits: FlowLimits | None = None) -> bytes:
    archive = open_flow_archive(BytesReader({"a": data}), "a", limits=limits)
    return archive.read("forward", 0, archive.meta.total_flows).tobytes()


def _refused(data: bytes, match: str | None = None, *, kind: type[FlowCacheError] = FlowCacheError) -> None:
    """Demand a typed error that takes no more memory than the archive and some buffers."""

    def attempt() -> None:
        with pytest.raises(kind, match=match):
            _read_all(data)

    tracemalloc.start()
    try:
        attempt()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6 + 4 * len(data)


SOUND = _zip(("flows.npy", _member()))
CENTRAL = SOUND.rfind(b"PK\1\2")
END = SOUND.rfind(b"PK\5\6")


def test_the_sound_one_is_read() -> None:
    assert _read_all(SOUND) == FLOWS.tobytes()


@pytest.mark.parametrize(
    ("at", "form", "values", "match"),
    [
        (CENTRAL + 8, "<H", (1,), "flags 0x1"),
        (CENTRAL + 8, "<H", (0x40,), "flags 0x40"),
        (CENTRAL + 8, "<H", (0x2000,), "flags 0x2000"),
        (CENTRAL + 10, "<H", (12,), "method 12"),
        (CENTRAL + 10, "<H", (99,), "method 99"),
        (CENTRAL + 10, "<H", (8,), "local header is of another member"),
        (CENTRAL + 16, "<I", (0,), "CRC-32"),
        (CENTRAL + 20, "<2I", (2**31, 2**31), "run into the directory"),
        (CENTRAL + 20, "<I", (5,), "stored as 5 bytes"),
        (CENTRAL + 24, "<I", (2**31,), "stored as"),
        (CENTRAL + 20, "<2I", (2**32 - 1, 2**32 - 1), "run into the directory"),
        (CENTRAL + 28, "<H", (60_000,), "directory"),
        (CENTRAL + 30, "<H", (60_000,), "directory"),
        (CENTRAL + 32, "<H", (60_000,), "directory"),
        (CENTRAL + 42, "<I", (7,), "local header"),
        (CENTRAL + 42, "<I", (2**31,), "run into the directory"),
        (CENTRAL + 46, "<4s", (b"\xff\xfe\x00\x01",), "neither ASCII nor UTF-8"),
        (CENTRAL + 46, "<4s", (b"fl\0s",), "zero byte"),
        (CENTRAL, "<4s", (b"PK\0\0",), "directory record"),
        (0, "<4s", (b"PK\0\0",), "local header"),
        (8, "<H", (8,), "local header is of another member"),
        (30, "<4s", (b"blow",), "local header is of another member"),
        (26, "<H", (1,), "local header is of another member"),
        (28, "<H", (65_000,), "ends behind"),
        (END + 4, "<H", (1,), "does not fit"),
        (END + 6, "<H", (1,), "does not fit"),
        (END + 8, "<H", (0,), "does not fit"),
        (END + 8, "<2H", (0, 0), "directory of"),
        (END + 8, "<2H", (2, 2), "directory record"),
        (END + 8, "<2H", (60_000, 60_000), "at most 64 members"),
        (END + 12, "<I", (0,), "does not fit"),
        (END + 12, "<I", (2**32 - 1,), "does not fit"),
        (END + 16, "<I", (0,), "does not fit"),
        (END + 16, "<I", (2**32 - 1,), "does not fit"),
        (END + 20, "<H", (9,), "comment"),
    ],
)
def test_a_record_that_lies_is_refused(at: int, form: str, values: tuple[Any, ...], match: str) -> None:
    _refused(_patched(SOUND, at, form, *values), match)


def test_bytes_in_front_or_behind_are_refused() -> None:
    """zipfile would shift all offsets; two readers of one archive must not see two things."""
    _refused(b"#!/bin/sh\n" + SOUND, "does not fit")
    _refused(SOUND + b"\0", "comment")
    _refused(SOUND[:-2] + b"\x16\0" + SOUND[END : END + 22])


def test_a_comment_is_no_matter_even_one_that_looks_like_an_end() -> None:
    buffer = io.BytesIO(SOUND)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"made by hand"
    assert _read_all(buffer.getvalue()) == FLOWS.tobytes()
    _refused(SOUND[:-2] + struct.pack("<H", 22) + SOUND[END : END + 22])


def test_members_that_share_bytes_are_refused() -> None:
    """A bomb of one kernel under many names (Fifield, "A better zip bomb", 2019)."""
    data = _zip(("flows.npy", _member()), ("flows_backward.npy", _member()))
    second = data.rfind(b"PK\1\2")
    first_offset = struct.unpack_from("<I", data, data.find(b"PK\1\2") + 42)[0]
    _refused(_patched(data, second + 42, "<I", first_offset), "inside of another member")
    _refused(_patched(data, second + 42, "<I", first_offset + 100), "inside of another member")


def test_a_doubled_name_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = _zip(("flows.npy", _member()), ("flows.npy", _member()))
    _refused(data, "doubled", kind=FlowCacheFormatError)


def test_zip64_is_read_and_its_lies_are_refused() -> None:
    """The 64-bit fields as an archive of more than 4 GiB has them, around a small member."""
    name = b"flows.npy"
    data = _member()
    crc = zlib.crc32(data)

    def build(offset: int = 0, size: int = len(data), locator: int | None = None, count: int = 1) -> bytes:
        local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name), 20)
        local += name + struct.pack("<2H2Q", 1, 16, len(data), len(data)) + data
        extra = struct.pack("<2H3Q", 1, 24, size, size, offset)
        central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name),
                              len(extra), 0, 0, 0, 0, 2**32 - 1) + name + extra  # fmt: skip
        end = len(local) + len(central)
        end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), len(local))
        found = struct.pack("<4sIQI", b"PK\6\7", 0, end if locator is None else locator, 1)
        return (
            local
            + central
            + end64
            + found
            + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
        )

    assert _read_all(build()) == FLOWS.tobytes()
    _refused(build(offset=2**63), "run into the directory")
    _refused(build(size=2**63), "run into the directory")
    _refused(build(locator=2**63), "ZIP64 end record")
    _refused(build(locator=0), "ZIP64 end record")
    _refused(build(count=2**60), "at most 64 members")


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '|V4', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<M8', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f0', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f4, <f4', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12, 2), 'shape': (1,), }",
        "{'descr': '<f4', 'descr': '<f8', 'shape': (3, 8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12, 2), 'x': __import__('os').system('true'), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12, 2), } + {}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 2304, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3.0, 8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 8, 12, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 24, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 12, 2, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8, 12, 2), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 8, 12, 2), }",
        "",
        "\xff" * 200,
        "{" * 5000,
    ],
)
def test_an_array_header_that_is_not_plain_is_refused(text: str) -> None:
    _refused(_zip(("flows.npy", _member(text))), kind=FlowCacheFormatError)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("{'shape': (3, 8, 12, 2), 'fortran_order': False, 'descr': '<f4'}", 1),
        ("{'descr': '<f4',  'fortran_order': False, 'shape':(3,8,12,2)}      \n", 1),
        (PLAIN_HEADER, 2),
        (PLAIN_HEADER, 3),
    ],
)
def test_headers_of_other_writers_are_understood(text: str, version: int) -> None:
    data = _zip(("flows.npy", _member(text, version=version)))
    with np.load(io.BytesIO(data)) as loaded:
        assert loaded["flows"].shape == FLOWS.shape
    assert _read_all(data) == FLOWS.tobytes()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424, 8, 12, 2), }", 1),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (549755813888, 8, 12, 2), }", 1),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 100000, 12, 2), }", 1),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4000, 4000, 2), }", 1),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",), }", 1),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 3000 + "), }", 1),
        (PLAIN_HEADER.ljust(30_000), 1),
        (PLAIN_HEADER.ljust(30_000), 2),
    ],
)
def test_a_giant_header_is_refused_for_its_size(text: str, version: int) -> None:
    _refused(_zip(("flows.npy", _member(text, b"", version=version))), kind=FlowCacheLimitError)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("cut", [1, 300, 2000])
def test_a_member_shorter_than_its_shape_is_refused(method: int, cut: int) -> None:
    _refused(_zip(("flows.npy", _member()[:-cut]), method=method), "do not hold")


def _deflated(raw: bytes, plain: bytes) -> bytes:
    """An archive whose one member holds `raw` as deflate data, and declares `plain`'s size and checksum."""
    data = bytearray(_zip(("flows.npy", raw)))
    central = data.rfind(b"PK\1\2")
    for at, crc_at in ((0, 14), (central, 16)):
        struct.pack_into("<H", data, at + (8 if at == 0 else 10), 8)
        struct.pack_into("<I", data, at + crc_at, zlib.crc32(plain))
        struct.pack_into("<I", data, at + crc_at + 8, len(plain))
    return bytes(data)


def _raw(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(plain) + packer.flush()


def test_deflate_data_that_goes_wrong_is_refused() -> None:
    plain = _member()
    raw = _raw(plain)
    assert _read_all(_deflated(raw, plain)) == FLOWS.tobytes()
    assert _read_all(_deflated(raw + b"trailing", plain)) == FLOWS.tobytes(), "as zipfile reads it"
    for bad in (raw[:-3], raw[: len(raw) // 2], b"\x07" + raw, b"\x00" * 50, raw[:200] + b"\xff" * 50 + raw[250:]):
        _refused(_deflated(bad, plain))
    _refused(_deflated(_raw(plain + b"more"), plain), "inflates beyond")
    _refused(_deflated(_raw(plain[:-4]), plain), "CRC-32")


def test_a_bomb_behind_flows_costs_no_more_than_the_flows() -> None:
    plain = _member(payload=bytes(FLOWS.nbytes))
    _refused(_deflated(_raw(plain + bytes(1_000_000)), plain), "inflates beyond", kind=FlowCacheLimitError)


def test_blocks_that_give_nothing_are_not_inflated_for_ever() -> None:
    empty = b"\x00\x00\x00\xff\xff"
    _refused(_deflated(empty * 100_000, _member()), "bytes for", kind=FlowCacheFormatError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", np.array("x" * 2_000_000)),
        ("timestamps_s", np.zeros(2_000_000)),
        ("source_video", np.zeros((0, 2**40), "U1")),
        ("scene_cuts", np.zeros((2, 0), np.int64)),
        ("total_flows", np.zeros((1, 1), np.int64)),
    ],
)
def test_metadata_of_absurd_size_or_shape_is_refused(name: str, value: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, flows=FLOWS, **{name: value})
    _refused(buffer.getvalue())


def test_seek_tables_do_not_lead_out_of_their_member() -> None:
    """Offsets into another member, or the whole member as one block, are not followed."""
    stored = archive_bytes(FLOWS, -FLOWS)
    with np.load(io.BytesIO(stored)) as loaded:
        forward, backward = loaded["flows_offsets"], loaded["flows_backward_offsets"]
    total, longest = int(forward[-1] - forward[0]), longest_deflate(FLOWS[0].nbytes)
    assert longest + 2 < total < 2 * longest, "so that each bound is tried alone"
    middle = forward[0] + total // 2
    variants: list[Callable[[], Any]] = [
        # one block of more bytes than a flow's can be; one of none
        lambda: np.array([forward[0], forward[-1] - 2, forward[-1] - 1, forward[-1]]),
        lambda: np.array([forward[0], middle, middle, forward[-1]]),
        lambda: backward,
        lambda: forward[::-1],
        lambda: forward + 1,
        lambda: np.array([forward[0], forward[0], forward[-1], forward[-1]]),
        lambda: np.array([forward[0], forward[-1] + 10, forward[-1] + 20, forward[-1]]),
        lambda: np.array([forward[0], -(2**63), 2**63 - 1, forward[-1]]),
    ]
    for variant in variants:
        old, new = forward.tobytes(), np.asarray(variant(), np.int64).tobytes()
        at = stored.find(old)
        patched = bytearray(stored)
        patched[at : at + len(old)] = new
        # the member's own checksum, in its local header and in the directory
        member_at = stored.find(b"flows_offsets.npy") + len(b"flows_offsets.npy")
        crc = zlib.crc32(patched[member_at : at + len(old)])
        struct.pack_into("<I", patched, stored.find(b"flows_offsets.npy") - 16, crc)
        struct.pack_into("<I", patched, stored.rfind(b"flows_offsets.npy") - 30, crc)
        _refused(bytes(patched), "offsets of flows do not rise")
