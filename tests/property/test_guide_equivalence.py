"""Every fast path of the motion equals a plain one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.flow.fields import Direction
from structureflow.flow.visibility import visible_where
from structureflow.guide.gap import GapMotion
from structureflow.guide.masks import MaskValue
from structureflow.guide.path import Carry, Trace
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.warp import Anchor, Geometry, Warper, mix, supersample
from structureflow.models.job import Anchors, Segment
from structureflow.references import Reference
from structureflow.testing.flows import smooth_flows
from structureflow.testing.plain_motion import (
    carry_plainly,
    half_pixels,
    trace_plainly,
    visible_plainly,
    warp_plainly,
)
from structureflow.testing.scenes import ArrayFlows, WaveTexture, occlusion_scene, pan_scene

SEEDS = st.integers(0, 10_000)


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return WaveTexture(seed)(x, y)


@settings(max_examples=25)
@given(seed=SEEDS, start=st.floats(0, 2.5), steps=st.lists(st.floats(0, 1.7), min_size=1, max_size=5))
def test_carry_joins_as_the_plain_sum_does(seed: int, start: float, steps: list[float]) -> None:
    legs = smooth_flows(6, 20, 28, seed=seed, scale_px=1.0)
    carry = Carry(lambda m: legs[m], start, (20, 28))
    position = start
    for step in steps:
        position = min(position + step, 6.0)
        np.testing.assert_allclose(carry.to(position), carry_plainly(list(legs), start, position), atol=0.08)


@settings(max_examples=15)
@given(seed=SEEDS, start=st.integers(0, 3), length=st.integers(0, 3), stride=st.sampled_from([1, 2, 3]))
def test_trace_follows_as_the_plain_sum_does(seed: int, start: int, length: int, stride: int) -> None:
    legs = smooth_flows(6, 21, 28, seed=seed, scale_px=1.0)
    trace = Trace(lambda m: legs[m], float(start), (21, 28), stride=stride)
    way = trace.to(float(start + length))
    plain = trace_plainly(list(legs), start, start + length)[::stride, ::stride]
    np.testing.assert_allclose(way, plain, atol=0.08)


def test_a_copy_goes_on_alone() -> None:
    legs = smooth_flows(6, 20, 28, seed=3)
    carry, trace = Carry(lambda m: legs[m], 0.5, (20, 28)), Trace(lambda m: legs[m], 0.5, (20, 28))
    carry.to(2), trace.to(2)
    carry_copy, trace_copy = carry.copy(), trace.copy()
    there, way = carry.to(5.25).copy(), trace.to(5.25).copy()
    carry.to(6), trace.to(6)
    np.testing.assert_array_equal(carry_copy.to(5.25), there)
    np.testing.assert_array_equal(trace_copy.to(5.25), way)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_visibility_is_the_formula(seed: int) -> None:
    there, back = smooth_flows(2, 30, 40, seed=seed, scale_px=1.5)
    plain = visible_plainly(there, back)
    # pixels at the very threshold may fall to either side
    assert (visible_where(there, back) != plain).mean() < 0.01
    trace = Trace(lambda _: back, 0.0, (30, 40), stride=1)
    assert (trace.sees(there, back) != plain).mean() < 0.01


def test_visibility_on_half_the_grid_says_the_same() -> None:
    scene = occlusion_scene(frames=8)
    plain = visible_plainly(carry_plainly(list(scene.backward), 0, 7), trace_plainly(list(scene.forward), 0, 7))
    carry = Carry(lambda m: scene.backward[m], 0.0, plain.shape)
    trace = Trace(lambda m: scene.forward[m], 0.0, plain.shape)
    half = trace.sees(carry.to(7), trace.to(7))
    assert not plain.all()
    assert (half == plain[::2, ::2]).mean() > 0.97


@settings(max_examples=15)
@given(seed=SEEDS, height=st.integers(2, 40), width=st.integers(2, 40))
def test_supersampling_is_the_six_tap_filter(seed: int, height: int, width: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    rows = supersample(frame, np.empty((height, 2, 2 * width, 3), np.uint8)).reshape(2 * height, 2 * width, 3)
    np.testing.assert_array_equal(rows[::2, ::2], frame)
    # halves may round up or down
    assert np.abs(rows.astype(int) - half_pixels(frame)).max() <= 1


@settings(max_examples=25)
@given(
    seed=SEEDS,
    output=st.tuples(st.integers(24, 60), st.integers(24, 60)),
    grid=st.tuples(st.integers(12, 30), st.integers(12, 30)),
    original=st.tuples(st.integers(30, 90), st.integers(30, 90)),
)
def test_warping_is_sampling_once(
    seed: int, output: tuple[int, int], grid: tuple[int, int], original: tuple[int, int]
) -> None:
    frame = picture(*output, seed)
    displacement = smooth_flows(1, *grid, seed=seed, scale_px=0.6)[0]
    meta = ArrayFlows(displacement[None], None, original=original).meta
    anchor = Anchor((*output, 3))
    anchor.hold(frame)
    warper = Warper(Geometry.of(meta, *output))
    warped = np.empty_like(frame)
    warper.warp([anchor], displacement, [warped])
    plain = warp_plainly(frame, displacement, original)
    # where a crop begins inside of a pixel, displacements are looked up to half a pixel off
    difference = np.abs(warped - plain)
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 8


@settings(max_examples=15)
@given(seed=SEEDS, scale=st.integers(1, 3))
def test_warping_without_a_crop_is_exact_to_two_levels(seed: int, scale: int) -> None:
    grid = (18, 24)
    output = (grid[0] * scale, grid[1] * scale)
    frame = picture(*output, seed)
    displacement = smooth_flows(1, *grid, seed=seed, scale_px=1.0)[0]
    meta = ArrayFlows(displacement[None], None, original=output).meta
    anchor = Anchor((*output, 3))
    anchor.hold(frame)
    warped = np.empty_like(frame)
    Warper(Geometry.of(meta, *output)).warp([anchor], displacement, [warped])
    assert np.abs(warped - warp_plainly(frame, displacement, output)).max() <= 2


@settings(max_examples=15)
@given(seed=SEEDS)
def test_mixing_is_within_a_level(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, after = random.integers(0, 256, (2, 20, 24, 3), np.uint8)
    share = random.integers(0, 256, (20, 24), np.uint8)
    exact = before + (after.astype(float) - before) * (share[..., None] / 255)
    mixed = mix(before, after, share, np.empty_like(before))
    assert np.abs(mixed - exact).max() <= 1


class _Frames:
    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)

    def image(self, reference: Reference) -> NDArray[np.uint8]:
        return picture(*self._size, int(str(reference)))

    def video(self, reference: Reference, first: int, count: int) -> None:
        raise AssertionError(f"{reference} {first} {count}")


class _Kept:
    def __init__(self) -> None:
        self.frames: list[NDArray[np.uint8]] = []

    def write(self, index: int, guide: NDArray[np.uint8], mask: MaskValue) -> None:
        assert index == len(self.frames)
        assert mask in (0, 255)
        self.frames.append(guide.copy())


@settings(max_examples=8)
@given(
    seed=SEEDS,
    treatment=st.sampled_from(["adjust", "clip", "retime"]),
    anchors=st.sampled_from(["start", "both"]),
    cut=st.integers(0, 20),
)
def test_threads_chunks_and_blocks_change_nothing(seed: int, treatment: str, anchors: Anchors, cut: int) -> None:
    forward = smooth_flows(14, 24, 32, seed=seed, scale_px=0.8)
    flows = ArrayFlows(forward, -forward, scene_cuts=(cut,) if cut < 14 else ())
    segment = Segment.model_validate(
        {"frames": 16, "guides": [{"at": 0, "image": "1"}, {"at": [9, 10], "image": "2"}, {"at": 15, "image": "3"}]}
    )
    kept = []
    for workers in (1, 3):
        sink = _Kept()
        chosen = RenderSettings(48, 64, treatment, anchors, 1.0, 0, 14, workers=workers)  # type: ignore[arg-type]
        render_segment(segment, flows, _Frames(48, 64), chosen, sink)  # type: ignore[arg-type]
        kept.append(np.stack(sink.frames))
    np.testing.assert_array_equal(kept[0], kept[1])


@settings(max_examples=12)
@given(
    seed=SEEDS,
    treatment=st.sampled_from(["adjust", "clip", "retime"]),
    count=st.integers(3, 30),
    backward=st.booleans(),
)
def test_small_chunks_and_blocks_give_the_same_displacements(
    seed: int, treatment: str, count: int, backward: bool
) -> None:
    forward = smooth_flows(17, 10, 12, seed=seed, scale_px=0.8)
    flows = ArrayFlows(forward, -forward if backward else None)
    led = range(1, count + (2 if treatment == "retime" else 1))
    plan = PathPlan(start=0, stop=16, total_flows=17, led=led, treatment=treatment)  # type: ignore[arg-type]
    results = []
    with ThreadPoolExecutor(2) as io:
        for chunk_bytes, block_bytes in ((2**30, 2**30), (10 * 12 * 4 * 3, 1)):
            planned = PlannedFlows(flows, plan, io, chunk_bytes=chunk_bytes)
            gap = GapMotion(planned, plan, 0, count, from_start=True, from_end=True, block_bytes=block_bytes)
            kept = []
            for frame in gap.frames():
                assert frame is None or frame.start is not None
                if frame is not None:
                    assert frame.start is not None
                    end = np.zeros_like(frame.start) if frame.end is None else frame.end
                    weight = np.zeros(0, np.uint8) if frame.end_weight is None else frame.end_weight
                    kept.append((frame.start.copy(), end.copy(), weight.copy()))
            results.append(kept)
    assert len(results[0]) == len(results[1]) == min(count, plan.steps)
    for one, other in zip(*results, strict=True):
        for array, twin in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, twin)


def test_every_flow_is_read_once_per_direction() -> None:
    scene = pan_scene(1, frames=31, height=16, width=16)
    for anchors, directions in (("start", ["backward"]), ("both", ["backward", "forward"])):
        flows = ArrayFlows.of(scene)
        segment = Segment.model_validate(
            {
                "frames": 26,
                "guides": [{"at": 0, "image": "1"}, {"at": 9, "image": "2"}, {"at": 25, "image": "3"}],
            }
        )
        chosen = RenderSettings(16, 16, "clip", anchors, 1.0, 0, 30)  # type: ignore[arg-type]
        render_segment(segment, flows, _Frames(16, 16), chosen, _Kept())  # type: ignore[arg-type]
        seen: list[Direction] = sorted(direction for direction, _, _ in flows.reads)
        assert seen == directions
        assert {(start, stop) for _, start, stop in flows.reads} == {(0, 23 if anchors == "start" else 24)}
