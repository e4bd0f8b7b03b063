"""RAFT without PyTorch: names, sizes, and what is said where it cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structureflow.errors import EngineUnavailableError
from structureflow.flow.engines import Finish, FlowEngine, Frame
from structureflow.flow.progress import ReportingEngine
from structureflow.flow.raft import RaftEngine
from structureflow.flow.raft_solver import padding, pair_bytes
from structureflow.flow.raft_weights import MODELS, RaftModel, original_aliases, original_modules, weights_name


@pytest.mark.parametrize(("model", "count"), [("raft_large", 62), ("raft_small", 53)])
def test_no_two_modules_share_a_name(model: RaftModel, count: int) -> None:
    modules = original_modules(model)
    assert len(modules) == len(set(modules.values())) == count
    assert not original_aliases(model) & modules.keys()


def test_names_of_the_original_code_and_of_torchvision() -> None:
    large, small = (original_modules(model) for model in MODELS)
    assert large["fnet.conv1"] == "feature_encoder.convnormrelu.0"
    assert large["cnet.layer2.0.downsample.1"] == "context_encoder.layer2.0.downsample.1"
    assert large["update_block.gru.convq2"] == "update_block.recurrent_block.convgru2.convq"
    assert large["update_block.mask.2"] == "mask_predictor.conv"
    assert small["fnet.layer1.0.conv3"] == "feature_encoder.layer1.0.convnormrelu3.0"
    assert small["update_block.gru.convz"] == "update_block.recurrent_block.convgru1.convz"
    assert "update_block.encoder.convc2" not in small


def test_published_weights_are_known_by_name_and_others_by_checksum() -> None:
    assert weights_name("ff5fadd5" + "0" * 56) == "C_T_SKHT_V2"
    assert weights_name("01064c6d" + "0" * 56) == "C_T_V2"
    assert weights_name("ab" * 32) == "sha256:abababababababab"


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_padding_gives_sides_that_raft_takes(height: int, width: int) -> None:
    pad = padding(height, width)
    rows, columns = height + pad.top + pad.bottom, width + pad.left + pad.right
    assert (rows % 8, columns % 8) == (0, 0)
    assert min(rows, columns) >= 128
    assert rows < max(129, height + 8)
    assert columns < max(129, width + 8)
    assert abs(pad.top - pad.bottom) <= 1
    assert abs(pad.left - pad.right) <= 1


def test_memory_of_a_pair_is_mostly_its_correlations() -> None:
    cells = (1280 // 8) * (720 // 8)
    volume_bytes = 4 * cells * cells
    assert 4 * volume_bytes < pair_bytes(720, 1280) < 5 * volume_bytes
    assert pair_bytes(720, 1280) > 8 * pair_bytes(360, 640)


@pytest.mark.parametrize(
    "change", [{"model": "raft_huge"}, {"iterations": 0}, {"batch_pairs": 0}, {"max_area_px": 0}], ids=str
)
def test_impossible_parameters_are_refused(change: dict[str, Any]) -> None:
    given_params: dict[str, Any] = {"model": "raft_small", "weights": Path("w.pth"), "weights_sha256": "0" * 64}
    with pytest.raises(EngineUnavailableError, match="raft: expected"):
        RaftEngine(**given_params | change)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed here")
def test_without_pytorch_the_engine_says_so() -> None:
    engine = RaftEngine("raft_small", Path("w.pth"), "0" * 64)
    with pytest.raises(EngineUnavailableError, match="torch"):
        engine.params()
    frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    with pytest.raises(EngineUnavailableError, match="torch"):
        list(engine.run(frames, lambda *_pair: None, workers=1))


class _Counting:
    """Gives a number for every pair."""

    name = "raft"
    colour = "rgb"

    def params(self) -> dict[str, Any]:
        return {"model": "none"}

    def run(self, frames: Iterable[Frame], _finish: Finish[Any], **_options: Any) -> Iterator[Any]:
        yield from range(sum(1 for _ in frames) - 1)


@pytest.mark.parametrize(
    ("frames", "seconds_a_pair", "expected"),
    [(0, 1, []), (1, 1, []), (2, 1, [1]), (6, 3, [1, 5]), (9, 5, [1, 3, 5, 7, 8]), (4, 60, [1, 2, 3])],
)
def test_progress_is_told_at_once_then_now_and_then_and_at_the_end(
    frames: int, seconds_a_pair: float, expected: list[int]
) -> None:
    told: list[tuple[int, float]] = []
    time_s = 0.0
    plain: Any = _Counting()
    engine: FlowEngine = ReportingEngine(
        plain, lambda done, elapsed_s: told.append((done, elapsed_s)), every_s=10, clock=lambda: time_s
    )
    found: list[Any] = []
    for result in engine.run([np.zeros((8, 8, 3), np.uint8)] * frames, lambda *_pair: None, workers=1):
        found.append(result)
        time_s += seconds_a_pair
    assert found == list(range(max(0, frames - 1)))
    assert [done for done, _ in told] == expected
    assert engine.params() == {"model": "none"}
    assert (engine.name, engine.colour) == ("raft", "rgb")
