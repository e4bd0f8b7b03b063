"""What is looked at: one video of 10 seconds to 10 hours, and 1 to 10,000 jobs a minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.simulation.cloud import Quotas
from bench.simulation.job import Video, Work, segments_of
from bench.simulation.runs import many, one

LENGTHS_S: Final = (10.0, 60.0, 600.0, 3_600.0, 36_000.0)
SIZES: Final[Mapping[str, tuple[int, int]]] = {"720p": (1280, 720), "4K": (3840, 2160)}
CONCURRENCIES: Final = (10, 100, 1_000, 10_000)
RATES: Final = (1, 10, 100, 1_000, 10_000)
#: Minutes for which jobs come at a rate.
MINUTES: Final = 1.0
SEGMENTS_OF_A_JOB: Final = 10


def account(concurrency: int) -> Quotas:
    """Return the quotas of an account with that concurrency, and a stack set up for it."""
    return Quotas(
        concurrency=concurrency,
        jobs_at_once=max(2, min(1_000, concurrency // 2)),
        segments_at_once=concurrency,
    )


@dataclass(frozen=True, slots=True)
class OfLength:
    """A job alone: seconds to its first segment and to its end, US dollars."""

    size: str
    seconds: float
    concurrency: int
    segments: int
    first_segment_s: float
    whole_first_segment_s: float
    done_s: float
    usd: float


@dataclass(frozen=True, slots=True)
class OfRate:
    """Many jobs: seconds within which half of them, and nineteen in twenty, were done; US dollars each."""

    jobs_a_minute: int
    concurrency: int
    half_s: float
    most_s: float
    usd: float


def lengths(seconds: Sequence[float] = LENGTHS_S, concurrencies: Sequence[int] = CONCURRENCIES) -> Iterator[OfLength]:
    """Run one job of every length and size in every account; and the same in one function, without its limit."""
    for size, (width_px, height_px) in SIZES.items():
        for length_s in seconds:
            video = Video(length_s, width_px, height_px)
            work = Work(video, segments_of(video))
            for concurrency in concurrencies:
                outcome, used = one(work, account(concurrency))
                whole, _ = one(replace(work, in_parts=False, segments=1), account(concurrency))
                yield OfLength(
                    size,
                    length_s,
                    concurrency,
                    work.segments,
                    outcome.first_segment_s,
                    whole.first_segment_s,
                    outcome.done_s,
                    used.usd(),
                )


def crowds(rates: Sequence[int] = RATES, concurrencies: Sequence[int] = CONCURRENCIES) -> Iterator[OfRate]:
    """Put jobs at every rate in every account: 10 seconds of 720p and ten segments, each a video of its own."""
    work = Work(Video(10.0, *SIZES["720p"]), SEGMENTS_OF_A_JOB)
    for rate in rates:
        for concurrency in concurrencies:
            jobs = max(1, round(rate * MINUTES))
            crowd = many(work, account(concurrency), jobs=jobs, within_s=60.0 * MINUTES)
            yield OfRate(rate, concurrency, crowd.share(0.5), crowd.share(0.95), crowd.used.usd() / jobs)


def table(rows: Iterator[OfLength] | Iterator[OfRate]) -> str:
    """Return rows as Markdown."""
    lines: list[str] = []
    for row in rows:
        names = list(row.__dataclass_fields__)
        if not lines:
            lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "| " + "--- | " * len(names)]
        lines.append(f"| {' | '.join(_text(getattr(row, name)) for name in names)} |")
    return "\n".join(lines)


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.1f}"
