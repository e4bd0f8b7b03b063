"""Weights from files: the checksum, nothing but tensors, and the names of the original code."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import ModelWeightsError
from structureflow.flow.raft_weights import MODELS, RaftModel, load_weights, original_modules
from structureflow.testing.raft import RandomWeights, original_state, random_model, write_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")


@pytest.mark.parametrize("model", MODELS)
def test_names_map_one_to_one_onto_torchvision(model: RaftModel) -> None:
    modules = {name.rpartition(".")[0] for name in random_model(model).state_dict()}
    mapping = original_modules(model)
    assert set(mapping.values()) == modules
    assert len(set(mapping.values())) == len(mapping)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_the_original_code_loads(model: RaftModel, tmp_path: Path) -> None:
    network = random_model(model, seed=5)
    state = network.state_dict()
    original = original_state(state, model)
    assert all(name.startswith(("module.fnet.", "module.cnet.", "module.update_block.")) for name in original)
    sha256 = write_weights(tmp_path / "raft-things.pth", original)
    loaded = load_weights(tmp_path / "raft-things.pth", sha256, model=model)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_torchvision_load_as_they_are(small: RandomWeights) -> None:
    state = small.network.state_dict()
    loaded = load_weights(small.path, small.sha256.upper(), model="raft_small")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert loaded.keys() == state.keys()


def test_another_checksum_is_refused_before_anything_is_read(small: RandomWeights, tmp_path: Path) -> None:
    data = bytearray(small.path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(data)
    with pytest.raises(ModelWeightsError, match="expected SHA-256") as caught:
        load_weights(damaged, small.sha256, model="raft_small")
    assert caught.value.detail["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelWeightsError, match="cannot be read"):
        load_weights(tmp_path / "none.pth", "0" * 64, model="raft_small")


class _Escape:
    """A pickle that would write a file when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_file_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    trace, file = tmp_path / "ran", tmp_path / "evil.pth"
    sha256 = write_weights(file, {"fnet.conv1.weight": _Escape(trace)})
    with pytest.raises(ModelWeightsError, match="expected a state dict"):
        load_weights(file, sha256, model="raft_small")
    assert not trace.exists()


@pytest.mark.parametrize(
    "data", [b"", b"no weights at all", pickle.dumps([1, 2], protocol=2)], ids=["empty", "text", "pickle"]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(data)
    with pytest.raises(ModelWeightsError, match="expected"):
        load_weights(file, hashlib.sha256(data).hexdigest(), model="raft_small")


def test_a_state_dict_of_other_things_is_refused(tmp_path: Path) -> None:
    sha256 = write_weights(tmp_path / "w.pth", {"epoch": 3})
    with pytest.raises(ModelWeightsError, match="names and tensors"):
        load_weights(tmp_path / "w.pth", sha256, model="raft_small")


def test_original_weights_of_the_other_model_are_refused(tmp_path: Path) -> None:
    for model, other in (MODELS, MODELS[::-1]):
        state = original_state(random_model(model).state_dict(), model)
        sha256 = write_weights(tmp_path / "w.pth", state)
        with pytest.raises(ModelWeightsError, match=f"no tensor of {other}|{other} needs"):
            load_weights(tmp_path / "w.pth", sha256, model=other)
