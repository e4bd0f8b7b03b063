"""RAFT in this process, in the place of a GPU task: the order that the orchestrator leaves is carried out at once."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Final

from structureflow import keys
from structureflow.errors import GpuUnavailableError, StructureFlowError
from structureflow.flow.raft_weights import MODELS
from structureflow.jobs.extraction_order import note_failure
from structureflow.jobs.raft_task import MODEL_FIELD, Progress, RaftOptions, carry_out_order
from structureflow.jobs.services import Services
from structureflow.jobs.settle_gpu import SettleGpuInput, settle_gpu
from structureflow_local.missing import RAFT
from structureflow_local.raft_task import weights_checksums
from structureflow_local.torchvision_shim import declare_missing_operators

#: Nothing waits for it but this process.
_TIMEOUT_S: Final = 7 * 24 * 3600.0

_log = logging.getLogger(__name__)


class RaftHere:
    """A `GpuLauncher` whose task is a call; for jobs that ask for RAFT by name, ``auto`` stays with DIS.

    Args:
        weights: folder with ``raft_large.pth``, ``raft_small.pth`` or both, whatever their checksums.
    """

    timeout_s: Final = _TIMEOUT_S
    auto_pixel_frames: Final = 2**62

    def __init__(self, weights: Path) -> None:
        self._weights = weights.resolve()
        self._run: str | None = None

    def start(self, order_key: str, run_id: str) -> str:
        """Take the order; `carry_out` does what it says.

        Raises:
            GpuUnavailableError: PyTorch or the weights are missing here.
        """
        if importlib.util.find_spec("torch") is None:
            raise GpuUnavailableError(f"PyTorch is not installed here: {RAFT}")
        if not any((self._weights / f"{model}.pth").is_file() for model in MODELS):
            raise GpuUnavailableError(f"no {' or '.join(f'{model}.pth' for model in MODELS)} in {self._weights}")
        self._run = run_id
        return order_key

    def stop(self, run_id: str, reason: str) -> None:
        """Nothing runs beside this process."""

    def carry_out(self, services: Services) -> None:
        """Carry out the order that was taken; where RAFT fails, DIS does it, and the job says so.

        Raises:
            TransientError: the store broke off.
        """
        if self._run is None:
            return
        run_id, self._run = self._run, None
        key = keys.gpu_order(run_id)
        declare_missing_operators()
        options = RaftOptions(
            weights=str(self._weights / f"{MODEL_FIELD}.pth"), weights_sha256=weights_checksums(self._weights)
        )
        try:
            carry_out_order(key, options, services, report=_tell)
        except StructureFlowError as error:
            if error.transient:
                raise
            _log.warning("RAFT failed: %s: %s", error.code, error.message)
            note_failure(services.storage, key, error)
            settle_gpu(SettleGpuInput(run_id=run_id, reason="RAFT failed in this process"), services)


def _tell(progress: Progress) -> None:
    _log.info("extracting: %d of %d frames", progress.frames_done, progress.frames_total)
