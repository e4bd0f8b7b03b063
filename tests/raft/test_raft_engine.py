"""RAFT around torchvision's networks: batches, both directions, padding, bounds, and how it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import EngineUnavailableError, FlowError, ModelWeightsError
from structureflow.flow.extract import ExtractionPlan, extract_from_frames
from structureflow.flow.fields import resize_flow
from structureflow.flow.raft import RaftEngine
from structureflow.flow.raft_solver import padding, pair_bytes
from structureflow.testing.raft import RandomWeights
from structureflow.testing.videos import pan_frames

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")

Frames = list[NDArray[np.uint8]]
Flows = tuple[NDArray[np.float32], NDArray[np.float32]]


def pan(count: int, height: int, width: int) -> Frames:
    return [np.ascontiguousarray(frame) for frame in pan_frames(count, height, width, dx=5, dy=-2, seed=3)]


def keep(_first: Any, _second: Any, forward: NDArray[np.float32], backward: NDArray[np.float32]) -> Flows:
    return forward, backward


def drop(*_pair: Any) -> None:
    """Finish a pair without a result."""


def flows_of(engine: RaftEngine, frames: Frames) -> list[Flows]:
    return list(engine.run(iter(frames), keep, workers=2))


def by_torchvision(weights: RandomWeights, first: Any, second: Any, iterations: int = 3) -> NDArray[np.float32]:
    """Call torchvision's own forward pass on frames whose sides it takes as they are."""
    images = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1 for frame in (first, second)]
    with torch.inference_mode():
        flow = weights.network(*images, num_flow_updates=iterations)[-1]
    found: NDArray[np.float32] = flow[0].permute(1, 2, 0).numpy()
    return found


def furthest(one: Flows, other: Flows) -> float:
    """Return the largest difference between two pairs of fields in pixels."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("model", ["small", "large"])
def test_both_directions_from_one_pass_equal_two_passes_of_torchvision(
    model: str, request: pytest.FixtureRequest
) -> None:
    weights: RandomWeights = request.getfixturevalue(model)
    frames = pan(4, 136, 168)
    found = flows_of(weights.engine(batch_pairs=2), frames)
    assert len(found) == 3
    for index, flows in enumerate(found):
        one, two = frames[index], frames[index + 1]
        expected = by_torchvision(weights, one, two), by_torchvision(weights, two, one)
        assert furthest(flows, expected) < 1e-3
        # Random weights find motion of some kind, and not the same both ways.
        assert np.abs(expected[0]).max() > 0.1
        assert furthest(expected, expected[::-1]) > 0.1


@pytest.mark.parametrize("model", ["small", "large"])
def test_a_batch_is_its_pairs_one_by_one(model: str, request: pytest.FixtureRequest) -> None:
    weights: RandomWeights = request.getfixturevalue(model)
    frames = pan(6, 128, 144)
    alone = flows_of(weights.engine(batch_pairs=1), frames)
    for batch_pairs in (2, 5):
        together = flows_of(weights.engine(batch_pairs=batch_pairs), frames)
        assert max(furthest(a, b) for a, b in zip(alone, together, strict=True)) < 1e-3


def test_a_run_repeats_to_the_bit(small: RandomWeights) -> None:
    frames = pan(4, 128, 136)
    first, second = (flows_of(small.engine(batch_pairs=2), frames) for _ in range(2))
    assert [furthest(one, two) for one, two in zip(first, second, strict=True)] == [0, 0, 0]


@pytest.mark.parametrize("size", [(36, 44), (130, 201), (64, 256), (128, 128)])
def test_odd_and_tiny_frames_are_padded_and_their_flows_cropped(small: RandomWeights, size: tuple[int, int]) -> None:
    height, width = size
    frames = pan(2, height, width)
    ((forward, backward),) = flows_of(small.engine(), frames)
    assert forward.shape == backward.shape == (height, width, 2)
    pad = padding(height, width)
    around = ((pad.top, pad.bottom), (pad.left, pad.right), (0, 0))
    first, second = (np.pad(frame, around, mode="edge") for frame in frames)
    whole = by_torchvision(small, first, second)
    inner = whole[pad.top : pad.top + height, pad.left : pad.left + width]
    assert np.abs(forward - inner).max() < 1e-3


def test_frames_above_the_area_are_shrunk_and_their_flows_resized(small: RandomWeights) -> None:
    frames = pan(3, 256, 320)
    shrunk: list[Any] = [cv2.resize(frame, (160, 128), interpolation=cv2.INTER_AREA) for frame in frames]
    found = flows_of(small.engine(max_area_px=160 * 128), frames)
    expected = [
        (resize_flow(forward, 256, 320), resize_flow(backward, 256, 320))
        for forward, backward in flows_of(small.engine(), shrunk)
    ]
    assert max(furthest(a, b) for a, b in zip(found, expected, strict=True)) < 1e-3
    assert small.engine(max_area_px=160 * 128).params()["max_area_px"] == 160 * 128


def test_frames_of_different_sizes_are_refused(small: RandomWeights) -> None:
    with pytest.raises(FlowError, match="same size"):
        flows_of(small.engine(), [*pan(2, 128, 136), *pan(1, 128, 144)])


@pytest.mark.parametrize(
    "frame",
    [np.zeros((128, 128), np.uint8), np.zeros((128, 128, 3), np.float32), np.zeros((16, 128, 3), np.uint8)],
    ids=["gray", "float", "tiny"],
)
def test_unfit_frames_are_refused(small: RandomWeights, frame: Any) -> None:
    with pytest.raises(FlowError, match="expected \\(h, w, 3\\) uint8"):
        flows_of(small.engine(), [frame, frame])


def test_fewer_than_two_frames_have_no_flows(small: RandomWeights) -> None:
    assert flows_of(small.engine(), []) == []
    assert flows_of(small.engine(), pan(1, 128, 128)) == []


@pytest.mark.parametrize("batch_pairs", [1, 3])
def test_no_more_than_two_batches_are_read_ahead(small: RandomWeights, batch_pairs: int) -> None:
    read = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for frame in pan(14, 128, 128):
            read += 1
            yield frame

    ahead = []
    run = small.engine(batch_pairs=batch_pairs, iterations=1).run(frames(), drop, workers=1)
    for done, _ in enumerate(run, 1):
        ahead.append(read - done)
    assert len(ahead) == 13
    assert max(ahead) <= 2 * batch_pairs + 1


def test_a_batch_shrinks_to_its_memory(small: RandomWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = []
    build = type(small.network.corr_block).build_pyramid

    def watch(block: Any, one: Any, two: Any) -> None:
        volumes.append(one.shape[0])
        build(block, one, two)

    monkeypatch.setattr(type(small.network.corr_block), "build_pyramid", watch)
    frames = pan(6, 128, 128)
    room = pair_bytes(128, 128)
    whole = flows_of(small.engine(batch_pairs=5, memory_bytes=5 * room), frames)
    assert volumes == [2 * 5]
    volumes.clear()
    bounded = flows_of(small.engine(batch_pairs=5, memory_bytes=3 * room - 1), frames)
    assert volumes == [2 * 2, 2 * 2, 2 * 1]
    volumes.clear()
    flows_of(small.engine(batch_pairs=5, memory_bytes=1), frames[:3])
    assert volumes == [2, 2], "one pair at a time is the least"
    assert max(furthest(a, b) for a, b in zip(whole, bounded, strict=True)) < 1e-3


class _Crowded:
    """Plays a GPU that has no room for more than `limit` directions at a time."""

    def __init__(self, build: Any, limit: int) -> None:
        self._build = build
        self._limit = limit
        self.sizes: list[int] = []

    def __call__(self, block: Any, one: Any, two: Any) -> None:
        self.sizes.append(one.shape[0])
        if one.shape[0] > self._limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self._build(block, one, two)


def test_a_batch_without_room_is_halved(small: RandomWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pan(6, 128, 128)
    expected = flows_of(small.engine(batch_pairs=5), frames)
    block = type(small.network.corr_block)
    crowded = _Crowded(block.build_pyramid, limit=4)
    monkeypatch.setattr(block, "build_pyramid", lambda self, one, two: crowded(self, one, two))
    found = flows_of(small.engine(batch_pairs=5), frames)
    assert crowded.sizes == [10, 4, 6, 2, 4]
    assert max(furthest(a, b) for a, b in zip(expected, found, strict=True)) < 1e-3


def test_no_room_for_one_pair_is_a_typed_error(small: RandomWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    block = type(small.network.corr_block)
    crowded = _Crowded(block.build_pyramid, limit=0)
    monkeypatch.setattr(block, "build_pyramid", lambda self, one, two: crowded(self, one, two))
    with pytest.raises(EngineUnavailableError, match="not enough memory for one pair"):
        flows_of(small.engine(), pan(2, 128, 128))


def test_flows_that_are_not_finite_are_refused(small: RandomWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    head = type(small.network.update_block.flow_head)
    plain = head.forward
    monkeypatch.setattr(head, "forward", lambda self, hidden: plain(self, hidden) * math.nan)
    with pytest.raises(FlowError, match="finite"):
        flows_of(small.engine(), pan(2, 128, 128))


def test_an_abandoned_run_leaves_no_thread_and_reads_no_further(small: RandomWeights) -> None:
    read = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for frame in pan(20, 128, 128):
            read += 1
            yield frame

    before = threading.active_count()
    run = small.engine(batch_pairs=2).run(frames(), drop, workers=2)
    next(run)
    assert isinstance(run, Generator)
    run.close()
    assert threading.active_count() == before
    assert read <= 2 * 2 + 2


def test_what_frames_or_finish_raise_comes_through(small: RandomWeights) -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from pan(2, 128, 128)
        raise FlowError("cut off")

    with pytest.raises(FlowError, match="cut off"):
        list(small.engine(batch_pairs=4).run(broken(), drop, workers=1))

    def fail(*_pair: Any) -> None:
        raise FlowError("no room on the disk")

    with pytest.raises(FlowError, match="no room on the disk"):
        list(small.engine().run(iter(pan(3, 128, 128)), fail, workers=1))


def test_params_name_all_that_flows_depend_on(small: RandomWeights) -> None:
    params = small.engine().params()
    assert params["model"] == "raft_small"
    assert params["weights_sha256"] == small.sha256
    assert params["weights"] == f"sha256:{small.sha256[:16]}"
    assert (params["iterations"], params["device"], params["precision"]) == (3, "cpu", "float32")
    assert params["torch"] == torch.__version__
    assert small.engine(precision="float16").params()["precision"] == "float32", "half precision is for GPUs"


def test_an_extraction_by_raft_records_the_weights_that_really_ran(small: RandomWeights) -> None:
    frames = pan(3, 128, 136)
    plan = ExtractionPlan("raft", {"model": "raft_large", "weights": "C_T_SKHT_V2", "iterations": 12}, 128, 136)
    flows = extract_from_frames(frames, plan, original_fps=25, workers=2, engine=small.engine())
    assert flows.meta.engine == "raft"
    assert flows.meta.engine_params["model"] == "raft_small"
    assert flows.meta.engine_params["weights"] == f"sha256:{small.sha256[:16]}"
    assert flows.meta.engine_params["iterations"] == 3
    assert flows.meta.total_flows == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_typed_error(small: RandomWeights) -> None:
    with pytest.raises(EngineUnavailableError, match="CUDA"):
        small.engine(device="cuda").params()
    with pytest.raises(EngineUnavailableError, match="CUDA"):
        flows_of(small.engine(device="cuda"), pan(2, 128, 128))


def test_weights_of_another_model_are_refused(small: RandomWeights) -> None:
    engine = RaftEngine("raft_large", small.path, small.sha256, device="cpu")
    with pytest.raises(ModelWeightsError, match="do not fit raft_large"):
        flows_of(engine, pan(2, 128, 128))
