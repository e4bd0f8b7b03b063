"""The model of `bench.simulation`: its clock and its quotas are exact, and what it says of known sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.simulation.cloud import Quotas
from bench.simulation.job import Video, Work, segments_of
from bench.simulation.loop import Cores, Loop, Places, Process, Rate, Wait
from bench.simulation.runs import many, one
from bench.simulation.tables import account

HOUR_720P = Video(3_600.0, 1280, 720)


def ends(count: int, process: Callable[[Loop, int], Process]) -> list[float]:
    """When each of so many processes, begun together, is over."""
    loop, found = Loop(), [0.0] * count

    def noted(number: int) -> Process:
        yield from process(loop, number)
        found[number] = loop.now

    for number in range(count):
        loop.start(noted(number))
    loop.run()
    return found


def test_places_are_given_in_the_order_of_asking() -> None:
    places: dict[int, Places] = {}

    def process(loop: Loop, _: int) -> Process:
        here = places.setdefault(0, Places(loop, 2))
        yield here.take
        yield 3.0
        here.give_back()

    assert ends(5, process) == [3.0, 3.0, 6.0, 6.0, 9.0]


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    rates: dict[int, Rate] = {}

    def process(loop: Loop, _: int) -> Process:
        yield rates.setdefault(0, Rate(loop, per_s=2.0, burst=3.0)).take()

    assert ends(7, process) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("pieces", "most", "expected"),
    [
        # alone, as fast as it can use; two on two cores do not meet; four on two cores take twice as long
        ([4.0], 1.0, [4.0]),
        ([4.0], 2.0, [2.0]),
        ([4.0, 4.0], 1.0, [4.0, 4.0]),
        ([4.0, 4.0], 2.0, [4.0, 4.0]),
        ([4.0] * 4, 1.0, [8.0] * 4),
        # a short one ends, and the long ones have its share
        ([1.0, 4.0, 4.0], 1.0, [1.5, 4.5, 4.5]),
    ],
)
def test_cores_are_shared_by_what_runs(pieces: list[float], most: float, expected: list[float]) -> None:
    cores: dict[int, Cores] = {}

    def process(loop: Loop, number: int) -> Process:
        wait: Wait = cores.setdefault(0, Cores(loop, 2.0)).work(pieces[number], most)
        yield wait

    assert ends(len(pieces), process) == pytest.approx(expected)


def test_an_hour_of_720p_starts_its_segments_within_a_minute() -> None:
    """In parts, in an account of the usual concurrency; not in a new one of ten, and not in one function."""
    work = Work(HOUR_720P, segments_of(HOUR_720P))
    assert one(work, account(1_000))[0].first_segment_s < 60
    assert one(work, account(10))[0].first_segment_s > 60
    assert one(replace(work, in_parts=False), account(1_000))[0].first_segment_s > 900


def test_the_first_segment_is_nearly_independent_of_the_length() -> None:
    """Until the frames of one video meet S3's writes a second under one prefix."""
    minute, ten = (
        one(Work(video, 1), account(1_000))[0].first_segment_s
        for video in (Video(60.0, 1280, 720), Video(600.0, 1280, 720))
    )
    assert ten < 1.2 * minute
    hours = one(Work(Video(36_000.0, 1280, 720), 1), account(10_000))[0].first_segment_s
    assert hours > 900_000 / 3_500


def test_what_a_job_costs_does_not_depend_on_who_waits() -> None:
    work = Work(Video(10.0, 1280, 720), 10)
    alone, crowded = (many(work, account(10), jobs=jobs, within_s=1.0) for jobs in (1, 20))
    assert crowded.used.usd() / 20 == pytest.approx(alone.used.usd(), rel=0.05)
    assert crowded.share(0.5) > 2 * alone.share(0.5)


def test_twice_the_workers_are_faster_as_long_as_there_are_cores() -> None:
    """The account of a laptop: functions share two cores."""
    work = Work(Video(1.0, 640, 360), 12, cached=True)
    seconds = {
        workers: one(work, Quotas(concurrency=workers, cores=2.0, memory_mb=1769, slowness=1.0))[0].done_s
        for workers in (1, 2, 4)
    }
    assert 1.5 < seconds[1] / seconds[2] < 2.1
    assert seconds[4] == pytest.approx(seconds[2], rel=0.2)
