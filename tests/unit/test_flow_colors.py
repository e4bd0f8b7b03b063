"""The colour wheel: directions, lengths, one normaliser for a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from structureflow.errors import FlowError, InvalidArgumentError
from structureflow.flow.colors import clip_normaliser, display_range, flow_normaliser, flow_to_rgb, typical_length
from structureflow.flow.fields import FlowMeta


def test_zero_flow_is_white() -> None:
    assert (flow_to_rgb(np.zeros((4, 6, 2), np.float16), 3.0) == 255).all()
    assert flow_to_rgb(np.zeros((4, 6, 2), np.float16), 3.0).shape == (4, 6, 3)


def test_each_direction_has_the_colour_of_the_reference_wheel() -> None:
    # Positions on the 55-step wheel at 0, 90, 180 and 270 degrees: 0, 13.5, 27 and 40.5 (of 54).
    flow = np.array([[[4, 0], [0, 4], [-4, 0], [0, -4]]], np.float32)
    expected = [[255, 0, 0], [255, 230, 0], [0, 209, 255], [88, 0, 255]]
    np.testing.assert_allclose(flow_to_rgb(flow, 4.0)[0].astype(int), expected, atol=2)


def test_longer_is_more_saturated_until_the_normaliser_and_darker_beyond() -> None:
    flow = np.array([[[1, 0], [2, 0], [4, 0], [8, 0]]], np.float32)
    red_half, red_full = flow_to_rgb(flow, 4.0)[0][[1, 2]]
    np.testing.assert_array_equal(red_full, [255, 0, 0])
    np.testing.assert_allclose(red_half.astype(int), [255, 128, 128], atol=1)
    np.testing.assert_allclose(flow_to_rgb(flow, 4.0)[0, 3].astype(int), [191, 0, 0], atol=1)


def test_unusable_fields_are_refused() -> None:
    with pytest.raises(FlowError, match="finite"):
        flow_to_rgb(np.full((2, 2, 2), np.nan, np.float32), 1.0)
    with pytest.raises(FlowError, match="expected"):
        flow_to_rgb(np.zeros((2, 2)), 1.0)
    with pytest.raises(InvalidArgumentError, match="max_px: expected a number above 0"):
        flow_to_rgb(np.zeros((2, 2, 2)), 0.0)
    with pytest.raises(FlowError, match="at least one"):
        flow_normaliser([])
    with pytest.raises(FlowError, match="finite"):
        flow_normaliser([np.full((2, 2, 2), np.inf, np.float32)])


def test_the_normaliser_spans_the_clip_and_ignores_a_wild_vector() -> None:
    slow = np.full((40, 40, 2), 3.0, np.float32)
    fast = np.full((40, 40, 2), [6.0, 8.0], np.float32)
    assert flow_normaliser([slow, fast, fast]) == pytest.approx(10.0)
    wild = slow.copy()
    wild[7, 7] = 900.0
    assert flow_normaliser([slow, wild]) == pytest.approx(18**0.5)


def test_a_still_clip_stays_white() -> None:
    noise = np.full((8, 8, 2), 1 / 16, np.float32)
    assert flow_normaliser([noise]) == 1.0
    assert flow_to_rgb(noise, flow_normaliser([noise])).min() > 220


def test_the_range_of_a_clip_is_what_its_archive_records_or_a_fortieth_of_its_width() -> None:
    meta = FlowMeta(
        total_flows=1,
        height=120,
        width=200,
        original_height=240,
        original_width=400,
        original_fps=25.0,
        has_backward=False,
        engine="dis",
    )
    assert display_range(replace(meta, display_max_px=3.5)) == 3.5
    assert display_range(meta) == 5.0
    assert display_range(replace(meta, width=20)) == 1.0


def test_normalisers_leave_out_the_wildest_vectors_and_the_most_violent_flows() -> None:
    lengths = np.arange(100, dtype=np.float32)
    field = np.stack([lengths, np.zeros_like(lengths)], axis=-1).reshape(10, 10, 2)
    assert flow_normaliser([field]) == pytest.approx(np.percentile(lengths, 99))
    assert typical_length(field) == pytest.approx(np.percentile(lengths, 99))
    assert clip_normaliser(range(1, 101)) == pytest.approx(np.percentile(range(1, 101), 95))
    assert clip_normaliser([0.1, 0.2]) == 1.0
    with pytest.raises(FlowError, match="at least one"):
        clip_normaliser([])
