"""The GPU part of the template on this machine: its task is a process, on a GPU where there is one, else on the CPU.

The task needs PyTorch, which the base install has not: `make setup-raft` makes an environment of its own for it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Final

from structureflow.flow.raft_weights import MODELS
from structureflow_local.client import PreparedJob

REPO: Final = Path(__file__).resolve().parents[2]
#: Where the container's build finds its weights too (docs/gpu.md).
DEFAULT_WEIGHTS: Final = REPO / "functions" / "raft_task" / "weights"
TASK_DEFINITION: Final = "RaftTaskDefinition"

_PYTHON: Final = REPO / ".venv-raft" / "bin" / "python"
#: Nothing here is an AWS resource, but the template demands values, and `engine: auto` shall stay with DIS:
#: without a GPU RAFT takes seconds per pair.
_PARAMETERS: Final = {
    "EnableGpu": "true",
    "GpuImageUri": "local/raft",
    "GpuVpcId": "vpc-local",
    "GpuSubnetIds": "subnet-local",
    "GpuAutoMegapixelFrames": "1000000000",
}


def wants_gpu(job: PreparedJob) -> bool:
    """Tell whether a job asks for RAFT by name."""
    try:
        document = json.loads(job.request)
    except ValueError:
        # what is no request is refused by the orchestrator
        return False
    return isinstance(document, dict) and document.get("engine") == "raft"


def gpu_part(weights: Path | None) -> dict[str, Any]:
    """Return the arguments with which a `LocalCloud` has the GPU part.

    Args:
        weights: folder with ``raft_large.pth``, ``raft_small.pth`` or both, None for `DEFAULT_WEIGHTS`; where it
            has none, the task fails, and the job is done by DIS and says so.
    """
    python = _PYTHON if _PYTHON.exists() else Path(sys.executable)
    command = [
        str(python),
        "-m",
        "structureflow_local.raft_task",
        "--weights",
        str((weights or DEFAULT_WEIGHTS).resolve()),
    ]
    return {"parameters": _PARAMETERS, "task_commands": {TASK_DEFINITION: command}}


def what_is_missing(weights: Path | None) -> str | None:
    """Say why RAFT will not run on this machine, in words for its user; None where nothing is known to be missing."""
    if not _PYTHON.exists() and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed here (make setup-raft)"
    folder = weights or DEFAULT_WEIGHTS
    if not any((folder / f"{model}.pth").is_file() for model in MODELS):
        return f"no {' or '.join(f'{model}.pth' for model in MODELS)} in {folder} (docs/gpu.md)"
    return None
