"""Hostile requests, events and documents: refused by name, at once, in few words, within each function's memory.

Every case runs in a process of its own (`budget_child`), whose highest memory is measured, imports included.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from structureflow import limits
from structureflow.models.job import JobRequest
from structureflow.models.results import JobRecord, SourceInfo, now
from structureflow_local.cloud.template import load_template

REPO = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("budget_child.py")
#: Of the memory that the template gives, the share that a function may take.
SHARE = 0.6
MEBIBYTE = 1024**2


def smallest_memory_bytes(function: str) -> int:
    """The least memory that the template lets a function have."""
    return memories_mb()[function] * MEBIBYTE


@functools.cache
def memories_mb() -> dict[str, int]:
    """Memory by function folder, with every parameter at its smallest, the GPU part included."""
    parameters = {
        "OrchestratorMemoryMegabytes": "1769",
        "SegmentMemoryMegabytes": "1769",
        "EnableGpu": "true",
        "GpuImageUri": "image",
        "GpuVpcId": "vpc",
        "GpuSubnetIds": "subnet",
    }
    template = load_template(REPO / "template.yaml", parameters)
    stems = {
        name: re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Function")).lower() for name in template.functions
    }
    return {stems[name]: spec.memory_mb for name, spec in template.functions.items()}


def filled(start: str, item: str, end: str, size_bytes: int) -> bytes:
    """JSON text of about `size_bytes`: `start`, then `item` again and again, then `end`."""
    count = (size_bytes - len(start) - len(end)) // (len(item) + 1)
    return f"{start}{','.join([item] * count)}{end}".encode()


def document(**changes: Any) -> dict[str, Any]:
    return {"task_id": "t", "structure_video": "v.mp4", "segments": [{"frames": 9}], **changes}


def request(**changes: Any) -> bytes:
    return json.dumps(document(**changes)).encode()


def shorthand(**changes: Any) -> bytes:
    return json.dumps({"task_id": "t", "structure_video": "v.mp4", **changes}).encode()


def numbered_fields(size_bytes: int) -> bytes:
    return f"{{{','.join(f'{json.dumps(str(n))}:0' for n in range(size_bytes // 12))}}}".encode()


MOST = limits.MAX_REQUEST_BYTES
BASE = '{"task_id":"t","structure_video":"v.mp4",'
#: Requests by what is endless in them, and what their refusal says.
REQUESTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "bytes": (lambda: filled('{"segments":[', "0", "]}", 6_000_000), f"at most {MOST} bytes"),
    "segments that are numbers": (lambda: filled(BASE + '"segments":[', "0", "]}", MOST), "at most 20000 items"),
    "segments": (lambda: request(segments=[{"frames": 9}] * 2001), "segments: expected at most 2000 items, got 2001"),
    # those of the first twenty: the others are not looked at
    "bad segments": (lambda: request(segments=[dict.fromkeys("abcdefgh", 0)] * 400), "and 161 more"),
    "guides that are numbers": (
        lambda: filled(BASE + '"segments":[{"frames":9,"guides":[', "0", "]}]}", 30_000),
        "guides: expected at most 2000 items",
    ),
    "bad guides": (
        lambda: request(segments=[{"frames": 9, "guides": [dict.fromkeys("abcdefgh", 0)] * 50}] * 400),
        "a: unknown field",
    ),
    "guides in all": (
        lambda: request(segments=[{"frames": 2000, "guides": [{"at": 1, "image": "i"}] * 100}] * 201),
        "at most 20000 guides in all, got 20100",
    ),
    "frames in all": (
        lambda: request(segments=[{"frames": 2000, "guides": [{"at": 1, "image": "i"}]}] * 401),
        "at most 800000 frames in all, got 802000",
    ),
    "images": (lambda: shorthand(images=["a"] * 2002), "images: expected at most 2001 items"),
    "outputs": (lambda: request(outputs=["flow_vis"] * 20_000), "outputs: expected at most 32 items, got 20000"),
    "an output twice": (lambda: request(outputs=["flow_vis"] * 2), "outputs: expected every name once"),
    "overlays": (lambda: request(overlays=["warp", "flow", "warp"]), "overlays: expected every name once"),
    "fields": (lambda: numbered_fields(MOST), "expected at most 64 fields"),
    "fields of a segment": (lambda: request(segments=[{str(n): 0 for n in range(65)}]), "at most 64 fields, got 65"),
    "a field's name": (lambda: request(**{"n" * 1_000_000: 0}), "field names of at most 64 characters"),
    "a reference": (lambda: request(structure_video="v" * 1_000_000), "structure_video: expected at most 2048"),
    "a label": (lambda: request(project_id="p" * 300), "project_id"),
    "a task id": (lambda: request(task_id="t" * 1_000_000), "task_id: expected at most 2048 characters"),
    "digits": (lambda: request(fps=1).replace(b'"fps": 1', b'"fps": ' + b"1" * 5_000), "expected JSON"),
    "a number": (lambda: request(segments=[{"frames": 10**4000}]), "frames: expected a number of at most"),
    "a resolution": (lambda: request(resolution="9" * 2000 + "x2"), "resolution: expected .*WIDTHxHEIGHT"),
    "fps": (lambda: request(fps=1e-6), "fps: .*1e-06"),
    "levels": (lambda: b'{"segments":' + b"[" * 1_000_000, "expected JSON"),
    "levels that close": (lambda: b'{"segments":' + b"[" * 60 + b"]" * 60 + b"}", "at most 16 levels"),
    "empty lists": (lambda: filled("[", "[]", "]", MOST), "expected a JSON object, got a list"),
    "empty objects": (lambda: filled(BASE + '"segments":[', "{}", "]}", MOST), "at most 20000 items"),
    "nothing": (lambda: b"", "expected JSON"),
}


def largest_request() -> JobRequest:
    """As many guides as a job may have, with references as long as the bytes of a request allow."""
    guides = [{"at": [n * 4, n * 4 + 1], "fade": [f"images/{n:016d}", f"images/{n + 1:016d}"]} for n in range(50)]
    found = JobRequest.parse(document(segments=[{"frames": 200, "guides": guides}] * 400))
    compact = json.dumps(found.to_document(), separators=(",", ":"))
    assert 0.75 * MOST < len(compact) <= MOST
    return found


def record_of(found: JobRequest) -> JobRecord:
    source = SourceInfo(reference="v", identity="i", size_bytes=1, frames=9, fps=25, width_px=64, height_px=64)
    return JobRecord(
        task_id="t",
        run_id="r",
        request=found,
        source=source,
        timeline_id="l",
        resolution=(64, 64),
        engine_requested="dis",
        engine="dis",
        flow_cache_hit=False,
        created_at=now(),
    )


def measure(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run cases in the child; one answer each."""
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", CHILD], input=lines, capture_output=True, text=True, check=False, timeout=240
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), done.stderr[-3000:]
    return answers


def case(function: str, kind: str, path: Path) -> dict[str, Any]:
    most = int(SHARE * smallest_memory_bytes(function))
    return {"function": function, "kind": kind, "path": str(path), "max_bytes": most}


def test_hostile_requests_are_refused_by_name_within_memory(tmp_path: Path) -> None:
    cases = []
    for number, (make, _) in enumerate(REQUESTS.values()):
        folder = tmp_path / str(number)
        (folder / "jobs" / "t").mkdir(parents=True)
        (folder / "jobs" / "t" / "request.json").write_bytes(make())
        cases.append(case("orchestrator", "request", folder))
    most = SHARE * smallest_memory_bytes("orchestrator")
    for (name, (_, said)), answer in zip(REQUESTS.items(), measure(cases), strict=True):
        assert answer["error"] == "InvalidRequestError", (name, answer)
        assert re.search(said, answer["message"]), (name, answer["message"])
        assert len(answer["message"]) < limits.MAX_MESSAGE_CHARS + 100, name
        assert answer["peak_bytes"] < most, (name, answer["peak_bytes"] / MEBIBYTE)


def test_a_giant_request_is_not_read(tmp_path: Path) -> None:
    """Five gigabytes, of which nothing but the first bytes may reach memory."""
    (tmp_path / "jobs" / "t").mkdir(parents=True)
    with (tmp_path / "jobs" / "t" / "request.json").open("wb") as file:
        file.truncate(5_000_000_000)
    (answer,) = measure([case("orchestrator", "request", tmp_path)])
    assert answer["error"] == "InvalidRequestError"
    assert "got 5000000000" in answer["message"]
    assert answer["peak_bytes"] < SHARE * smallest_memory_bytes("orchestrator")


FUNCTIONS = sorted(path.parent.name for path in (REPO / "functions").glob("*/app.py"))
SMALLEST = min(FUNCTIONS, key=smallest_memory_bytes)
#: Events of six megabytes, the most that Lambda hands over.
EVENTS: dict[str, Callable[[], bytes]] = {
    "numbers": lambda: filled('{"detail":[', "0", "]}", 6_000_000),
    "lists": lambda: filled('{"detail":[', "[]", "]}", 6_000_000),
    "fields": lambda: numbered_fields(6_000_000),
}


def test_hostile_events_are_refused_within_the_memory_of_every_function(tmp_path: Path) -> None:
    cases = []
    for name, make in EVENTS.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(make())
        # The worst of them for every function, the others for the one with the least memory.
        cases += [case(function, "event", path) for function in (FUNCTIONS if name == "lists" else [SMALLEST])]
    for one, answer in zip(cases, measure(cases), strict=True):
        assert answer["error"] == "InvalidRequestError", (one, answer)
        most = SHARE * smallest_memory_bytes(one["function"])
        assert answer["peak_bytes"] < most, (one, answer["peak_bytes"] / MEBIBYTE)


def test_the_record_of_the_largest_request_is_read_within_memory(tmp_path: Path) -> None:
    record = record_of(largest_request()).to_json()
    assert len(record) <= limits.MAX_DOCUMENT_BYTES
    (tmp_path / "jobs" / "t").mkdir(parents=True)
    (tmp_path / "jobs" / "t" / "job.json").write_bytes(record)
    (answer,) = measure([case(SMALLEST, "record", tmp_path)])
    assert answer["error"] == ""
    assert answer["peak_bytes"] < SHARE * smallest_memory_bytes(SMALLEST), answer["peak_bytes"] / MEBIBYTE


def test_documents_of_the_most_bytes_and_values_are_refused_within_memory(tmp_path: Path) -> None:
    cases = []
    most_items = limits.MAX_DOCUMENT_VALUES // 2 - 5
    endless = [filled('{"a":[', text, "]}", limits.MAX_DOCUMENT_BYTES) for text in ("[]", "{}", "0", "0.5", '"abc"')]
    counted = [f'{{"a":[{",".join([text] * most_items)}]}}'.encode() for text in ("[]", "{}", '"abcdefghijklmnopqrst"')]
    for number, data in enumerate(endless + counted):
        assert len(data) <= limits.MAX_DOCUMENT_BYTES
        folder = tmp_path / str(number)
        (folder / "jobs" / "t").mkdir(parents=True)
        (folder / "jobs" / "t" / "job.json").write_bytes(data)
        cases.append(case(SMALLEST, "record", folder))
    # As many fields as may be counted: the dearest per value.
    (tmp_path / "fields" / "jobs" / "t").mkdir(parents=True)
    fields = ",".join(f'"{number:06d}":0' for number in range(limits.MAX_DOCUMENT_VALUES // 2 - 1))
    assert len(fields) < limits.MAX_DOCUMENT_BYTES
    (tmp_path / "fields" / "jobs" / "t" / "job.json").write_text(f"{{{fields}}}")
    cases.append(case(SMALLEST, "record", tmp_path / "fields"))
    for answer in measure(cases):
        assert answer["error"] == "JobStateError", answer
        assert "not a document of" in answer["message"], answer
        assert answer["peak_bytes"] < SHARE * smallest_memory_bytes(SMALLEST), answer["peak_bytes"] / MEBIBYTE
