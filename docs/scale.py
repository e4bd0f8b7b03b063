"""Draw what the model of `bench.simulation` says of sizes that nobody here can run: ``python -m docs.scale``.

Left: when a job's first segment starts, by the length of its video. Right: when 95 of 100 jobs are done, by how many
are put a minute. Both by the account's concurrency.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.simulation.tables import CONCURRENCIES, OfLength, OfRate, crowds, lengths

TARGET = Path(__file__).with_name("scale.svg")
_SECONDS: Final = (10.0, 30.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 36_000.0)
_COLOURS: Final = dict(zip(CONCURRENCIES, ("#c0392b", "#d68910", "#1e8449", "#2471a3"), strict=True))
_WIDTH, _HEIGHT = 1040, 470
_PANEL = (400, 340)
_TICKS_S: Final[Mapping[float, str]] = {
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3_600: "1 h",
    36_000: "10 h",
    360_000: "100 h",
}
_TICKS_JOBS: Final[Mapping[float, str]] = {10.0**power: f"{10**power:,}" for power in range(5)}

Points = Sequence[tuple[float, float]]


class Panel:
    """A diagram with logarithmic axes."""

    def __init__(self, left: float, title: str, across: Mapping[float, str], up: Mapping[float, str]) -> None:
        self._left, self._top = left, 60.0
        self._across, self._up = across, up
        self.parts = [_text(left + _PANEL[0] / 2, 36, title, anchor="middle", bold=True)]
        for value, name in across.items():
            x = self._x(value)
            self.parts += [_line([(x, self._top), (x, self._top + _PANEL[1])], "#ddd")]
            self.parts += [_text(x, self._top + _PANEL[1] + 18, name, anchor="middle")]
        for value, name in up.items():
            y = self._y(value)
            self.parts += [_line([(left, y), (left + _PANEL[0], y)], "#ddd")]
            self.parts += [_text(left - 6, y + 4, name, anchor="end")]

    def draw(self, points: Points, colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points; what lies above the diagram is left out."""
        inside = [(self._x(x), self._y(y)) for x, y in points if y <= max(self._up)]
        self.parts.append(_line(inside, colour, width=2.0, dashed=dashed))

    def mark(self, up: float, name: str) -> None:
        """Draw a level with its name."""
        y = self._y(up)
        self.parts.append(_line([(self._left, y), (self._left + _PANEL[0], y)], "#555", dashed=True))
        self.parts.append(_text(self._left + _PANEL[0] - 4, y - 5, name, anchor="end"))

    def _x(self, value: float) -> float:
        return self._left + _PANEL[0] * _share(value, self._across)

    def _y(self, value: float) -> float:
        return self._top + _PANEL[1] * (1 - _share(max(value, min(self._up)), self._up))


def main() -> None:
    """Run the model and write the picture."""
    TARGET.write_text(picture(list(lengths(_SECONDS)), list(crowds())))
    print(f"wrote {TARGET.name}")


def picture(of_length: Sequence[OfLength], of_rate: Sequence[OfRate]) -> str:
    """Return the SVG."""
    ticks = {value: name for value, name in _TICKS_S.items() if value >= 10}
    left = Panel(90, "first segment starts, by length of the video", {k: v for k, v in ticks.items() if k < 1e5}, ticks)
    right = Panel(590, "95 of 100 jobs are done, by jobs put a minute", _TICKS_JOBS, ticks)
    lines: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in of_length:
        lines[row.size, row.concurrency].append((row.seconds, row.first_segment_s))
    for (size, concurrency), points in lines.items():
        left.draw(points, _COLOURS[concurrency], dashed=size != "720p")
    left.mark(60.0, "60 s")
    crowd: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for one in of_rate:
        crowd[one.concurrency].append((one.jobs_a_minute, one.most_s))
    for concurrency, points in crowd.items():
        right.draw(points, _COLOURS[concurrency])
    legend = []
    for number, (concurrency, colour) in enumerate(_COLOURS.items()):
        x = 90 + 210 * number
        legend += [_line([(x, 448), (x + 26, 448)], colour, width=2.0)]
        legend += [_text(x + 32, 452, f"{concurrency:,} functions at a time")]
    legend.append(_text(930, 452, "720p; dashed: 4K"))
    body = "\n".join([*left.parts, *right.parts, *legend])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _share(value: float, ticks: Mapping[float, str]) -> float:
    low, high = math.log(min(ticks)), math.log(max(ticks))
    return (math.log(value) - low) / (high - low)


def _line(points: Points, colour: str, *, width: float = 1.0, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} fill="#222">{text}</text>'


if __name__ == "__main__":
    main()
