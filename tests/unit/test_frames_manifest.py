"""The manifest as a document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from structureflow.errors import FrameCacheError, FrameNotFoundError
from structureflow.frames.manifest import ChunkEntry, FrameManifest, FrameRecord


def _manifest(count: int = 5, first: int = 10) -> FrameManifest:
    records = [
        FrameRecord(
            first + number,
            f"cache/timelines/t/frames/{first + number:06d}.jpg",
            f"etag{number}",
            1000 + number,
            number * 7,
            number * 0.04,
            "ab"[number % 2],
            f"{number:016x}",
        )
        for number in reversed(range(count))
    ]
    chunks = [ChunkEntry(chunk_id=name, width_px=64, height_px=48) for name in "ab"]
    return FrameManifest.build("t", records, chunks, quality=85, source_identity="s3:abc:5")


def test_round_trip_and_order() -> None:
    manifest = _manifest()
    again = FrameManifest.parse(manifest.to_json(), "t")
    assert again == manifest
    assert [record.sequence for record in again.records()] == [10, 11, 12, 13, 14]
    third = again.record(2)
    assert third == FrameRecord(
        12, "cache/timelines/t/frames/000012.jpg", "etag2", 1002, 14, 0.08, "a", "0000000000000002"
    )
    assert again.total == 5


def test_stored_form() -> None:
    document = json.loads(_manifest(1).to_json())
    created = document.pop("created_at")
    assert created.endswith("Z")
    assert document == {
        "format_version": 1,
        "timeline_id": "t",
        "source_identity": "s3:abc:5",
        "quality": 85,
        "chunks": [
            {"chunk_id": "a", "width_px": 64, "height_px": 48},
            {"chunk_id": "b", "width_px": 64, "height_px": 48},
        ],
        "frames": {
            "sequence": [10],
            "key": ["frames/000010.jpg"],
            "etag": ["etag0"],
            "size_bytes": [1000],
            "crc32": [0],
            "timestamp_s": [0.0],
            "chunk": [0],
            "perceptual_hash": ["0000000000000000"],
        },
    }


def test_ten_thousand_frames_stay_small() -> None:
    data = _manifest(10_000).to_json()
    assert len(data) < 1_500_000
    assert FrameManifest.parse(data, "t").record(9_999).sequence == 10_009


def test_select() -> None:
    manifest = _manifest()
    assert [record.sequence for record in manifest.select(None)] == [10, 11, 12, 13, 14]
    assert [record.sequence for record in manifest.select(range(11, 13))] == [11, 12]
    assert [record.sequence for record in manifest.select([14, 10, 14])] == [14, 10, 14]
    assert manifest.select([]) == []


@pytest.mark.parametrize("sequence", [9, 15, -1, 10**9])
def test_select_names_what_is_missing(sequence: int) -> None:
    with pytest.raises(FrameNotFoundError, match=f"no frame {sequence} .5 frames: 10 to 14") as caught:
        _manifest().select([10, sequence])
    assert caught.value.detail["sequence"] == sequence


def _changed(path: str, value: Any) -> bytes:
    document = json.loads(_manifest().to_json())
    target = document
    *parents, last = path.split(".")
    for part in parents:
        target = target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"[]", "document"),
        (_manifest().to_json()[:-20], "expected JSON"),
        (_changed("format_version", 2), "format_version"),
        (_changed("timeline_id", "other"), "got that of other"),
        (_changed("frames.etag", None), "frames.etag"),
        (_changed("frames.etag", ["a"]), "one length"),
        (_changed("frames.sequence", [10, 12, 11, 13, 14]), "rise"),
        (_changed("frames.sequence", [-1, 10, 11, 12, 13]), "rise"),
        (_changed("frames.chunk", [0, 1, 2, 0, 0]), "chunk numbers below 2"),
        (_changed("surprise", 1), "surprise"),
    ],
)
def test_documents_that_are_no_manifest(data: bytes, words: str) -> None:
    with pytest.raises(FrameCacheError, match=words):
        FrameManifest.parse(data, "t")
