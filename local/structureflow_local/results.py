"""What a finished job says: where its report is, what was not done as asked; tables where more is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from structureflow.models.cost import PRICES
from structureflow.models.problems import counted
from structureflow.models.results import JobStatus, Manifest
from structureflow_local.output import Output, cells, size, table

_DOCUMENTS = {"report.html": "open this in a browser", "manifest.json": "every output, with sizes and ETags"}


def print_result(
    output: Output,
    status: JobStatus,
    target: Path,
    files: Sequence[Path],
    cost: Mapping[str, float] | None = None,
    *,
    named: Callable[[str], str] = str,
) -> None:
    """Say how a job ended and what it left in `target`.

    Args:
        output: where it goes.
        status: of the job.
        target: the folder.
        files: its own there.
        cost: in US dollars by item.
        named: calls the user's files in a text what the user calls them.
    """
    output.give(task_id=status.task_id, state=status.state, out=target, files=files)
    if status.error is not None:
        message = named(status.error.message)
        output.give(error=status.error.model_copy(update={"message": message}))
        output.say(f"job {status.task_id} failed ({status.error.stage})", style="bold red")
        output.say(f"{status.error.code}: {message}")
        return
    manifest = Manifest.model_validate_json((target / "manifest.json").read_bytes())
    output.give(manifest=manifest, cost_usd=cost or manifest.cost_usd)
    frames = sum(result.frames for result in manifest.segments)
    filled = sum(last - first + 1 for result in manifest.segments for first, last in result.filled)
    count = len(manifest.segments)
    output.say(
        f"job {status.task_id} is done: {counted(count, 'segment')}, {counted(frames, 'frame')}, "
        f"{filled} of them filled by motion",
        style="bold green",
    )
    output.say(f"report: {(target / 'report.html').resolve()}")
    for fallback in manifest.fallbacks:
        output.say(
            f"not as asked ({fallback.stage}): wanted {fallback.wanted}, used {fallback.used}: "
            f"{named(fallback.reason)}",
            style="yellow",
        )
    for notice in manifest.notices:
        output.say(f"note: {named(notice)}")
    output.detail(_made(target, files, manifest))
    output.detail(_stages(manifest))
    if cost:
        output.detail(_cost(cost))


def _stages(manifest: Manifest) -> Table:
    made = table("Stages", "stage", "seconds", numbers=("seconds",))
    for name, seconds in manifest.timings_s.items():
        made.add_row(*cells(name, f"{seconds:.2f}"))
    for result in manifest.segments:
        made.add_row(*cells(f"segment {result.index}", f"{result.timings_s['segment']:.2f}"))
    return made


def _made(target: Path, files: Sequence[Path], manifest: Manifest) -> Table:
    made = table(f"Made in {target}", "file", "size", "what", numbers=("size",))
    for path in files:
        name = path.relative_to(target)
        made.add_row(*cells(name, size(path.stat().st_size), _what(name, manifest)))
    return made


def _cost(cost: Mapping[str, float]) -> Table:
    title = f"Cost on AWS, estimated: list prices of {PRICES.as_of} in {PRICES.region}, durations of this machine"
    made = table(title, "item", "US dollars", numbers=("US dollars",))
    for item, usd in {**cost, "sum": sum(cost.values())}.items():
        made.add_row(*cells(item, f"{usd:.6f}"))
    return made


def _what(name: Path, manifest: Manifest) -> str:
    """Say what a file of a job is, by its name below the job's folder."""
    if name.suffix == ".npz" and name.parent == Path():
        return f"flows by {manifest.engine}, both directions"
    if name.suffix == ".mp4" and name.parts[0] == "segments":
        # segments/{index}/…, some in a folder of their generator's
        result = manifest.segments[int(name.parts[1])]
        return f"{counted(result.frames, 'frame')}, {result.width_px}x{result.height_px}, {result.fps:g} fps"
    return _DOCUMENTS.get(str(name), "")
