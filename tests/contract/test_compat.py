"""The functions of the original designs: what they give, what they say, and what they refuse."""

from __future__ import annotations

import base64
import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import structureflow as sf
from structureflow import compat
from structureflow.compat import places
from structureflow.errors import (
    FlowError,
    FrameCacheError,
    FrameCorruptError,
    FrameNotFoundError,
    GuidanceError,
    InputNotAllowedError,
    InputNotFoundError,
    InvalidArgumentError,
    NotAnImageError,
    VideoTooShortError,
)
from structureflow.storage.s3 import S3Storage
from structureflow.testing.videos import pan_frames, write_clip
from tests.contract.compat_calls import original_places


@pytest.fixture(autouse=True)
def store() -> Iterator[sf.MemoryStorage]:
    """Whatever a test puts in place is gone after it."""
    store = sf.MemoryStorage()
    with original_places():
        compat.use_store(store)
        yield store


def frame(number: int, chunk_id: int | str = 0, timestamp: float | None = None) -> compat.Frame:
    image = np.full((48, 64, 3), 10 * number, np.uint8)
    return compat.Frame(number, chunk_id, number / 25 if timestamp is None else timestamp, image)


def pixels(jpeg_b64: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg_b64))))


def quiet(_: str) -> None:
    """Stand for `print`."""


# --- frames ------------------------------------------------------------------------------------------


def test_frames_come_back_in_order_with_what_they_were() -> None:
    assert not compat.cache_exists("walk")
    assert compat.load_cached_frames("walk") == []
    assert compat.load_cached_frames_b64("walk") == []
    assert compat.cache_frames("walk", [frame(2, "b.mp4"), frame(0, 7), frame(1, 7)]) == 3
    assert compat.cache_exists("walk")
    loaded = compat.load_cached_frames("walk")
    assert [(each.sequence, each.chunk_id, each.timestamp) for each in loaded] == [
        (0, 7, 0.0),
        (1, 7, 0.04),
        (2, "b.mp4", 0.08),
    ]
    assert [int(each.image.mean().round()) for each in loaded] == [0, 10, 20]
    assert all(len(each.perceptual_hash) == 16 for each in loaded)
    compat.clear_cache("walk")
    assert not compat.cache_exists("walk")
    compat.clear_cache("walk")


def test_frames_as_base64() -> None:
    compat.cache_frames("walk", [frame(1), frame(3)])
    for found in (compat.load_cached_frames_b64("walk"), compat.frames_to_b64([frame(3), frame(1)])):
        assert [set(each) for each in found] == [{"seq", "timestamp", "jpeg_b64"}] * 2
        assert [(each["seq"], each["timestamp"]) for each in found] == [(1, 0.04), (3, 0.12)]
        assert [int(pixels(each["jpeg_b64"]).mean().round()) for each in found] == [10, 30]
    fine, coarse = (len(compat.frames_to_b64([frame(1)], quality)[0]["jpeg_b64"]) for quality in (95, 10))
    assert fine >= coarse


def test_no_frames_are_no_error_and_change_nothing() -> None:
    assert compat.cache_frames("walk", []) == 0
    assert not compat.cache_exists("walk")
    compat.cache_frames("walk", [frame(1)])
    assert compat.cache_frames("walk", []) == 0
    assert compat.cache_exists("walk")
    assert compat.frames_to_b64([]) == []


def test_what_the_original_got_wrong_is_an_error(store: sf.MemoryStorage) -> None:
    with pytest.raises(FrameCacheError):
        compat.cache_frames("walk", [frame(1), frame(1)])
    with pytest.raises(NotAnImageError):
        compat.cache_frames("walk", [compat.Frame(0, 0, 0.0, np.zeros((48, 64), np.uint8))])
    assert not compat.cache_exists("walk")
    compat.cache_frames("walk", [frame(1), frame(2)])
    (first, second) = [info.key for info in store.list("cache/timelines/walk/frames/")]
    store.put(second, b"no jpeg")
    with pytest.raises(FrameCorruptError):
        compat.load_cached_frames("walk")
    store.delete([first])
    with pytest.raises(FrameNotFoundError):
        compat.load_cached_frames_b64("walk")


def test_frames_of_the_original_are_adopted(store: sf.MemoryStorage) -> None:
    for number in (2, 10):
        (data,) = compat.frames_to_b64([frame(number)])
        store.put(f"cache/timelines/walk/frames/{number}.jpg", base64.b64decode(data["jpeg_b64"]))
    # it has no manifest, so nobody knows whether all of them are there
    assert not compat.cache_exists("walk")
    sf.FrameCache(store).adopt_frames("walk", fps=25)
    assert [each.sequence for each in compat.load_cached_frames("walk")] == [2, 10]


# --- overlays ----------------------------------------------------------------------------------------


def test_overlays_come_back_by_name(store: sf.MemoryStorage) -> None:
    first, second = (base64.b64encode(data).decode() for data in (b"\x89PNG one", b"\x89PNG two"))
    compat.save_overlays("walk", "job-1", "edges", 4, {"edge_overlay_b64": first, "lines_overlay_b64": second})
    compat.save_overlays("walk", "job-1", "edges", 12, {"edge_overlay_b64": second})
    assert compat.load_overlays("walk", "job-1", "edges", 4) == {"edge_overlay_b64": first, "lines_overlay_b64": second}
    assert compat.load_overlays("walk", "job-1", "edges", 1) is None
    assert compat.load_overlays("walk", "job-1", "lines", 4) is None
    assert compat.list_overlay_frames("walk", "job-1", "edges") == [4, 12]
    assert compat.list_overlay_frames("walk", "job-2", "edges") == []
    # keys of the original have no leading zeros
    store.put("cache/timelines/walk/overlays/job-1/edges/7_edge_overlay_b64.png", b"\x89PNG old")
    assert compat.list_overlay_frames("walk", "job-1", "edges") == [4, 7, 12]
    found = compat.load_overlays("walk", "job-1", "edges", 7)
    assert found is not None
    assert base64.b64decode(found["edge_overlay_b64"]) == b"\x89PNG old"


def test_overlays_are_saved_all_or_not_at_all(store: sf.MemoryStorage) -> None:
    with pytest.raises(NotAnImageError, match="lines_b64 of frame 4: expected base64"):
        compat.save_overlays("walk", "job-1", "edges", 4, {"edge_b64": "AAAA", "lines_b64": "no base64!"})
    assert list(store.list("")) == []


def test_the_store_of_the_environment_is_the_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places._PLACES, "store", None)
    monkeypatch.delenv("S3_BUCKET", raising=False)
    found = places.store()
    assert isinstance(found, S3Storage)
    assert found.bucket == "mpr"
    monkeypatch.setattr(places._PLACES, "store", None)
    monkeypatch.setenv("S3_BUCKET", "frames")
    again = places.store()
    assert isinstance(again, S3Storage)
    assert again.bucket == "frames"
    assert places.store() is again


# --- flows -------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", pan_frames(24, 96, 160, dx=2, dy=0), fps=24)


def test_flows_go_where_the_program_puts_them(clip: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert (
        compat._extract_and_upload_structure_flows(str(clip), "t", tmp_path, None, said.append)
        == (tmp_path / "structure_flows_t.npz").as_uri()
    )

    def refuse(**_: object) -> None:
        raise OSError("the disk is full")

    compat.use_upload(refuse)
    assert compat._extract_and_upload_structure_flows(str(clip), "t", tmp_path, None, said.append) is None
    assert "the disk is full" in said[-1]
    compat.use_upload(lambda **_: None)
    assert compat._extract_and_upload_structure_flows(str(clip), "t", tmp_path, None, said.append) is None
    assert "segments extract flows themselves" in said[-1]


def test_whatever_the_programs_own_upload_and_download_raise_is_told(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients of stores have errors of their own; the original went on without a cache, whatever it was."""

    class ClientError(Exception):
        pass

    def broken(*_: object, **__: object) -> str:
        raise ClientError("503 https://store.example/x?token=secret")

    said: list[str] = []
    compat.use_upload(broken)
    compat.use_download(broken)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert compat._extract_and_upload_structure_flows(str(clip), "t", tmp_path, None, said.append) is None
        assert compat.download_and_load_cached_flows("supabase://flows", tmp_path, "t", said.append) is None
    assert len([line for line in said if "ClientError: 503" in line]) == 2
    assert not [line for line in said if "secret" in line]
    # with where it came from
    assert caplog.text.count("in broken") == 2


def test_a_damaged_download_does_not_replace_an_older_one(clip: Path, tmp_path: Path) -> None:
    compat.download_and_load_cached_flows(
        str(sf.extract_flows(clip, tmp_path / "f.npz").info.key), tmp_path, "t", quiet
    )
    before = (tmp_path / "structure_flows_cache.npz").read_bytes()
    (tmp_path / "f.npz").write_bytes(before[:100])
    assert compat.download_and_load_cached_flows(str(tmp_path / "f.npz"), tmp_path, "t", quiet) is None
    assert (tmp_path / "structure_flows_cache.npz").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "f.npz", "structure_flows_cache.npz"}


def test_what_is_returned_as_none_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert compat.download_and_load_cached_flows("file:///nowhere.npz", tmp_path, "t", quiet) is None
    assert "cached flows of task t cannot be had" in caplog.text
    assert not list(tmp_path.iterdir())


def test_downloads_are_the_programs_to_make(clip: Path, tmp_path: Path) -> None:
    archive = tmp_path / "flows.npz"
    sf.extract_flows(clip, archive)
    asked: list[str] = []

    def download(url: str, path: Path) -> None:
        asked.append(url)
        path.write_bytes(archive.read_bytes())

    (tmp_path / "d").mkdir()
    compat.use_download(download)
    flows = compat.download_and_load_cached_flows("supabase://flows?token=secret", tmp_path / "d", "t", quiet)
    assert flows is not None
    assert flows.dtype == np.float32
    np.testing.assert_array_equal(flows, sf.open_flows(archive).read("forward", 0, 23))
    assert asked == ["supabase://flows?token=secret"]


@pytest.mark.parametrize("url", ["http://example.org/a.npz", "ftp://x/y", "supabase://flows"])
def test_what_nobody_reads_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputNotAllowedError, match="use_download"):
        places.fetch_url(url, tmp_path / "x")


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.npz", "https://10.0.0.7/a.npz", "https://169.254.169.254/x"])
def test_private_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputNotAllowedError):
        places.fetch_url(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_tokens_are_not_printed(tmp_path: Path) -> None:
    said: list[str] = []
    compat.download_and_load_cached_flows("supabase://flows?token=secret", tmp_path, "t", said.append)
    assert said
    assert not [line for line in said if "secret" in line]


def test_paths_and_file_urls_are_read(clip: Path, tmp_path: Path) -> None:
    for url in (str(clip), clip.as_uri()):
        places.fetch_url(url, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == clip.read_bytes()
        (tmp_path / "x").unlink()
    places.fetch_url(str(clip), clip)
    odd = tmp_path / "a b#c%d?.bin"
    odd.write_bytes(b"odd")
    places.fetch_url(odd.as_uri(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"odd"


def test_frames_are_those_that_the_video_shows_at_that_time(clip: Path) -> None:
    with sf.VideoReader(clip) as video:
        decoded = [each.image for each in video]
    half = compat.load_structure_video_frames(str(clip), 100, 12, (160, 96), dprint=quiet)
    assert len(half) == 12
    for number, shown in enumerate(half):
        np.testing.assert_array_equal(shown, decoded[2 * number])
    double = compat.load_structure_video_frames(str(clip), 7, 48, (160, 96), dprint=quiet)
    for number, shown in enumerate(double):
        np.testing.assert_array_equal(shown, decoded[number // 2])
    assert len(double) == 7
    (small, *_) = compat.load_structure_video_frames(str(clip), 2, 24, (64, 64), dprint=quiet)
    assert small.shape == (64, 64, 3)


def test_frames_of_uneven_times(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.5, 0.6]
    clip = write_clip(tmp_path / "vfr.mp4", pan_frames(4, 96, 160, dx=8, dy=0), timestamps_s=times)
    with sf.VideoReader(clip) as video:
        decoded = [each.image for each in video]
    shown = compat.load_structure_video_frames(str(clip), 7, 10, (160, 96), dprint=quiet)
    wanted = [0, 1, 1, 1, 1, 2, 3]
    assert [next(i for i, each in enumerate(decoded) if np.array_equal(each, found)) for found in shown] == wanted


@pytest.mark.parametrize(("count", "fps"), [(0, 16), (3, 0), (3, -1)])
def test_frames_of_nothing_are_refused(clip: Path, count: int, fps: float) -> None:
    with pytest.raises(InvalidArgumentError, match="target_"):
        compat.load_structure_video_frames(str(clip), count, fps, (160, 96), dprint=quiet)


def test_a_video_without_motion_is_refused(clip: Path) -> None:
    with pytest.raises(VideoTooShortError, match=r"expected 2 frames at 0\.5 fps, got 1"):
        compat.load_structure_video_frames(str(clip), 5, 0.5, (160, 96), dprint=quiet)


def test_flows_are_of_the_frames_size_and_have_pictures() -> None:
    frames = list(pan_frames(4, 720, 960, dx=6, dy=2))
    flows, pictures = compat.extract_optical_flow_from_frames(frames, dprint=quiet)
    assert len(flows) == len(pictures) == 3
    assert {flow.shape for flow in flows} == {(720, 960, 2)}
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((720, 960, 3), "uint8")}
    # in pixels of the frames, though it was computed on a smaller grid
    np.testing.assert_allclose(np.median(np.stack(flows), axis=(0, 1, 2)), (6, 2), atol=0.2)
    with pytest.raises(FlowError):
        compat.extract_optical_flow_from_frames(frames[:1], dprint=quiet)


def test_counts_are_adjusted_as_in_the_original() -> None:
    flows = [np.full((8, 8, 2), value, np.float32) for value in range(5)]
    adjusted = compat.adjust_flow_field_count(flows, 9, "adjust", quiet)
    assert [float(flow[0, 0, 0]) for flow in adjusted] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert len(compat.adjust_flow_field_count(flows, 3, "clip", quiet)) == 3
    assert len(compat.adjust_flow_field_count(flows, 30, "clip", quiet)) == 5
    with pytest.raises(InvalidArgumentError, match="expected one of adjust, clip, retime"):
        compat.adjust_flow_field_count(flows, 3, "loop", quiet)


def test_motion_is_refused_where_nothing_fits(clip: Path) -> None:
    tracker = compat.GuidanceTracker(5)
    tracker.mark_guided(0, 1)
    frames = [np.zeros((96, 160, 3), np.uint8)] * 5

    def apply(**changed: object) -> object:
        given: dict[str, object] = {
            "frames_for_guide_list": frames,
            "guidance_tracker": tracker,
            "structure_video_path": str(clip),
            "structure_video_treatment": "adjust",
            "parsed_res_wh": (160, 96),
            "fps_helpers": 16,
            "dprint": quiet,
        }
        return compat.apply_structure_motion_with_tracking(**(given | changed))  # type: ignore[arg-type]

    with pytest.raises(GuidanceError, match="expected 96x160 pixels"):
        apply(parsed_res_wh=(96, 160))
    with pytest.raises(GuidanceError, match="expected 5, as the tracker has"):
        apply(frames_for_guide_list=frames[:4])
    with pytest.raises(InputNotFoundError):
        apply(structure_video_path="nowhere.mp4")
    with pytest.raises(InvalidArgumentError, match="structure_video_treatment"):
        apply(structure_video_treatment="loop")
    # nothing was filled, so nothing is marked
    assert tracker.get_unguidanced_ranges() == [(2, 4)]
    apply()
    assert tracker.get_unguidanced_ranges() == []
    assert apply() is frames


def test_importing_it_needs_no_extra() -> None:
    script = (
        "import sys\n"
        "for name in ('av', 'boto3', 'botocore', 'aws_lambda_powertools', 'torch', 'rich'): sys.modules[name] = None\n"
        "import structureflow as sf; from structureflow import compat\n"
        "compat.use_store(sf.MemoryStorage()); print(compat.cache_exists('walk'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
