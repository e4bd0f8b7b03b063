"""Weights of RAFT: checked by their SHA-256, with the tensor names of torchvision or of the original code.

Importing this module costs nothing: PyTorch is imported when weights are loaded.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from structureflow.errors import EngineUnavailableError, ModelWeightsError

__all__ = ["MODELS", "RaftModel"]

RaftModel = Literal["raft_large", "raft_small"]
MODELS: Final[tuple[RaftModel, ...]] = ("raft_large", "raft_small")

#: First eight digits of the SHA-256 of the files that torchvision publishes; they are part of the files' names
#: (torchvision/models/optical_flow/raft.py).
PUBLISHED: Final[Mapping[str, str]] = {
    "22a6c225": "raft_large C_T_V1",
    "1bb1363a": "raft_large C_T_V2",
    "0b8c9e55": "raft_large C_T_SKHT_V1",
    "ff5fadd5": "raft_large C_T_SKHT_V2",
    "4a6a5039": "raft_large C_T_SKHT_K_V1",
    "b5c70766": "raft_large C_T_SKHT_K_V2",
    "ad48884c": "raft_small C_T_V1",
    "01064c6d": "raft_small C_T_V2",
}

_PARALLEL: Final = "module."


def weights_name(sha256: str) -> str:
    """Return the published name of weights, as ``C_T_SKHT_V2``, or the start of their SHA-256 if they have none."""
    published = PUBLISHED.get(sha256[:8])
    return published.split()[1] if published else f"sha256:{sha256[:16]}"


def load_weights(path: Path, sha256: str, *, model: RaftModel) -> dict[str, Any]:
    """Read the weights of a model, and nothing but tensors, from a file with exactly that checksum.

    Args:
        path: a ``.pth`` file: a state dict of torchvision, or of the original code (princeton-vl/RAFT), whose names
            may begin with ``module.``.
        sha256: 64 hex digits.
        model: whose weights they are.

    Returns:
        Tensors on the CPU by torchvision's names.

    Raises:
        ModelWeightsError: no such file, another checksum, no state dict, or names of another model.
        EngineUnavailableError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise EngineUnavailableError(f"PyTorch is not installed: {error}") from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelWeightsError(f"weights {path.name}: cannot be read: {error}", model=model) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256.lower():
        raise ModelWeightsError(
            f"weights {path.name}: expected SHA-256 {sha256.lower()}, got {found}", model=model, sha256=found
        )
    try:
        # Read from the bytes that were checked, not from the file again.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelWeightsError(f"weights {path.name}: expected a state dict: {error}", model=model) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelWeightsError(f"weights {path.name}: expected names and tensors, got {type(state)}", model=model)
    return with_torchvision_names(state, model)


def with_torchvision_names(state: Mapping[str, Any], model: RaftModel) -> dict[str, Any]:
    """Return a state dict by torchvision's names, if it has the original code's; otherwise as it is.

    Raises:
        ModelWeightsError: it has the original code's names, but not all and only those of `model`.
    """
    plain = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    if not any(name.startswith("fnet.") for name in plain):
        return plain
    modules, aliases = original_modules(model), original_aliases(model)
    renamed: dict[str, Any] = {}
    for name, value in plain.items():
        module, _, leaf = name.rpartition(".")
        if module in aliases:
            continue
        if module not in modules:
            raise ModelWeightsError(f"weights: {name!r:.120} is no tensor of {model}", model=model)
        renamed[f"{modules[module]}.{leaf}"] = value
    missing = set(modules.values()) - {name.rpartition(".")[0] for name in renamed}
    if missing:
        raise ModelWeightsError(f"weights: {model} needs {min(missing)!r}, which is not there", model=model)
    return renamed


def original_modules(model: RaftModel) -> dict[str, str]:
    """Return torchvision's name of every module with weights, by its name in the original code.

    Source: ``core/{raft,extractor,update}.py`` of princeton-vl/RAFT; torchvision's ``raft.py`` has the same layers
    in the same order.
    """
    return dict(_modules(model))


def original_aliases(model: RaftModel) -> frozenset[str]:
    """Return second names in the original code: a block's last norm is part of its ``downsample`` as well."""
    if model == "raft_small":
        return frozenset()
    return frozenset(f"cnet.layer{layer}.0.norm3" for layer in (2, 3))


def _modules(model: RaftModel) -> Iterator[tuple[str, str]]:
    large = model == "raft_large"
    # Instance norms have no weights, and the small context encoder has no norms.
    yield from _encoder("fnet", "feature_encoder", convolutions=2 if large else 3, norms=False)
    yield from _encoder("cnet", "context_encoder", convolutions=2 if large else 3, norms=large)
    motion, theirs = "update_block.motion_encoder", "update_block.encoder"
    yield f"{theirs}.convc1", f"{motion}.convcorr1.0"
    if large:
        yield f"{theirs}.convc2", f"{motion}.convcorr2.0"
    yield f"{theirs}.convf1", f"{motion}.convflow1.0"
    yield f"{theirs}.convf2", f"{motion}.convflow2.0"
    yield f"{theirs}.conv", f"{motion}.conv.0"
    for unit in ("1", "2") if large else ("",):
        for gate in "zrq":
            yield (
                f"update_block.gru.conv{gate}{unit}",
                f"update_block.recurrent_block.convgru{unit or '1'}.conv{gate}",
            )
    yield "update_block.flow_head.conv1", "update_block.flow_head.conv1"
    yield "update_block.flow_head.conv2", "update_block.flow_head.conv2"
    if large:
        yield "update_block.mask.0", "mask_predictor.convrelu.0"
        yield "update_block.mask.2", "mask_predictor.conv"


def _encoder(theirs: str, ours: str, *, convolutions: int, norms: bool) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.conv1", f"{ours}.convnormrelu.0"
    if norms:
        yield f"{theirs}.norm1", f"{ours}.convnormrelu.1"
    for layer in (1, 2, 3):
        for block in (0, 1):
            place = f"layer{layer}.{block}"
            for number in range(1, convolutions + 1):
                yield f"{theirs}.{place}.conv{number}", f"{ours}.{place}.convnormrelu{number}.0"
                if norms:
                    yield f"{theirs}.{place}.norm{number}", f"{ours}.{place}.convnormrelu{number}.1"
            if layer > 1 and block == 0:
                yield f"{theirs}.{place}.downsample.0", f"{ours}.{place}.downsample.0"
                if norms:
                    yield f"{theirs}.{place}.downsample.1", f"{ours}.{place}.downsample.1"
    yield f"{theirs}.conv2", f"{ours}.conv"
