"""RAFT on a GPU against RAFT on the CPU: only where there is one (CI has none)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.flow.raft import RaftEngine
from structureflow.testing.raft import RandomWeights
from structureflow.testing.videos import pan_frames

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

Frames = list[NDArray[np.uint8]]
Field = NDArray[np.float32]


def pan(count: int, height: int, width: int) -> Frames:
    return [np.ascontiguousarray(frame) for frame in pan_frames(count, height, width, dx=5, dy=-2, seed=3)]


def flows_of(engine: RaftEngine, frames: Frames) -> Field:
    """Return ``(pairs, 2, h, w, 2)`` float32 in pixels, both directions of every pair."""

    def keep(_first: Any, _second: Any, forward: Field, backward: Field) -> Field:
        return np.stack([forward, backward])

    return np.stack(list(engine.run(iter(frames), keep, workers=2)))


@pytest.mark.parametrize("model", ["small", "large"])
def test_whole_numbers_on_the_gpu_are_those_of_the_cpu(model: str, request: pytest.FixtureRequest) -> None:
    weights: RandomWeights = request.getfixturevalue(model)
    frames = pan(4, 136, 168)
    expected = flows_of(weights.engine(device="cpu"), frames)
    found = flows_of(weights.engine(device="cuda", precision="float32"), frames)
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() < 1e-2


@pytest.mark.parametrize("size", [(360, 640), (544, 960), (1080, 1920)])
def test_the_sizes_that_jobs_have(large: RandomWeights, size: tuple[int, int]) -> None:
    """Both working sizes, in batches with more cells than cuDNN samples in one call, and a frame of many cells."""
    frames = pan(9, *size)
    options = {"device": "cuda", "precision": "float32", "iterations": 2, "max_area_px": 1920 * 1080}
    together = flows_of(large.engine(**options, batch_pairs=8), frames)
    alone = flows_of(large.engine(**options, batch_pairs=1), frames)
    assert together.shape == (8, 2, *size, 2)
    assert np.abs(together - alone).mean() < 1e-2 * np.abs(alone).mean()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_stays_near(large: RandomWeights, precision: str) -> None:
    frames = pan(4, 136, 168)
    expected = flows_of(large.engine(device="cuda", precision="float32"), frames)
    found = flows_of(large.engine(device="cuda", precision=precision), frames)
    assert found.dtype == np.float32
    error = np.abs(found - expected).mean() / np.abs(expected).mean()
    assert 0 < error < 0.1


def test_a_batch_is_its_pairs_one_by_one_and_a_run_repeats(small: RandomWeights) -> None:
    frames = pan(7, 128, 144)
    alone = flows_of(small.engine(device="cuda", precision="float32", batch_pairs=1), frames)
    together, again = (
        flows_of(small.engine(device="cuda", precision="float32", batch_pairs=4), frames) for _ in range(2)
    )
    assert np.abs(alone - together).max() < 1e-2
    assert np.array_equal(together, again)


def test_a_gpu_too_full_for_the_batch_takes_it_in_halves(small: RandomWeights) -> None:
    """Memory that another process took after the batch was sized: the flows are the same, only slower."""
    frames = pan(9, 256, 320)
    expected = flows_of(small.engine(device="cuda", precision="float32", batch_pairs=8), frames)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    flows_of(small.engine(device="cuda", precision="float32", batch_pairs=1), frames)
    one_pair = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    # Room for two pairs, while eight are asked for.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2.5 * one_pair / total))
    try:
        found = flows_of(small.engine(device="cuda", precision="float32", batch_pairs=8, memory_bytes=total), frames)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.abs(found - expected).max() < 1e-2


def test_what_the_engine_says_of_itself(small: RandomWeights) -> None:
    params = small.engine(device="auto", precision="auto").params()
    assert params["device"] == "cuda"
    assert params["precision"] in {"float16", "bfloat16", "float32"}
