"""What RAFT computes: batches of pairs on one device, in one thread. PyTorch is imported when a solver is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import EngineUnavailableError, FlowError, ModelWeightsError
from structureflow.flow.engines import MIN_SIDE_PX, Flow, Frame, working_size
from structureflow.flow.fields import resize_flow
from structureflow.flow.raft_weights import load_weights

if TYPE_CHECKING:
    from torch import Tensor

    from structureflow.flow.raft import RaftEngine

#: RAFT works on a grid of one cell per 8x8 pixels ...
CELL_PX: Final = 8
#: ... which its correlation pyramid halves three times, to two cells at least (torchvision's ``build_pyramid``).
MIN_WORKING_SIDE_PX: Final = 128

#: Memory of a batch where PyTorch can't say what is free.
CPU_MEMORY_BYTES: Final = 2_000_000_000
#: Of the GPU's free memory; the rest is for weights, fragments and cuDNN's workspaces.
GPU_MEMORY_SHARE: Final = 0.8
#: Of a batch's frames together: eight pairs at 640x360. Larger batches are hardly faster (on an H200 2 % at 1280x720,
#: eight against one, for six times the memory), and PyTorch pools no more than 2^31 correlations in one call.
BATCH_AREA_PX: Final = 8 * 640 * 360
#: Activations of the encoders, of one iteration and of the upsampling, per pixel of a pair, roughly.
_ACTIVATION_BYTES_PER_PX: Final = 800

Pair = tuple[Frame, Frame, Flow, Flow]


class Padding(NamedTuple):
    """Pixels that are added at each side of a frame, and cut off its flow."""

    left: int
    right: int
    top: int
    bottom: int


def padding(height: int, width: int) -> Padding:
    """Return what brings a frame to sides that RAFT takes, half of it on either side."""

    def split(side: int) -> tuple[int, int]:
        missing = max(MIN_WORKING_SIDE_PX, -side // CELL_PX * -CELL_PX) - side
        return missing // 2, missing - missing // 2

    return Padding(*split(width), *split(height))


def pair_bytes(height: int, width: int) -> int:
    """Return about how many bytes both directions of one pair take while they are computed.

    The correlation of every cell with every cell, float32, twice for each direction: torchvision scales it out of
    place. And activations. Measured at 640x360 and 1280x720, a pair took at most what this says.
    """
    pad = padding(height, width)
    area_px = (height + pad.top + pad.bottom) * (width + pad.left + pad.right)
    cells = area_px // CELL_PX**2
    return 2 * 2 * 4 * cells * cells + _ACTIVATION_BYTES_PER_PX * area_px


class RaftSolver:
    """One pass over the frames of a video; every method runs in one and the same thread."""

    def __init__(self, engine: RaftEngine, threads: int, stop: threading.Event) -> None:
        self._torch, _ = import_torch()
        self._engine = engine
        self._stop = stop
        self._device = engine._device(self._torch)  # noqa: SLF001 - the engine's other half
        self._precision = engine._precision(self._device)  # noqa: SLF001
        self._torch.set_num_threads(threads)
        self._model = _load_model(engine).to(self._device)
        self._last: tuple[Frame, Tensor] | None = None

    def batch_pairs(self, height: int, width: int) -> int:
        """Return how many pairs of frames of that size are computed at a time."""
        bound = self._engine.memory_bytes
        if bound is None:
            if self._device == "cuda":
                bound = int(self._torch.cuda.mem_get_info()[0] * GPU_MEMORY_SHARE)
            else:
                bound = CPU_MEMORY_BYTES
        height, width = self._working_size(height, width)
        fitting = min(bound // pair_bytes(height, width), BATCH_AREA_PX // (height * width))
        return max(1, min(self._engine.batch_pairs, fitting))

    def solve(self, frames: list[Frame]) -> list[Pair]:
        """Return the pairs that end in `frames`, the first beginning with the frame before them, if any.

        Args:
            frames: each ``(h, w, 3) uint8 RGB``.
        """
        torch = self._torch
        height, width = frames[0].shape[:2]
        # cuDNN would otherwise choose algorithms by their speed, and sum in another order on the next run.
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with torch.inference_mode(), deterministic:
            encoded = self._encode(frames)
            if self._last is not None:
                frames = [self._last[0], *frames]
                encoded = torch.cat([self._last[1], encoded])
            self._last = frames[-1], encoded[-1:].clone()
            if len(frames) < 2:
                return []
            flows = self._in_parts(
                lambda start, stop: self._refine(encoded[start : stop + 1]), count=len(frames) - 1, what="pair"
            )
            both = self._at_size(flows.cpu().numpy(), height, width)
        return [
            (first, second, *directions)
            for first, second, directions in zip(frames[:-1], frames[1:], both, strict=True)
        ]

    def _encode(self, frames: list[Frame]) -> Tensor:
        """Return features and context of frames, each computed once, as ``(n, channels, h/8, w/8)`` float32."""
        torch = self._torch
        height, width = self._working_size(*frames[0].shape[:2])
        pad = padding(height, width)
        shrunk = [_shrink(frame, height, width) for frame in frames]

        def encode(start: int, stop: int) -> Tensor:
            self._check_stop()
            stacked = torch.from_numpy(np.stack(shrunk[start:stop])).to(self._device)
            images = stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
            images = torch.nn.functional.pad(images, tuple(pad), mode="replicate")
            with self._mixed_precision():
                features = self._model.feature_encoder(images)
                context = self._model.context_encoder(images)
            return torch.cat([features.float(), context.float()], dim=1)

        return self._in_parts(encode, count=len(frames), what="frame")

    def _refine(self, encoded: Tensor) -> Tensor:
        """Return the flows of ``n`` neighbouring encoded frames.

        Returns:
            ``(n - 1, 2, height, width, 2)`` float32: per pair forward and backward, at working size.
        """
        torch, model = self._torch, self._model
        hidden_size = model.update_block.hidden_state_size
        feature_size = model.feature_encoder.output_dim
        features, initial, context = encoded.split(
            [feature_size, hidden_size, encoded.shape[1] - feature_size - hidden_size], dim=1
        )
        # Forward pairs look from each frame at the next one, backward pairs from each at the one before.
        here, there = slice(None, -1), slice(1, None)
        hidden, context = (torch.cat([part[here], part[there]]) for part in (initial.tanh(), context.relu()))
        model.corr_block.build_pyramid(
            torch.cat([features[here], features[there]]).contiguous(),
            torch.cat([features[there], features[here]]).contiguous(),
        )
        count, _, rows, columns = hidden.shape
        grid = torch.stack(
            torch.meshgrid(
                torch.arange(columns, dtype=torch.float32, device=self._device),
                torch.arange(rows, dtype=torch.float32, device=self._device),
                indexing="xy",
            )
        ).expand(count, 2, rows, columns)
        flow = torch.zeros_like(grid)
        try:
            for _ in range(self._engine.iterations):
                self._check_stop()
                # One small picture per cell and direction: cuDNN samples at most 65,535 of them in one call.
                with torch.backends.cudnn.flags(enabled=False):
                    correlation = model.corr_block.index_pyramid(centroids_coords=grid + flow)
                with self._mixed_precision():
                    hidden, step = model.update_block(hidden, context, correlation, flow)
                flow = flow + step.float()
        finally:
            model.corr_block.corr_pyramid = []
        return self._full_size(flow, hidden)

    def _full_size(self, flow: Tensor, hidden: Tensor) -> Tensor:
        """Bring flows of cells, ``(2n, 2, h/8, w/8)``, to ``(n, 2, h, w, 2)`` of pixels: per pair both directions."""
        torch = self._torch
        if self._model.mask_predictor is None:
            # Without a learnt mask: bilinear, corners on corners, as the small model is trained.
            fine = CELL_PX * torch.nn.functional.interpolate(
                flow, scale_factor=CELL_PX, mode="bilinear", align_corners=True
            )
        else:
            with self._mixed_precision():
                mask = self._model.mask_predictor(hidden)
            fine = _convex_upsampling(torch, flow, mask.float())
        forward, backward = fine.permute(0, 2, 3, 1).chunk(2)
        return torch.stack([forward, backward], dim=1)

    def _at_size(self, flows: NDArray[np.float32], height: int, width: int) -> Iterator[tuple[Flow, Flow]]:
        """Cut the padding off and give flows the size of the frames; raises `FlowError` if they are not finite."""
        pad = padding(*self._working_size(height, width))
        rows, columns = flows.shape[2] - pad.top - pad.bottom, flows.shape[3] - pad.left - pad.right
        inner = flows[:, :, pad.top : pad.top + rows, pad.left : pad.left + columns]
        for forward, backward in inner:
            yield resize_flow(forward, height, width), resize_flow(backward, height, width)

    def _in_parts(self, compute: Callable[[int, int], Tensor], *, count: int, what: str) -> Tensor:
        """Return ``compute(0, count)``; where the GPU has no memory for it, halves one after the other."""
        torch = self._torch

        def part(start: int, stop: int) -> Tensor:
            try:
                return compute(start, stop)
            except torch.OutOfMemoryError as error:
                if stop - start == 1:
                    raise EngineUnavailableError(f"raft: not enough memory for one {what}: {error}") from error
            # Outside of the handler, which holds the failed computation's tensors through its traceback.
            torch.cuda.empty_cache()
            middle = (start + stop) // 2
            return torch.cat([part(start, middle), part(middle, stop)])

        return part(0, count)

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        if height * width <= self._engine.max_area_px:
            return height, width
        return working_size(height, width, self._engine.max_area_px)

    def _mixed_precision(self) -> Any:
        dtype = getattr(self._torch, self._precision)
        return self._torch.autocast(self._device, dtype=dtype, enabled=dtype != self._torch.float32)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise EngineUnavailableError("raft: stopped")


def _convex_upsampling(torch: Any, flow: Tensor, mask: Tensor) -> Tensor:
    """Give every pixel a weighted mean of the flows of the 3x3 cells around it (section 3.3 of the paper).

    Args:
        flow: ``(n, 2, rows, columns)`` float32, in cells.
        mask: ``(n, 9 * 64, rows, columns)`` float32: the weights' logarithms, up to a constant.

    Returns:
        ``(n, 2, 8 * rows, 8 * columns)`` float32, in pixels.
    """
    count, _, rows, columns = flow.shape
    weights = mask.view(count, 1, 9, CELL_PX, CELL_PX, rows, columns).softmax(dim=2)
    around = torch.nn.functional.unfold(CELL_PX * flow, kernel_size=3, padding=1)
    fine = (weights * around.view(count, 2, 9, 1, 1, rows, columns)).sum(dim=2)
    ordered = fine.permute(0, 1, 4, 2, 5, 3)
    return ordered.reshape(count, 2, CELL_PX * rows, CELL_PX * columns)


def _shrink(frame: Frame, height: int, width: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    smaller: Frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return smaller


def check_frame(frame: Frame, first: Frame) -> None:
    """Raise a `FlowError` where a frame is none that RAFT takes, or has another size than the first."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or min(frame.shape[:2]) < MIN_SIDE_PX:
        raise FlowError(
            f"frame: expected (h, w, 3) uint8 with sides of at least {MIN_SIDE_PX}, got {frame.shape} {frame.dtype}"
        )
    if frame.shape != first.shape:
        raise FlowError(f"frames: expected the same size, got {first.shape} and {frame.shape}")


def import_torch() -> tuple[Any, Any]:
    """Import PyTorch and torchvision.

    Raises:
        EngineUnavailableError: one of them is missing, or they do not fit each other.
    """
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision whose operators were built for another PyTorch.
        raise EngineUnavailableError(f"raft: PyTorch or torchvision cannot be imported: {error}") from error
    return torch, torchvision


def _load_model(engine: RaftEngine) -> Any:
    from torchvision.models import optical_flow

    state = load_weights(engine.weights, engine.weights_sha256, model=engine.model)
    model = getattr(optical_flow, engine.model)(weights=None)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelWeightsError(
            f"weights {engine.weights.name} do not fit {engine.model}: {str(error)[:500]}", model=engine.model
        ) from error
    return model.eval()
