"""The sample clip: the script still draws it, and its motion is the motion that the script knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from structureflow.testing.videos import Image, count_frames, decode_rgb
from structureflow_local.sample import FPS, FRAMES, HEIGHT, WIDTH, Plane, SampleScene

SKY, MOUNTAINS, HILLS, BALLOON, MEADOW = range(5)
PROBES = (0, 24, 48, 72, FRAMES - 2)


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene()


@pytest.fixture(scope="module")
def clip(repo: Path) -> Path:
    return repo / "local" / "sample" / "structure.mp4"


@pytest.fixture(scope="module")
def decoded(clip: Path) -> list[Image]:
    return list(decode_rgb(clip))


def gray(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def measure(first: Image, second: Image) -> Plane:
    engine: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(engine.calc(first, second, None), np.float32)


def endpoint_error(measured: Plane, known: Plane) -> Plane:
    return np.asarray(np.hypot(*np.moveaxis(measured - known, -1, 0)), np.float32)


def test_the_committed_file_is_small_real_h264(clip: Path, decoded: list[Image]) -> None:
    assert clip.stat().st_size < 400_000
    assert len(decoded) == FRAMES >= 73
    assert decoded[0].shape == (HEIGHT, WIDTH, 3) == (360, 640, 3)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", FPS)


def test_the_script_draws_the_committed_file(scene: SampleScene, decoded: list[Image]) -> None:
    for index in PROBES:
        drawn = scene.frame(index).astype(np.float64)
        errors = [float(np.mean((drawn - decoded[at]) ** 2)) for at in (index, index + 1)]
        assert errors[0] < 50  # 31 dB: what the encoder loses on needles and grass
        assert errors[0] < errors[1] / 2  # and no neighbour fits as well


def test_the_command_writes_the_same_film(scene: SampleScene, tmp_path: Path) -> None:
    out = tmp_path / "again.mp4"
    run = subprocess.run(
        [sys.executable, "-m", "structureflow_local.sample", str(out)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "97 frames, 640x360, 25 fps" in run.stdout
    assert count_frames(out) == FRAMES
    first = next(decode_rgb(out)).astype(np.float64)
    assert np.mean((first - scene.frame(0)) ** 2) < 50


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("index", PROBES)
def test_measured_flow_is_the_known_motion(
    scene: SampleScene, decoded: list[Image], index: int, direction: str
) -> None:
    first, second = gray(decoded[index]), gray(decoded[index + 1])
    if direction == "forward":
        known, labels, measured = scene.forward_flow(index), scene.labels(index), measure(first, second)
    else:
        known, labels = scene.backward_flow(index), scene.labels(index + 1)
        measured = measure(second, first)
    errors = endpoint_error(measured, known)
    assert np.median(errors) < 0.25
    for layer in (SKY, MOUNTAINS, HILLS, BALLOON, MEADOW):
        assert np.median(errors[labels == layer]) < 0.6
    # The truth explains the measurement far better than the opposite direction does.
    assert np.median(endpoint_error(measured, -known)) > 4 * np.median(errors)


def test_known_motion_explains_the_drawn_pictures(scene: SampleScene) -> None:
    """Pulling frame t out of frame t + 1 along the truth restores it wherever the same layer is seen."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for index in PROBES:
        flow = scene.forward_flow(index)
        at_x, at_y = x + flow[..., 0], y + flow[..., 1]
        pulled = cv2.remap(scene.frame(index + 1), at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        same = cv2.remap(scene.labels(index + 1), at_x, at_y, cv2.INTER_NEAREST, borderValue=99) == scene.labels(index)
        same = cv2.erode(same.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert same.mean() > 0.7
        before, still = scene.frame(index), scene.frame(index + 1)
        error = np.abs(pulled.astype(int) - before)[same].mean()
        unmoved = np.abs(still.astype(int) - before)[same].mean()
        assert error < 4
        assert error < unmoved / 2.5


def test_a_pine_hides_part_of_the_balloon_for_a_while(scene: SampleScene) -> None:
    area = np.array([(scene.labels(index) == BALLOON).sum() for index in range(0, FRAMES, 4)])
    assert area.min() < 0.7 * area.max()
    assert area[-1] > 0.9 * area.max()


def test_nearer_layers_pass_faster_and_the_balloon_goes_against_them(scene: SampleScene) -> None:
    labels, flow = scene.labels(48), scene.forward_flow(48)
    speeds = [float(flow[labels == layer][0, 0]) for layer in (SKY, MOUNTAINS, HILLS, MEADOW)]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] < 0 < flow[labels == BALLOON][0, 0]
