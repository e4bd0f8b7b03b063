"""Optical-flow engines: frozen sets of parameters that are called with two frames.

An engine turns a sequence of frames into one result per pair of neighbours, in order, with bounded
look-ahead: `FlowEngine.run`. Engines that know pairs only (`DisEngine`, `FarnebackEngine`) spread the pairs over
threads, since OpenCV lets go of the interpreter's lock; a batching engine on a GPU collects frames instead.
Either calls `finish` with each pair's frames and flows where it likes, so that what follows runs in parallel too.
"""

from __future__ import annotations

import dataclasses
import math
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import EngineUnavailableError, FlowError
from structureflow.ordered import ordered_map

EngineName = Literal["dis", "farneback", "raft"]
Quality = Literal["fast", "balanced", "best"]
Flow = NDArray[np.float32]
Frame = NDArray[np.uint8]
Result = TypeVar("Result")
#: Called with (first frame, second frame, forward flow, backward flow) of a pair.
Finish: TypeAlias = Callable[[Frame, Frame, Flow, Flow], Result]

#: No engine gets frames with a smaller side: DIS reads out of bounds on tiny ones.
MIN_SIDE_PX: Final = 32
#: Working sizes are multiples of this, which RAFT's eightfold reduced grid demands.
SIDE_STEP_PX: Final = 8


class FlowEngine(Protocol):
    """What extraction needs of an engine.

    Attributes:
        name: as in requests and archives.
        colour: whether frames are ``(h, w) uint8`` gray or ``(h, w, 3) uint8 RGB``.
    """

    @property
    def name(self) -> EngineName:
        """As in requests and archives."""
        ...

    @property
    def colour(self) -> Literal["gray", "rgb"]:
        """What `run` wants: ``(h, w) uint8`` gray or ``(h, w, 3) uint8 RGB`` frames."""
        ...

    def params(self) -> dict[str, Any]:
        """Return everything that the flows depend on besides the frames, library versions included."""
        ...

    def run(self, frames: Iterable[Frame], finish: Finish[Result], *, workers: int) -> Iterator[Result]:
        """Yield ``finish(first, second, forward, backward)`` for each pair of neighbouring frames, in order.

        Args:
            frames: of one size, at least `MIN_SIDE_PX` on each side; read as they are needed.
            finish: gets the pair's frames and two fields ``(h, w, 2) float32``, finite, (dx, dy) in pixels of
                the frames: where the first frame's pixels are in the second, and the reverse. May be called in
                any thread, several at once.
            workers: CPU threads to use.

        Raises:
            FlowError: frames of unfit size, or flows that are not finite.
            EngineUnavailableError: the engine cannot run here.
        """
        ...


class _PairEngine:
    """An engine that computes one direction of one pair at a time on the CPU."""

    def __call__(self, first: Frame, second: Frame) -> Flow:
        """Return where the pixels of `first` are in `second`.

        Args:
            first, second: ``(h, w) uint8`` gray, the same size.

        Returns:
            ``(h, w, 2) float32``, finite, (dx, dy) in pixels.

        Raises:
            FlowError: unfit frames, or a flow that is not finite.
        """
        _check_pair(first, second)
        return _checked(self._solver()(first, second), first.shape)

    @property
    def colour(self) -> Literal["gray", "rgb"]:
        """Gray frames."""
        return "gray"

    def _solver(self) -> Callable[[Frame, Frame], Any]:
        """Return a function for one thread at a time; it may keep buffers between calls."""
        raise NotImplementedError

    def run(self, frames: Iterable[Frame], finish: Finish[Result], *, workers: int) -> Iterator[Result]:
        """See `FlowEngine.run`; at most ``2 * workers`` pairs are in flight."""
        # Pairs run in parallel; OpenCV's own threads, one per CPU that it sees, would only get in the way.
        cv2.setNumThreads(1)
        solvers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def compute(pair: tuple[Frame, Frame]) -> Result:
            first, second = pair
            try:
                solver = solvers.get_nowait()
            except queue.Empty:
                solver = self._solver()
            forward = _checked(solver(first, second), first.shape)
            backward = _checked(solver(second, first), first.shape)
            solvers.put(solver)
            return finish(first, second, forward, backward)

        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="flow") as pool:
            yield from ordered_map(_pairs(frames), compute, 2 * workers, pool=pool)


def _pairs(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame]]:
    previous: Frame | None = None
    for frame in frames:
        if previous is not None:
            _check_pair(previous, frame)
            yield previous, frame
        previous = frame


@dataclass(frozen=True, slots=True)
class DisEngine(_PairEngine):
    """Dense Inverse Search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016).

    With the defaults it searches down to full resolution (`finest_scale` 0) and smooths little
    (`variational_iterations` 1): on a small picture more exact and faster than OpenCV's `FAST` on a larger one. The
    presets search on a coarser grid, since anchored paths mend what that loses. Patches are compared without their
    mean, so that changes of light are not taken for motion.
    """

    finest_scale: int = 0
    patch_size: int = 8
    patch_stride: int = 4
    gradient_iterations: int = 16
    variational_iterations: int = 1
    name: ClassVar[EngineName] = "dis"

    def params(self) -> dict[str, Any]:
        """See `FlowEngine.params`."""
        return _with_versions(self)

    def _solver(self) -> Callable[[Frame, Frame], Any]:
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        dis.setFinestScale(self.finest_scale)
        dis.setPatchSize(self.patch_size)
        dis.setPatchStride(self.patch_stride)
        dis.setGradientDescentIterations(self.gradient_iterations)
        dis.setVariationalRefinementIterations(self.variational_iterations)
        dis.setUseMeanNormalization(True)
        dis.setUseSpatialPropagation(True)
        # An array in place of None would be read as the initial flow.
        return lambda first, second: dis.calc(first, second, cast("Any", None))


@dataclass(frozen=True, slots=True)
class FarnebackEngine(_PairEngine):
    """Polynomial expansion (Farneback, "Two-Frame Motion Estimation Based on Polynomial Expansion", 2003)."""

    levels: int = 5
    window_px: int = 11
    iterations: int = 3
    polynomial_px: int = 5
    polynomial_sigma: float = 1.1
    name: ClassVar[EngineName] = "farneback"

    def params(self) -> dict[str, Any]:
        """See `FlowEngine.params`."""
        return _with_versions(self)

    def _solver(self) -> Callable[[Frame, Frame], Any]:
        def solve(first: Frame, second: Frame) -> Any:
            return cv2.calcOpticalFlowFarneback(
                first,
                second,
                cast("Any", None),
                0.5,
                self.levels,
                self.window_px,
                self.iterations,
                self.polynomial_px,
                self.polynomial_sigma,
                0,
            )

        return solve


def _with_versions(engine: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(engine), "opencv": cv2.__version__}


def _check_pair(first: Frame, second: Frame) -> None:
    for frame in (first, second):
        if frame.ndim != 2 or frame.dtype != np.uint8 or min(frame.shape) < MIN_SIDE_PX:
            raise FlowError(
                f"frame: expected (h, w) uint8 with sides of at least {MIN_SIDE_PX}, got {frame.shape} {frame.dtype}"
            )
    if first.shape != second.shape:
        raise FlowError(f"frames: expected the same size, got {first.shape} and {second.shape}")


def _checked(flow: Any, size: tuple[int, ...]) -> Flow:
    if flow.shape != (*size, 2) or flow.dtype != np.float32:
        raise FlowError(f"flow: expected {(*size, 2)} float32, got {flow.shape} {flow.dtype}")
    if not np.isfinite(flow).all():
        raise FlowError("flow: the engine gave vectors that are not finite")
    return cast("Flow", flow)


# --- presets -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnginePreset:
    """An engine's parameters at one quality, and about how many pixels the frames have that it gets."""

    name: EngineName
    params: Mapping[str, Any]
    area_px: int


@dataclass(frozen=True)
class EngineRegistry:
    """Presets by engine and quality; never changed, `register` returns a new one."""

    presets: Mapping[tuple[str, str], EnginePreset] = field(default_factory=lambda: MappingProxyType({}))

    def register(self, quality: Quality, preset: EnginePreset) -> EngineRegistry:
        """Return a registry that has `preset` too, in place of an older one of its name and quality."""
        return EngineRegistry(MappingProxyType({**self.presets, (preset.name, quality): preset}))

    def preset(self, engine: str, quality: str) -> EnginePreset:
        """Return a preset.

        Raises:
            EngineUnavailableError: none is registered; the message lists those that are.
        """
        try:
            return self.presets[engine, quality]
        except KeyError:
            known = ", ".join("/".join(key) for key in sorted(self.presets))
            raise EngineUnavailableError(
                f"engine {engine!r:.40} with quality {quality!r:.40}: expected one of {known}"
            ) from None


def build_engine(name: str, params: Mapping[str, Any]) -> FlowEngine:
    """Return the engine of that name with `params` of a preset; versions in them are not looked at.

    Raises:
        EngineUnavailableError: it does not run in this process (RAFT: only in the GPU container, which passes
            its own engine), or does not know such parameters.
    """
    kinds: dict[str, Callable[..., FlowEngine]] = {"dis": DisEngine, "farneback": FarnebackEngine}
    if name not in kinds:
        raise EngineUnavailableError(f"engine {name!r:.40}: does not run here, expected dis or farneback", engine=name)
    try:
        return kinds[name](**{key: value for key, value in params.items() if key != "opencv"})
    except TypeError as error:
        raise EngineUnavailableError(f"engine {name}: {error}", engine=name) from error


def working_size(height: int, width: int, area_px: int) -> tuple[int, int]:
    """Return the (height, width) at which flow is computed and stored.

    The frame's aspect ratio, at most about `area_px` pixels, both sides rounded to multiples of
    `SIDE_STEP_PX`, at least `MIN_SIDE_PX`, and otherwise never larger than the frame.
    """
    scale = min(1.0, math.sqrt(area_px / (height * width)))

    def side(length: int) -> int:
        steps = min(round(length * scale / SIDE_STEP_PX), length // SIDE_STEP_PX)
        return max(MIN_SIDE_PX, steps * SIDE_STEP_PX)

    return side(height), side(width)


def _preset(engine: FlowEngine, area_px: int) -> EnginePreset:
    return EnginePreset(engine.name, engine.params(), area_px)


def _raft_preset(model: str, iterations: int, area_px: int) -> EnginePreset:
    weights = {"raft_large": "C_T_SKHT_V2", "raft_small": "C_T_V2"}[model]
    return EnginePreset("raft", {"model": model, "weights": weights, "iterations": iterations}, area_px)


#: Chosen by the end result, anchored paths over a gap, per second of the whole job; see `docs/decisions.md`.
DEFAULT_ENGINES: Final = (
    EngineRegistry()
    .register("fast", _preset(DisEngine(finest_scale=2), 384 * 216))
    .register("balanced", _preset(DisEngine(finest_scale=2, variational_iterations=5), 512 * 288))
    .register("best", _preset(DisEngine(finest_scale=1), 640 * 360))
    .register("fast", _preset(FarnebackEngine(iterations=2), 320 * 180))
    .register("balanced", _preset(FarnebackEngine(), 448 * 252))
    .register("best", _preset(FarnebackEngine(), 640 * 360))
    .register("fast", _raft_preset("raft_small", 12, 640 * 360))
    .register("balanced", _raft_preset("raft_large", 12, 640 * 360))
    .register("best", _raft_preset("raft_large", 20, 960 * 544))
)
