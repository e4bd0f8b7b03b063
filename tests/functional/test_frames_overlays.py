"""Overlays over a store in memory."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import InvalidIdError, InvalidKeyError, NotAnImageError, StorageError
from structureflow.frames.overlays import Overlay, list_overlay_frames, load_overlays, save_overlays
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, LatencyStorage
from structureflow.testing.videos import texture


@pytest.fixture
def store() -> MemoryStorage:
    return MemoryStorage()


def _overlays(count: int, name: str = "field") -> list[Overlay]:
    return [Overlay(number, name, texture(20, 30, seed=number)) for number in range(count)]


def test_colour_and_grey_come_back_pixel_for_pixel(store: MemoryStorage) -> None:
    red = np.zeros((9, 7, 3), np.uint8)
    red[..., 0] = 255
    grey = np.arange(63, dtype=np.uint8).reshape(9, 7)
    saved = [Overlay(3, "colour", red), Overlay(3, "grey", grey), Overlay(11, "colour", texture(40, 50))]
    assert save_overlays(store, "t", "job-1", "flow", saved) == 3
    loaded = list(load_overlays(store, "t", "job-1", "flow"))
    assert [(overlay.sequence, overlay.name) for overlay in loaded] == [(3, "colour"), (3, "grey"), (11, "colour")]
    for before, after in zip(saved, loaded, strict=True):
        assert after.image.shape == before.image.shape
        assert np.array_equal(after.image, before.image)
    raw = store.get("cache/timelines/t/overlays/job-1/flow/000003_colour.png").data
    by_opencv = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert by_opencv is not None
    assert by_opencv[0, 0].tolist() == [0, 0, 255]


def test_listing_by_timeline_job_and_stage(store: MemoryStorage) -> None:
    for job in ("a", "a-b", "ab"):
        save_overlays(store, "t", job, "flow", _overlays(2))
        save_overlays(store, "t", job, "warp", _overlays(1))
    save_overlays(store, "t2", "a", "flow", _overlays(1))
    store.put("cache/timelines/t/overlays/a/flow/notes.txt", b"no overlay")
    store.put("cache/timelines/t/overlays/a/stray.png", b"no overlay")
    everything = list(list_overlay_frames(store, "t"))
    assert len(everything) == 9
    one_job = list(list_overlay_frames(store, "t", "a"))
    assert [(entry.job_id, entry.stage, entry.sequence, entry.name) for entry in one_job] == [
        ("a", "flow", 0, "field"),
        ("a", "flow", 1, "field"),
        ("a", "warp", 0, "field"),
    ]
    assert all(store.head(entry.key).size_bytes == entry.size_bytes for entry in one_job)
    assert [entry.sequence for entry in list_overlay_frames(store, "t", "ab", "warp")] == [0]
    assert list(list_overlay_frames(store, "t", "none")) == []
    with pytest.raises(InvalidKeyError):
        list_overlay_frames(store, "t", None, "flow")


def test_only_the_frames_asked_for_are_read(store: MemoryStorage) -> None:
    save_overlays(store, "t", "j", "guidance", _overlays(30))
    counting = CountingStorage(store)
    loaded = list(load_overlays(counting, "t", "j", "guidance", [20, 3, 99]))
    assert [overlay.sequence for overlay in loaded] == [3, 20]
    assert counting.requests == {"list": 1, "get": 2}


def test_transfers_are_concurrent_and_bounded(store: MemoryStorage) -> None:
    counting = CountingStorage(LatencyStorage(store, 0.01))
    save_overlays(counting, "t", "j", "flow", iter(_overlays(40)))
    assert 4 <= counting.most_in_flight <= 16
    counting.reset()
    loading = load_overlays(counting, "t", "j", "flow")
    assert [overlay.sequence for overlay in itertools.islice(loading, 3)] == [0, 1, 2]
    assert counting.requests["get"] <= 3 + 16
    assert [overlay.sequence for overlay in loading] == list(range(3, 40))
    assert 4 <= counting.most_in_flight <= 17


@pytest.mark.parametrize(
    ("timeline", "job", "stage", "name"),
    [
        ("../t", "j", "flow", "x"),
        ("t", "j/k", "flow", "x"),
        ("t", "", "flow", "x"),
        ("t", "j", "flows", "x"),
        ("t", "j", "../flow", "x"),
        ("t", "j", "flow", "a/b"),
        ("t", "j", "flow", ""),
        ("t", "j", "flow", "a\nb"),
    ],
)
def test_bad_ids(store: MemoryStorage, timeline: str, job: str, stage: str, name: str) -> None:
    def save() -> None:
        save_overlays(store, timeline, job, stage, [Overlay(0, name, np.zeros((4, 4), np.uint8))])  # type: ignore[arg-type]

    with pytest.raises(InvalidIdError):
        save()
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros((0, 4), np.uint8),
        np.zeros((4,), np.uint8),
    ],
)
def test_what_is_no_picture(store: MemoryStorage, image: np.ndarray) -> None:
    with pytest.raises(NotAnImageError):
        save_overlays(store, "t", "j", "flow", [Overlay(0, "x", image)])


def test_objects_that_are_no_png_are_named(store: MemoryStorage) -> None:
    save_overlays(store, "t", "j", "flow", _overlays(1))
    key = keys.timeline_overlay("t", "j", "flow", 0, "field")
    whole = store.get(key).data
    giant = whole[:16] + (10**6).to_bytes(4, "big") * 2 + whole[24:]
    for bad in (b"", b"\x89PNG", b"no PNG at all, but long enough to look", giant, whole[:40]):
        store.put(key, bad)
        with pytest.raises(NotAnImageError, match="000000_field"):
            list(load_overlays(store, "t", "j", "flow"))


def test_a_failing_store_is_reported(store: MemoryStorage) -> None:
    failing = FaultStorage(store, Fault("put", "*000005*", error=StorageError("denied")))
    with pytest.raises(StorageError, match="denied"):
        save_overlays(failing, "t", "j", "flow", _overlays(60))


def test_an_overlay_that_is_cleared_meanwhile_is_left_out(store: MemoryStorage) -> None:
    save_overlays(store, "t", "j", "flow", _overlays(40))
    loading = load_overlays(store, "t", "j", "flow")
    first = next(loading)
    store.delete([keys.timeline_overlay("t", "j", "flow", 39, "field")])
    assert [first.sequence, *(overlay.sequence for overlay in loading)] == list(range(39))
