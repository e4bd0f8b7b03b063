"""Every storage key of the system is built and parsed here, and nowhere else.

Layout of the bucket::

    jobs/{task_id}/request.json                                   what the user asks for; its arrival starts the job
    jobs/{task_id}/inputs/{name}                                  files that the command line uploaded for the job
    jobs/{task_id}/structure_flows_{task_id}.npz                  its arrival starts the state machine
    jobs/{task_id}/runs/{run_id}/job.json                         what the orchestrator resolved for one run
    jobs/{task_id}/runs/{run_id}/claim.json                       which execution claimed the run
    jobs/{task_id}/runs/{run_id}/segments/… · manifest.json · …   what the run made, until it is published
    jobs/{task_id}/runs/{run_id}/progress/…                       how far its parts are (`jobs.live_keys`)
    jobs/{task_id}/status.json                                    which run the job is at; changed by swaps only
    jobs/{task_id}/segments/{index:03d}/{guide.mp4,mask.mp4,…}    what the user collects: of the last run published
    jobs/{task_id}/segments/{index:03d}/{ttm,tracks,…}/{name}     outputs of several files
    jobs/{task_id}/{manifest.json,report.html,job.json}           the same, the manifest written last
    work/.gpu/{run_id}.json                                       what a GPU task or a Batch job shall extract
    work/.settling/{run_id}.json                                  who settles that order just now
    work/.parts/{run_id}/{plan.json,{number:03d}/{name}}          how a run's video is cut, and what its parts left
    cache/flows/{key}.npz                                         flows by content, engine and parameters
    cache/timelines/{timeline_id}/…                               frames, manifest, overlays of a timeline
    timelines/{timeline_id}/chunks/…                              source chunks of a timeline, in order
"""

from __future__ import annotations

import re
from typing import Final

from structureflow.arguments import index_of, is_text, shown
from structureflow.errors import InvalidIdError, InvalidKeyError

__all__ = [
    "GPU_ORDERS_PREFIX",
    "ID_PATTERN",
    "RESERVED_PREFIXES",
    "TIMELINES_PREFIX",
    "check_id",
    "check_name",
    "check_sequence",
    "flow_cache",
    "gpu_claim",
    "gpu_order",
    "is_job_request",
    "job_flows",
    "job_input",
    "job_manifest",
    "job_of",
    "job_prefix",
    "job_record",
    "job_report",
    "job_request",
    "job_status",
    "parse_job_flows",
    "parse_job_request",
    "parse_run_claim",
    "parse_timeline_frame",
    "parse_timeline_overlay",
    "parts_file",
    "parts_prefix",
    "run_claim",
    "run_manifest",
    "run_prefix",
    "run_record",
    "run_report",
    "run_segment_file",
    "run_segment_list",
    "run_segments_prefix",
    "runs_prefix",
    "segment_file",
    "segments_prefix",
    "storage_probe",
    "timeline_chunk",
    "timeline_chunks_prefix",
    "timeline_frame",
    "timeline_frames_prefix",
    "timeline_manifest",
    "timeline_overlay",
    "timeline_overlays_prefix",
    "timeline_prefix",
]

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_ID = re.compile(ID_PATTERN)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_REQUEST = re.compile(rf"jobs/({ID_PATTERN})/request\.json")
_JOB_FLOWS = re.compile(rf"jobs/({ID_PATTERN})/structure_flows_({ID_PATTERN})\.npz")
_IN_JOB = re.compile(rf"jobs/({ID_PATTERN})/")
_RUN_CLAIM = re.compile(rf"jobs/{ID_PATTERN}/runs/({ID_PATTERN})/claim\.json")
_FLOW_KEY = re.compile(r"[0-9a-f]{16,64}")
_FRAME = re.compile(r"(?:.*/)?frames/(\d{1,9})\.jpe?g")
_OVERLAY = re.compile(r"(?:.*/)?(\d{1,9})_([A-Za-z0-9][A-Za-z0-9._-]{0,99})\.png")

#: Prefixes that only the system writes; a request must not name an input below them.
RESERVED_PREFIXES: Final = ("cache/flows/", "work/")


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it may stand in a key as one path part.

    An id starts with a letter or digit, goes on with letters, digits, ``.``, ``_`` or ``-``, is at most 128
    characters long and has no ``..``; so it can neither climb nor be a prefix of a neighbour's folder.

    Raises:
        InvalidIdError: it has another form; the message names `what`.
    """
    if not is_text(value) or not _ID.fullmatch(value) or ".." in value:
        raise InvalidIdError(
            f"{what}: expected 1 to 128 characters of A-Z a-z 0-9 . _ - starting with a letter or digit "
            f"and without '..', got {value!r:.200}"
        )
    return value


def check_name(value: str, what: str = "name") -> str:
    """Return `value` if it is a plain file name; same rules as `check_id`, up to 200 characters."""
    if not is_text(value) or not _NAME.fullmatch(value) or ".." in value:
        raise InvalidIdError(f"{what}: expected a plain file name, got {value!r:.200}")
    return value


def check_sequence(sequence: int) -> int:
    """Return `sequence` if it may be a frame's number.

    Raises:
        InvalidKeyError: it is no whole number, or too large.
    """
    number = index_of(sequence)
    if number is None or not 0 <= number <= 999_999_999:
        raise InvalidKeyError(f"frame sequence: expected a whole number, 0 to 999999999, got {shown(sequence)}")
    return number


# --- jobs --------------------------------------------------------------------------------------------


def job_prefix(task_id: str) -> str:
    """Folder of a job, ending in a slash."""
    return f"jobs/{check_id(task_id, 'task_id')}/"


def job_request(task_id: str) -> str:
    """The job request; its creation starts the orchestrator."""
    return f"{job_prefix(task_id)}request.json"


def parse_job_request(key: str) -> str:
    """Return the task id of a request's key.

    Raises:
        InvalidKeyError: the key is no ``jobs/{task_id}/request.json``.
    """
    match = _REQUEST.fullmatch(key)
    if not match or ".." in match[1]:
        raise InvalidKeyError(f"expected jobs/{{task_id}}/request.json, got {key!r:.300}")
    return match[1]


def job_of(key: str) -> str | None:
    """Return the task id of the job in whose folder `key` lies; None for any other key."""
    match = _IN_JOB.match(key)
    return match[1] if match and ".." not in match[1] else None


def is_job_request(key: str) -> bool:
    """Tell whether `key` is the request of a job: directly in its folder, and of a name that a job may have."""
    try:
        parse_job_request(key)
    except InvalidKeyError:
        return False
    return True


def job_input(task_id: str, name: str) -> str:
    """A file that was uploaded for the job."""
    return f"{job_prefix(task_id)}inputs/{check_name(name, 'input name')}"


def job_record(task_id: str) -> str:
    """What the orchestrator resolved about the run that was published last."""
    return f"{job_prefix(task_id)}job.json"


def runs_prefix(task_id: str) -> str:
    """Folder of the folders of a job's runs, ending in a slash."""
    return f"{job_prefix(task_id)}runs/"


def run_prefix(task_id: str, run_id: str) -> str:
    """Folder of one run, ending in a slash; what is published from it has the same name below `job_prefix`."""
    return f"{runs_prefix(task_id)}{check_id(run_id, 'run_id')}/"


def run_record(task_id: str, run_id: str) -> str:
    """What the orchestrator resolved about the run: source, timeline, engine."""
    return f"{run_prefix(task_id, run_id)}job.json"


def run_manifest(task_id: str, run_id: str) -> str:
    """What the run made, all of it in its folder: the plan of its publication."""
    return f"{run_prefix(task_id, run_id)}manifest.json"


def run_report(task_id: str, run_id: str) -> str:
    """The run's HTML page."""
    return f"{run_prefix(task_id, run_id)}report.html"


def run_segments_prefix(task_id: str, run_id: str) -> str:
    """Folder of what a run's segments make, ending in a slash."""
    return f"{run_prefix(task_id, run_id)}segments/"


def run_segment_file(task_id: str, run_id: str, index: int, name: str) -> str:
    """An output of segment `index` (zero-based) of a run, or what only the run's last step reads of it.

    `name` is a file's, as ``guide.mp4``, or that of a file of an output's own folder, as ``ttm/mask.mp4``.
    """
    folder, slash, file = name.rpartition("/")
    where = f"{check_name(folder)}/{check_name(file)}" if slash else check_name(name)
    return f"{run_segments_prefix(task_id, run_id)}{_index(index)}/{where}"


def job_flows(task_id: str) -> str:
    """The job's flow archive; its creation starts the state machine."""
    return f"{job_prefix(task_id)}structure_flows_{task_id}.npz"


def parse_job_flows(key: str) -> str:
    """Return the task id of a job's flow archive.

    Raises:
        InvalidKeyError: the key is no ``jobs/{task_id}/structure_flows_{task_id}.npz``.
    """
    match = _JOB_FLOWS.fullmatch(key)
    if not match or match[1] != match[2] or ".." in match[1]:
        raise InvalidKeyError(f"expected jobs/{{task_id}}/structure_flows_{{task_id}}.npz, got {key!r:.300}")
    return match[1]


def run_claim(task_id: str, run_id: str) -> str:
    """Claim of a run by one execution of the state machine (created conditionally)."""
    return f"{run_prefix(task_id, run_id)}claim.json"


def parse_run_claim(key: str) -> str | None:
    """Return the run of a claim's key; None for any other key of a run's folder."""
    match = _RUN_CLAIM.fullmatch(key)
    return match[1] if match else None


def job_status(task_id: str) -> str:
    """State, stage and typed error of the job."""
    return f"{job_prefix(task_id)}status.json"


def job_manifest(task_id: str) -> str:
    """Every output of the run that was published last."""
    return f"{job_prefix(task_id)}manifest.json"


def job_report(task_id: str) -> str:
    """The self-contained HTML page of a job."""
    return f"{job_prefix(task_id)}report.html"


def segments_prefix(task_id: str) -> str:
    """Folder of all segments' outputs of a job, ending in a slash."""
    return f"{job_prefix(task_id)}segments/"


def segment_file(task_id: str, index: int, name: str) -> str:
    """An output of segment `index` (zero-based): ``guide.mp4``, ``mask.mp4``, ``result.json``, …"""
    return f"{segments_prefix(task_id)}{_index(index)}/{check_name(name)}"


#: Starts with a dot, which no task id does.
GPU_ORDERS_PREFIX: Final = "work/.gpu/"


def run_segment_list(task_id: str, run_id: str) -> str:
    """The segments of a run of more than a few, for the state machine to read; gone when the run is published."""
    return f"{run_prefix(task_id, run_id)}segments.json"


def gpu_order(run_id: str) -> str:
    """The order of a run that a GPU task or a Batch job extracts; gone when the run's flows are committed."""
    return f"{GPU_ORDERS_PREFIX}{check_id(run_id, 'run_id')}.json"


def gpu_claim(run_id: str) -> str:
    """Who settles the order of a run just now; outside of the orders, which are listed."""
    return f"work/.settling/{check_id(run_id, 'run_id')}.json"


def parts_prefix(run_id: str) -> str:
    """Folder of what the parts of a run's video leave until they are joined, ending in a slash."""
    return f"work/.parts/{check_id(run_id, 'run_id')}/"


def parts_file(run_id: str, name: str, number: int | None = None) -> str:
    """What part `number` (zero-based) left; without one, what is of all parts: ``plan.json``."""
    return f"{parts_prefix(run_id)}{'' if number is None else f'{_index(number)}/'}{check_name(name)}"


def _index(index: int) -> str:
    if not 0 <= index <= 99_999:
        raise InvalidKeyError(f"index: expected 0 to 99999, got {index}")
    return f"{index:03d}"


def flow_cache(key: str) -> str:
    """The flow archive shared by all jobs; `key` is the lower-case hex digest of what it depends on."""
    if not _FLOW_KEY.fullmatch(key):
        raise InvalidKeyError(f"flow key: expected 16 to 64 lower-case hex digits, got {key!r:.100}")
    return f"cache/flows/{key}.npz"


# --- timelines ---------------------------------------------------------------------------------------

#: Folder of the caches of all timelines.
TIMELINES_PREFIX: Final = "cache/timelines/"


def timeline_prefix(timeline_id: str) -> str:
    """Folder of a timeline's cache, ending in a slash."""
    return f"{TIMELINES_PREFIX}{check_id(timeline_id, 'timeline_id')}/"


def timeline_frames_prefix(timeline_id: str) -> str:
    """Folder of a timeline's cached frames, ending in a slash."""
    return f"{timeline_prefix(timeline_id)}frames/"


def timeline_frame(timeline_id: str, sequence: int) -> str:
    """The JPEG of frame `sequence` (zero-based)."""
    check_sequence(sequence)
    return f"{timeline_frames_prefix(timeline_id)}{sequence:06d}.jpg"


def parse_timeline_frame(key: str) -> int:
    """Return the sequence number of a frame's key; keys written without zero padding are understood.

    Raises:
        InvalidKeyError: the key is no frame's.
    """
    match = _FRAME.fullmatch(key)
    if not match:
        raise InvalidKeyError(f"expected …/frames/{{sequence}}.jpg, got {key!r:.300}")
    return int(match[1])


def timeline_manifest(timeline_id: str) -> str:
    """The manifest of a timeline's frame cache; written last, it is the commit."""
    return f"{timeline_prefix(timeline_id)}manifest.json"


def timeline_overlays_prefix(timeline_id: str, job_id: str | None = None, stage: str | None = None) -> str:
    """Folder of a timeline's overlays, optionally of one job, optionally of one stage; ends in a slash."""
    prefix = f"{timeline_prefix(timeline_id)}overlays/"
    if job_id is not None:
        prefix += f"{check_id(job_id, 'job_id')}/"
        if stage is not None:
            prefix += f"{check_id(stage, 'stage')}/"
    elif stage is not None:
        raise InvalidKeyError("job_id: expected one where a stage is given, got none")
    return prefix


def timeline_overlay(timeline_id: str, job_id: str, stage: str, sequence: int, name: str) -> str:
    """The PNG of one overlay of one frame."""
    check_sequence(sequence)
    return f"{timeline_overlays_prefix(timeline_id, job_id, stage)}{sequence:06d}_{check_id(name, 'overlay name')}.png"


def parse_timeline_overlay(key: str) -> tuple[int, str]:
    """Return (sequence, name) of an overlay's key.

    Raises:
        InvalidKeyError: the key is no overlay's.
    """
    match = _OVERLAY.fullmatch(key)
    if not match:
        raise InvalidKeyError(f"expected …/{{sequence}}_{{name}}.png, got {key!r:.300}")
    return int(match[1]), match[2]


def timeline_chunk(timeline_id: str, name: str) -> str:
    """A source chunk of a timeline; chunks are in order of their names, numbers in them counting as numbers."""
    return f"{timeline_chunks_prefix(timeline_id)}{check_name(name, 'chunk name')}"


def timeline_chunks_prefix(timeline_id: str) -> str:
    """Folder of a timeline's source chunks, ending in a slash."""
    return f"timelines/{check_id(timeline_id, 'timeline_id')}/chunks/"


def storage_probe(token: str) -> str:
    """A short-lived object by which an adapter finds out what a store can do; outside of every job."""
    return f"work/.probe/{check_id(token, 'probe token')}"
