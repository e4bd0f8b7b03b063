"""RAFT (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020) as a flow engine.

The networks are torchvision's. Around them this engine saves what a call per pair and direction does again and
again: each frame goes once through the feature and the context encoder, for the pair before it and the one after,
and for both directions; both directions of several pairs are iterated as one batch; flows are brought to full
size once, after the last iteration.

Importing this module costs nothing: PyTorch is imported when the engine is used. The base install has none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from structureflow.errors import EngineUnavailableError
from structureflow.flow.engines import EngineName, Finish, Frame
from structureflow.flow.raft_solver import RaftSolver, check_frame, import_torch
from structureflow.flow.raft_weights import MODELS, RaftModel, weights_name
from structureflow.ordered import ordered_map

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RaftEngine:
    """RAFT on a GPU, or on the CPU where there is none.

    Attributes:
        model: ``raft_large`` or ``raft_small``.
        weights: file of the model's weights; see `load_weights`.
        weights_sha256: its SHA-256, 64 hex digits.
        iterations: refinements of each flow, at least 1.
        batch_pairs: most pairs at a time, at least 1; fewer where `memory_bytes` has no room for them, or where they
            have more area than eight of 640x360.
        memory_bytes: bound of a batch's memory; None takes `GPU_MEMORY_SHARE` of what is free on the GPU, or
            `CPU_MEMORY_BYTES`. A batch has one pair at least.
        max_area_px: larger frames are shrunk to about this area, and their flows resized, since memory grows with
            the square of the area.
        device: ``auto`` takes a GPU if there is one.
        precision: of the convolutions on a GPU; ``auto`` is float16 there, as RAFT is trained with it.
            Correlations, coordinates and flows are float32, and so is everything on the CPU.
    """

    model: RaftModel
    weights: Path
    weights_sha256: str
    iterations: int = 12
    batch_pairs: int = 8
    memory_bytes: int | None = None
    max_area_px: int = 1280 * 720
    device: Device = "auto"
    precision: Precision = "auto"
    name: ClassVar[EngineName] = "raft"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise EngineUnavailableError(f"raft: expected a model of {', '.join(MODELS)}, got {self.model!r:.40}")
        if self.iterations < 1 or self.batch_pairs < 1 or self.max_area_px < 1:
            raise EngineUnavailableError(
                f"raft: expected iterations, batch_pairs and max_area_px of at least 1, "
                f"got {self.iterations}, {self.batch_pairs}, {self.max_area_px}"
            )

    @property
    def colour(self) -> Literal["gray", "rgb"]:
        """RGB frames."""
        return "rgb"

    def params(self) -> dict[str, Any]:
        """See `FlowEngine.params`; the device's kind and the precision are those that `run` takes.

        Raises:
            EngineUnavailableError: PyTorch or torchvision cannot be imported, or there is no such device.
        """
        torch, torchvision = import_torch()
        device = self._device(torch)
        return {
            "model": self.model,
            "weights": weights_name(self.weights_sha256),
            "weights_sha256": self.weights_sha256.lower(),
            "iterations": self.iterations,
            "max_area_px": self.max_area_px,
            "device": device,
            "precision": self._precision(device),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        }

    def run(self, frames: Iterable[Frame], finish: Finish[Result], *, workers: int) -> Iterator[Result]:
        """See `FlowEngine.run`.

        One thread works on a batch while the caller's reads the frames of the next one, and `workers` threads
        finish the one before: at most two batches of frames and one more are read ahead of what was yielded.

        Raises:
            FlowError: frames of unfit or different size, or flows that are not finite.
            ModelWeightsError: the weights are missing, damaged, or another model's.
            EngineUnavailableError: no PyTorch, no such device, or not enough memory for one pair.
        """
        stop = threading.Event()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="raft") as device_thread,
            ThreadPoolExecutor(max(1, workers), thread_name_prefix="flow") as pool,
        ):
            try:
                solver = device_thread.submit(RaftSolver, self, max(1, workers), stop).result()
                batches = _batches(frames, lambda *size: device_thread.submit(solver.batch_pairs, *size).result())
                for pairs in ordered_map(batches, solver.solve, 1, pool=device_thread):
                    yield from ordered_map(pairs, lambda pair: finish(*pair), len(pairs), pool=pool)
            finally:
                stop.set()

    def _device(self, torch: Any) -> str:
        if self.device == "cpu":
            return "cpu"
        if torch.cuda.is_available():
            return "cuda"
        if self.device == "cuda":
            raise EngineUnavailableError("raft: expected a CUDA device, found none")
        return "cpu"

    def _precision(self, device: str) -> str:
        if device == "cpu":
            return "float32"
        return "float16" if self.precision == "auto" else self.precision


def _batches(frames: Iterable[Frame], batch_pairs: Callable[[int, int], int]) -> Iterator[list[Frame]]:
    """Group frames, all of one size, by how many pairs are computed at a time.

    The first batch has one frame more: the one that its first pair begins with.
    """
    batch: list[Frame] = []
    first: Frame | None = None
    pairs = wanted = 0
    for frame in frames:
        check_frame(frame, frame if first is None else first)
        if first is None:
            first = frame
            pairs = batch_pairs(frame.shape[0], frame.shape[1])
            wanted = pairs + 1
        batch.append(frame)
        if len(batch) == wanted:
            yield batch
            batch, wanted = [], pairs
    if batch:
        yield batch
