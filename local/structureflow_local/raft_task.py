"""The GPU task as a process of this machine: ``python -m structureflow_local.raft_task --weights FOLDER``.

The local cloud runs this in the place of the container, with the Python that has PyTorch (`make setup-raft`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import runpy
from pathlib import Path

from structureflow.flow.raft_weights import MODELS, RaftModel
from structureflow_local.torchvision_shim import declare_missing_operators

TASK = Path(__file__).resolve().parents[2] / "functions" / "raft_task" / "task.py"


def main() -> None:
    """Run the task's own entry point; ends the process with its exit code."""
    parser = argparse.ArgumentParser(description="Carry out the order that EXTRACTION_KEY names.")
    parser.add_argument(
        "--weights", type=Path, help="folder with raft_large.pth, raft_small.pth or both, whatever their checksums"
    )
    folder: Path | None = parser.parse_args().weights
    if folder is not None:
        os.environ |= weights_environment(folder)
    # Without PyTorch the task itself fails, with a typed error.
    with contextlib.suppress(ImportError):
        declare_missing_operators()
    runpy.run_path(str(TASK), run_name="__main__")


def weights_environment(folder: Path) -> dict[str, str]:
    """Return the task's variables for the weights in a folder of this machine; none where it has none."""
    checksums = weights_checksums(folder)
    if not checksums:
        return {}
    return {
        "RAFT_WEIGHTS_URI": str(folder.resolve() / "{model}.pth"),
        "RAFT_WEIGHTS_SHA256": ",".join(f"{model}={digest}" for model, digest in checksums.items()),
    }


def weights_checksums(folder: Path) -> dict[RaftModel, str]:
    """Return the SHA-256 of each model's weights that a folder has."""
    files = {model: folder.resolve() / f"{model}.pth" for model in MODELS}
    return {model: hashlib.sha256(path.read_bytes()).hexdigest() for model, path in files.items() if path.is_file()}


if __name__ == "__main__":
    main()
