"""Engines: known motion, guards, determinism over workers; the registry; working sizes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import EngineUnavailableError, FlowError
from structureflow.flow.engines import (
    DEFAULT_ENGINES,
    DisEngine,
    EnginePreset,
    EngineRegistry,
    FarnebackEngine,
    build_engine,
    working_size,
)
from structureflow.testing.flows import panning_frames


def _gray(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in frames]


PRESETS = [(name, quality) for name, quality in DEFAULT_ENGINES.presets if name != "raft"]


@pytest.mark.parametrize(("name", "quality"), PRESETS)
def test_a_pan_is_found_in_both_directions(name: str, quality: str) -> None:
    engine = build_engine(name, DEFAULT_ENGINES.preset(name, quality).params)
    frames = _gray(panning_frames(3, 120, 160, (5, -3)))
    results = list(engine.run(iter(frames), lambda _a, _b, forward, backward: (forward, backward), workers=2))
    assert len(results) == 2
    for forward, backward in results:
        assert forward.shape == (120, 160, 2)
        assert forward.dtype == np.float32
        # presets that search on a quarter of the grid leave the last fifth of a pixel to the refined paths
        off_px = 0.2 if engine.params().get("finest_scale", 0) == 2 else 0.1
        np.testing.assert_allclose(np.median(forward[20:-20, 20:-20], axis=(0, 1)), [5, -3], atol=off_px)
        np.testing.assert_allclose(np.median(backward[20:-20, 20:-20], axis=(0, 1)), [-5, 3], atol=off_px)


def test_a_still_picture_has_no_flow() -> None:
    frame = _gray(panning_frames(1, 96, 96, (0, 0)))[0]
    assert np.abs(DisEngine()(frame, frame)).max() < 0.05
    assert np.abs(FarnebackEngine()(frame, frame)).max() < 0.1


@pytest.mark.parametrize("engine", [DisEngine(), FarnebackEngine()])
def test_the_flows_do_not_depend_on_the_number_of_workers(engine: Any) -> None:
    frames = _gray(panning_frames(9, 64, 96, (3, 1)))

    def run(workers: int) -> list[bytes]:
        results = engine.run(iter(frames), lambda _a, _b, f, b: f.tobytes() + b.tobytes(), workers=workers)
        return list(results)

    alone = run(1)
    assert len(alone) == 8
    assert run(3) == alone
    assert alone[4] == engine(frames[4], frames[5]).tobytes() + engine(frames[5], frames[4]).tobytes()


def test_look_ahead_is_bounded() -> None:
    frames = _gray(panning_frames(1, 40, 40, (0, 0))) * 60
    read = 0

    def counted() -> Any:
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    results = DisEngine().run(counted(), lambda *_: None, workers=2)
    next(results)
    assert read <= 2 * 2 + 3
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(16, 16), (31, 200), (200, 31)])
def test_tiny_frames_are_refused_before_the_engine_sees_them(size: tuple[int, int]) -> None:
    frame = np.zeros(size, np.uint8)
    for engine in (DisEngine(), FarnebackEngine()):
        with pytest.raises(FlowError, match="sides of at least 32"):
            engine(frame, frame)
        with pytest.raises(FlowError, match="sides of at least 32"):
            list(engine.run([frame, frame], lambda *_: None, workers=1))


def test_the_smallest_frames_work() -> None:
    frames = _gray(panning_frames(2, 32, 32, (1, 0)))
    for name, quality in PRESETS:
        engine: Any = build_engine(name, DEFAULT_ENGINES.preset(name, quality).params)
        assert np.isfinite(engine(frames[0], frames[1])).all()


def test_frames_of_other_kinds_are_refused() -> None:
    good = np.zeros((40, 40), np.uint8)
    for bad in (np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.float32), np.zeros((40, 48), np.uint8)):
        with pytest.raises(FlowError, match="expected"):
            DisEngine()(good, bad)  # type: ignore[arg-type]


def test_an_error_in_the_caller_s_function_comes_through() -> None:
    frames = _gray(panning_frames(5, 40, 40, (0, 0)))

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        list(DisEngine().run(frames, fail, workers=2))


def test_parameters_name_all_that_the_flow_depends_on() -> None:
    params = DisEngine(patch_stride=3).params()
    assert params["patch_stride"] == 3
    assert params["opencv"] == cv2.__version__
    assert build_engine("dis", params) == DisEngine(patch_stride=3)


def test_what_cannot_run_here_says_so() -> None:
    with pytest.raises(EngineUnavailableError, match="does not run here"):
        build_engine("raft", DEFAULT_ENGINES.preset("raft", "best").params)
    with pytest.raises(EngineUnavailableError, match="unexpected"):
        build_engine("dis", {"unexpected": 1})
    with pytest.raises(EngineUnavailableError, match="expected one of dis/balanced"):
        DEFAULT_ENGINES.preset("dis", "superb")


def test_registering_makes_a_new_registry() -> None:
    empty = EngineRegistry()
    preset = EnginePreset("dis", {"finest_scale": 2}, 1000)
    filled = empty.register("fast", preset)
    assert empty.presets == {}
    assert filled.preset("dis", "fast") is preset
    assert filled.register("fast", EnginePreset("dis", {}, 5)).preset("dis", "fast").area_px == 5
    assert filled.preset("dis", "fast") is preset


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        ((720, 1280), 384 * 216, (216, 384)),
        ((1280, 720), 384 * 216, (384, 216)),
        ((480, 832), 640 * 360, (368, 632)),
        ((100, 100), 384 * 216, (96, 96)),
        ((32, 4096), 384 * 216, (32, 3256)),
        ((40, 36), 384 * 216, (40, 32)),
        ((63, 47), 384 * 216, (56, 40)),
        ((20, 30), 384 * 216, (32, 32)),
    ],
)
def test_working_sizes_keep_the_aspect(size: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    height, width = working_size(*size, area)
    assert height % 8 == width % 8 == 0
    assert (height, width) == expected
