"""The bench harness: ratios, targets, merging, the table."""

from __future__ import annotations

import pytest

from bench.harness import Context, Row, _merge, markdown

TAKEN_ON = {"date": "2026-01-01", "cpu": "X", "cores": 2, "python": "3.13"}


def test_a_ratio_says_how_many_times_less() -> None:
    assert Row("g", "n", "s", 10.0, 0.5).ratio == 20
    assert Row("g", "n", "dB", 30.0, 31.5).ratio == 1.5
    assert Row("g", "n", "MB", None, 3.0).ratio is None


def test_targets_are_floors_or_limits() -> None:
    assert Row("g", "n", "s", 10.0, 0.5, target=20).reached is True
    assert Row("g", "n", "s", 10.0, 0.5, target=21).reached is False
    assert Row("g", "n", "s", 10.0, 10.0, target=1.2, target_is_limit=True).reached is True
    assert Row("g", "n", "s", 13.0, 10.0, target=1.2, target_is_limit=True).reached is False
    assert Row("g", "n", "s", 13.0, 10.0).reached is None


def test_fresh_rows_replace_those_of_their_group() -> None:
    old = [Row("flow", "a", "s", 1, 1), Row("motion", "b", "s", 1, 1)]
    fresh = [Row("flow", "c", "s", 2, 1)]
    assert _merge(old, fresh, {"flow"}) == [old[1], fresh[0]]


def test_the_table_has_a_line_per_row() -> None:
    table = markdown([Row("flow", "write", "s", 27.0, 0.1, target=100), Row("flow", "peak", "MB", None, 150)], TAKEN_ON)
    assert "| flow | write | 27 s | 0.1 s | 270x | at least 100 (reached) |" in table
    assert "| flow | peak |  | 150 MB |  |  |" in table


def test_contenders_take_turns(tmp_path: object) -> None:
    order: list[str] = []
    context = Context(clip=tmp_path, folder=tmp_path)  # type: ignore[arg-type]
    medians = context.compare({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert set(medians) == {"a", "b"}
    assert all(value >= 0 for value in medians.values())
    assert context.measure(lambda: None, rounds=1) == pytest.approx(0, abs=1)
