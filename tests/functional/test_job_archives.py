"""Jobs on archives that others wrote: flows known exactly, so that their pictures have known colours."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import decode_rgb

#: Of the video: 9 frames of 160x96.
FLOWS, HEIGHT, WIDTH = 8, 48, 80


def plain_archive(dx: float, *, backward: bool = True, order: Any = "C") -> bytes:
    """An archive of ``numpy.savez_compressed`` in which everything moves `dx` px of the grid to the right."""
    flows = np.zeros((FLOWS, HEIGHT, WIDTH, 2), np.float32)
    flows[..., 0] = dx
    arrays: dict[str, Any] = {"flows": np.array(flows, order=order)}
    if backward:
        arrays["flows_backward"] = np.array(-flows, order=order)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, original_resolution=(160, 96), display_max_px=4.0, **arrays)
    return buffer.getvalue()


def run_on(runner: JobRunner, document: dict[str, Any], archive: bytes) -> JobRecord:
    """Run a job whose archive is exchanged for another one before its segments start; its motion is taken as it is."""
    runner.put_request("t1", {"tracking": "composed", **document})
    runner.orchestrate("t1")
    shared = load_record(runner.storage, "t1").flow_cache_key
    assert shared is not None
    for key in (keys.job_flows("t1"), shared):
        runner.storage.put(key, archive)
    assert runner.segments("t1").state == "done"
    result = json.loads(runner.storage.get(keys.segment_file("t1", 0, "result.json")).data)
    assert result["flow_source"] == "cache"
    return load_record(runner.storage, "t1")


def flow_pictures(runner: JobRunner) -> list[NDArray[np.float64]]:
    """The mean colour of each flow picture of the report."""
    page = runner.storage.get(keys.job_report("t1")).data.decode()
    colours = []
    for part in page.split("data:image/jpeg;base64,")[1:]:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(part.split('"')[0]))).convert("RGB"), float)
        if picture.std(axis=(0, 1)).max() < 1:
            colours.append(picture.mean(axis=(0, 1)))
    return colours


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize(("dx", "colour"), [(4.0, (255, 0, 0)), (2.0, (255, 128, 128)), (-4.0, (0, 209, 255))])
def test_a_flow_picture_shows_where_the_pixels_go(
    runner: JobRunner, request_document: dict[str, Any], backward: bool, dx: float, colour: tuple[int, ...]
) -> None:
    """Red is to the right (Middlebury), whichever direction the flows are read in."""
    run_on(runner, {**request_document, "treatment": "clip"}, plain_archive(dx, backward=backward))
    shown = flow_pictures(runner)
    assert len(shown) >= 4
    for found in shown:
        np.testing.assert_allclose(found, colour, atol=6)


@pytest.mark.parametrize("resolution", ["160x96", "320x192", "160x160"])
def test_the_scale_of_flow_videos_is_that_of_the_clip(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, resolution: str
) -> None:
    """Half of the clip's longest vector is half saturated at any output size: vectors and scale grow alike."""
    document = {**request_document, "treatment": "clip", "outputs": ["flow_vis"], "resolution": resolution}
    run_on(runner, document, plain_archive(2.0))
    path = tmp_path / "flow_vis.mp4"
    runner.storage.get_to_file(keys.segment_file("t1", 0, "flow_vis.mp4"), path)
    moving = list(decode_rgb(path))[5]
    np.testing.assert_allclose(moving.reshape(-1, 3).mean(axis=0), (255, 128, 128), atol=6)


def test_an_archive_on_a_large_grid_is_averaged_down(
    runner: JobRunner, request_document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("structureflow.jobs.flow_sources.MAX_WORKING_GRID_PX", 40 * 24)
    run_on(runner, {**request_document, "treatment": "clip"}, plain_archive(4.0))
    for found in flow_pictures(runner):
        np.testing.assert_allclose(found, (255, 0, 0), atol=6)
    result = json.loads(runner.storage.get(keys.segment_file("t1", 0, "result.json")).data)
    assert result["fallbacks"] == []


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_of_a_plain_archive_does_not_matter(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, order: str
) -> None:
    run_on(runner, {**request_document, "treatment": "clip"}, plain_archive(2.0, order=order))
    path = tmp_path / "guide.mp4"
    runner.storage.get_to_file(keys.segment_file("t1", 0, "guide.mp4"), path)
    frames = [frame.astype(float) for frame in decode_rgb(path)]
    # 2 px of the grid are 4 px of the output, a frame
    right = np.abs(frames[5][16:-16, 44:-32] - frames[2][16:-16, 32:-44]).mean()
    still = np.abs(frames[5][16:-16, 32:-32] - frames[2][16:-16, 32:-32]).mean()
    assert right < 0.5 * still
