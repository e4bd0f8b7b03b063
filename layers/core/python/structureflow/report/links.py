"""Links from the report to files of its job."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from structureflow import keys

#: Of outputs whose name says too little.
OUTPUT_NAMES: Final = {
    "guide": "Guide video",
    "mask": "Mask video",
    "flow_vis": "Flow, in colours",
    "visibility": "Visibility",
}


def below_job(task_id: str, key: str) -> str:
    """Return a key without the job's own prefix; another key as it is."""
    return key.removeprefix(keys.job_prefix(task_id))


def relative(task_id: str, key: str) -> str | None:
    """Return the link from the report to a file of its job, or None for a file elsewhere."""
    if not key.startswith(keys.job_prefix(task_id)):
        return None
    # "./" keeps a colon in the first part from reading as a scheme.
    return "./" + quote(below_job(task_id, key))
