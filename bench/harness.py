"""Side-by-side measurements, and how they are written down.

A bench module exposes ``rows(context: Context) -> list[Row]``. Absolute times say little on a shared machine, so
contenders are run alternately in one process, and the table shows ratios of medians::

    def rows(context):
        times = context.compare({"original": old, "structureflow": new}, rounds=5)
        return [Row("flow", "cache write*", "s", times["original"], times["structureflow"])]

``run(names)`` merges the rows into ``bench/results.json`` (by group and name; rows of modules that were not run
stay), and writes ``bench/results.md`` and ``bench/results.png`` from the merged rows.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

FOLDER = Path(__file__).resolve().parent
README = FOLDER.parent / "README.md"
MEDIA = FOLDER.parent.parent / "shared" / "media"


@dataclass(frozen=True)
class Row:
    """One line of the table: the same work done by the original design and by ours.

    Attributes:
        group: the bench module; rows are plotted together by group.
        name: what was done, with its size.
        unit: ``s``, ``MB``, ``dB``, …
        original, ours: medians; `original` is None where there is nothing to compare with.
        target: the least `ratio` that is asked for (the most, if `target_is_limit`).
        note: what else a reader must know.
    """

    group: str
    name: str
    unit: str
    original: float | None
    ours: float
    target: float | None = None
    target_is_limit: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """`original` / `ours`: how many times less; for decibels, `ours` - `original`."""
        if self.original is None:
            return None
        if self.unit == "dB":
            return self.ours - self.original
        return self.original / self.ours if self.ours else None

    @property
    def reached(self) -> bool | None:
        """Whether the ratio meets the target; None without one."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio <= self.target if self.target_is_limit else self.ratio >= self.target


@dataclass
class Context:
    """What a bench module gets: the reference clip, a scratch folder, and the stop-watch.

    Attributes:
        clip: the reference clip (1280x720, 132 frames).
        folder: scratch, removed at the end.
        quick: run one round of everything, to see that it works.
    """

    clip: Path
    folder: Path
    quick: bool = False
    log: Callable[[str], None] = field(default=print)

    def measure(self, work: Callable[[], Any], *, rounds: int = 5, warm_up: int = 1) -> float:
        """Return the median wall-clock seconds of `work`."""
        return self.compare({"work": work}, rounds=rounds, warm_up=warm_up)["work"]

    def compare(
        self, contenders: Mapping[str, Callable[[], Any]], *, rounds: int = 5, warm_up: int = 1
    ) -> dict[str, float]:
        """Run the contenders in turn, `rounds` times after `warm_up` unmeasured rounds; return median seconds."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        unmeasured = 0 if self.quick else warm_up
        for number in range(unmeasured + (1 if self.quick else rounds)):
            for name, work in contenders.items():
                started = time.perf_counter()
                work()
                if number >= unmeasured:
                    times[name].append(time.perf_counter() - started)
        return {name: statistics.median(spent) for name, spent in times.items()}


def machine() -> dict[str, Any]:
    """Describe the machine that the numbers were taken on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def run(names: list[str], *, quick: bool = False, results: Path = FOLDER / "results.json") -> list[Row]:
    """Run bench modules by name, merge their rows into `results`, and write table and plot beside it."""
    clip = MEDIA / "bigbuckbunny.mp4"
    if not clip.exists():
        raise SystemExit(f"the reference clip {clip} is absent: nothing to measure on")
    fresh: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in names:
            context = Context(clip, Path(folder) / name, quick=quick)
            context.folder.mkdir()
            fresh += importlib.import_module(f"bench.{name}").rows(context)
    rows = _merge(_load(results), fresh, set(names))
    if not quick:
        taken_on = machine()
        document = {"machine": taken_on, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        results.write_text(json.dumps(document, indent=1) + "\n")
        results.with_suffix(".md").write_text(markdown(rows, taken_on))
        plot(rows, results.with_suffix(".png"))
        write_summary(README, summary(rows, taken_on))
    return fresh


def load_results(results: Path = FOLDER / "results.json") -> tuple[list[Row], dict[str, Any]]:
    """Return the rows measured last, and the machine that they were taken on."""
    return _load(results), json.loads(results.read_text())["machine"]


def _load(results: Path) -> list[Row]:
    if not results.exists():
        return []
    stored = json.loads(results.read_text())["rows"]
    return [Row(**{key: value for key, value in row.items() if key != "ratio"}) for row in stored]


def _merge(old: list[Row], fresh: list[Row], groups: set[str]) -> list[Row]:
    kept = [row for row in old if row.group not in groups and row.group not in {new.group for new in fresh}]
    return kept + fresh


def markdown(rows: list[Row], taken_on: dict[str, Any]) -> str:
    """Return the rows as a Markdown table, with the machine they were taken on."""
    lines = [
        f"Taken {taken_on['date']} on {taken_on['cpu']}, {taken_on['cores']} cores, Python {taken_on['python']}.",
        "Medians; contenders run alternately in one process. Trust the ratios more than the times.",
        "",
        "| | what | original design | structureflow | ratio | asked for |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        original = "" if row.original is None else f"{_figure(row.original)} {row.unit}"
        ratio = ""
        if row.ratio is not None:
            ratio = f"{row.ratio:+.2f} dB" if row.unit == "dB" else f"{_figure(row.ratio)}x"
        asked = ""
        if row.target is not None:
            mark = {True: "reached", False: "missed", None: ""}[row.reached]
            asked = f"{'at most' if row.target_is_limit else 'at least'} {row.target:g} ({mark})"
        name = row.name + (f" ({row.note})" if row.note else "")
        lines.append(f"| {row.group} | {name} | {original} | {_figure(row.ours)} {row.unit} | {ratio} | {asked} |")
    return "\n".join(lines) + "\n"


#: Rows of the README's table, in its order: (group, pattern of names, what a reader is told). Where several rows of
#: measurements fit, the table has the whole range of them, not the better one.
SUMMARY: Final = (
    ("job", "whole job*", "a whole job: 100 frames of 720p, 3 segments, 2 cores"),
    ("job", "a second job on the same video*", "the next job on the same video"),
    ("job", "a second job until*", "the next job, until its segments start"),
    ("flow", "cache size, 100 frames 720p*", "flow cache (ours in both directions)"),
    ("flow", "segment bytes*", "bytes that a segment reads of it"),
    ("flow", "segment read*", "time to read a segment's 43 flows"),
    ("flow", "cache write*", "time to write the cache, given the flows"),
    ("flow", "peak memory, 100*", "peak memory of extraction"),
    ("motion", "gap of 43 from frame *: start anchor, against forward*", "likeness of the carried frames, one anchor"),
    ("motion", "gap of 43 from frame *: both anchors*", "likeness of the carried frames, both anchors"),
)
_MARKS: Final = ("<!-- measured: written by make bench -->\n", "<!-- end of measured -->\n")


def summary(rows: list[Row], taken_on: dict[str, Any]) -> str:
    """Return the README's table: what a user notices first, ours beside the original design done literally."""
    lines = ["| | original design | structureflow | |", "| --- | ---: | ---: | ---: |"]
    for group, pattern, told in SUMMARY:
        found = [row for row in rows if row.group == group and fnmatch(row.name, pattern) and row.ratio is not None]
        if found:
            unit = found[0].unit
            original, ours = (
                _range(values) for values in zip(*((row.original, row.ours) for row in found), strict=True)
            )
            gain = _range([row.ratio for row in found], "+.1f" if unit == "dB" else None)
            more = f"{gain} dB" if unit == "dB" else f"**{gain}x**"
            lines.append(f"| {told} | {original} {unit} | {ours} {unit} | {more} |")
    lines += [
        "",
        (
            f"Taken {taken_on['date']} on {taken_on['cpu']}, {taken_on['cores']} cores, by `make bench`, side by side; "
            "all rows: [bench/results.md](bench/results.md)."
        ),
    ]
    return "\n".join(lines) + "\n"


def write_summary(page: Path, text: str) -> None:
    """Put the table between its marks on a page.

    Raises:
        ValueError: the page has no such marks.
    """
    before, start, rest = page.read_text().partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not start or not end:
        raise ValueError(f"{page}: expected the marks {_MARKS}")
    page.write_text(before + start + text + end + after)


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _range(values: Sequence[float | None], form: str | None = None) -> str:
    """Say the least and the largest value, or the one that there is."""
    said = [
        _figure(value or 0) if form is None else format(value or 0, form) for value in sorted(v or 0 for v in values)
    ]
    return said[0] if said[0] == said[-1] else f"{said[0]} to {said[-1]}"


def plot(rows: list[Row], path: Path) -> None:
    """Draw how many times less time or bytes each comparison takes, on a logarithmic axis."""
    from matplotlib.figure import Figure

    # Motion is measured in decibels, and in multiples of a bare remap, not against the original design.
    compared = [row for row in rows if row.ratio and row.unit in {"s", "MB"} and row.group != "motion"]
    figure = Figure(figsize=(9, 0.36 * max(4, len(compared)) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = dict.fromkeys(row.group for row in compared)
    for index, group in enumerate(colours):
        colours[group] = f"C{index}"
    positions = range(len(compared))
    ratios = [row.ratio or 1.0 for row in compared]
    axes.barh(positions, ratios, color=[colours[row.group] for row in compared])
    for position, ratio in zip(positions, ratios, strict=True):
        axes.text(ratio * 1.05, position, f"{_figure(ratio)}x", va="center", fontsize=8)
    axes.set_yticks(positions, [f"{row.group}: {row.name}" for row in compared], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(min(0.5, *ratios) if ratios else 0.5, max(10.0, *ratios) * 3 if ratios else 10)
    axes.set_xlabel("original design / structureflow: how many times less")
    figure.savefig(path, dpi=110)
