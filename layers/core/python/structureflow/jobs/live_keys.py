"""Keys of how work goes while it does: inside of the folders that `structureflow.keys` lays out, and gone with them."""

from __future__ import annotations

import re
from typing import Final

from structureflow import keys

_PROGRESS: Final = re.compile(r"/progress/(ended|live)/([a-z]+)-(\d{3,5})\.json\Z")


def run_progress_prefix(task_id: str, run_id: str) -> str:
    """Folder of how far a run's parts are, ending in a slash."""
    return f"{keys.run_prefix(task_id, run_id)}progress/"


def run_progress(task_id: str, run_id: str, step: str, index: int, *, ended: bool) -> str:
    """How far part `index` of a step is, or, if `ended`, that it is whole: then its name alone says all."""
    folder = "ended" if ended else "live"
    return f"{run_progress_prefix(task_id, run_id)}{folder}/{keys.check_id(step, 'step')}-{index:03d}.json"


def parse_run_progress(key: str) -> tuple[bool, str, int] | None:
    """Return whether a part ended, its step and its index, of a key of `run_progress`; None for any other key."""
    match = _PROGRESS.search(key)
    return (match[1] == "ended", match[2], int(match[3])) if match else None


def timeline_rebuild(timeline_id: str) -> str:
    """Where the rebuilding of a timeline's frames is; beside their manifest."""
    return f"{keys.timeline_prefix(timeline_id)}rebuild.json"
