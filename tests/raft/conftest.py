"""Weights for the tests of RAFT, which run where PyTorch is: `make test-raft`."""

from __future__ import annotations

import importlib.util

import pytest

from structureflow.testing.raft import RandomWeights
from structureflow_local.torchvision_shim import declare_missing_operators

if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
    declare_missing_operators()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> RandomWeights:
    """The small model."""
    return RandomWeights.make("raft_small", tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> RandomWeights:
    """The large model."""
    return RandomWeights.make("raft_large", tmp_path_factory.mktemp("large"))
