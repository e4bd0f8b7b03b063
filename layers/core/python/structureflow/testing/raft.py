"""RAFT with seeded random weights: as many tensors as the trained ones, and no download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structureflow.flow.raft import RaftEngine
from structureflow.flow.raft_weights import RaftModel, original_aliases, original_modules


@dataclass(frozen=True)
class RandomWeights:
    """A model with random weights, and the file that has them."""

    model: RaftModel
    network: Any
    path: Path
    sha256: str

    @classmethod
    def make(cls, model: RaftModel, folder: Path, *, seed: int = 0) -> RandomWeights:
        """Write ``{model}.pth`` into `folder`."""
        network = random_model(model, seed=seed)
        path = folder / f"{model}.pth"
        return cls(model, network, path, write_weights(path, network.state_dict()))

    def engine(self, **options: Any) -> RaftEngine:
        """Return an engine with these weights, on the CPU and with few iterations if `options` say nothing else."""
        chosen: dict[str, Any] = {"iterations": 3, "device": "cpu"} | options
        return RaftEngine(self.model, self.path, self.sha256, **chosen)


def random_model(model: RaftModel, *, seed: int = 0) -> Any:
    """Build torchvision's model with seeded random weights, ready to be called; batch norms do something too."""
    import torch
    from torchvision.models import optical_flow

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = getattr(optical_flow, model)(weights=None).eval()
        for name, buffer in network.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5) if name.endswith("running_var") else buffer.normal_(std=0.1)
    return network


def write_weights(path: Path, state: dict[str, Any]) -> str:
    """Write a state dict to `path` as PyTorch does, and return the file's SHA-256."""
    import torch

    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def original_state(state: dict[str, Any], model: RaftModel) -> dict[str, Any]:
    """Give tensors by torchvision's names the names that the original code's checkpoints have."""
    theirs = {ours: name for name, ours in original_modules(model).items()}
    renamed = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        renamed[f"module.{theirs[module]}.{leaf}"] = tensor
    for alias in original_aliases(model):
        block = alias.rpartition(".")[0]
        copies = {
            f"module.{alias}.{name.rpartition('.')[2]}": tensor
            for name, tensor in renamed.items()
            if name.startswith(f"module.{block}.downsample.1.")
        }
        renamed |= copies
    return renamed
