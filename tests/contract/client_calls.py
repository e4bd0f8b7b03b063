"""One call of every method of the API's client, with values that it takes; see `public_calls`.

What is refused is refused before anything is asked: a request that is made fails the test. That the calls work, and
what the API refuses, is shown on a real one (`tests/functional/test_api_new_jobs.py` and its like).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structureflow as sf
from tests.contract.public_calls import Call, method

_URL: Final = "http://127.0.0.1:9"


def _asked(*_: Any) -> Mapping[str, str]:
    raise AssertionError("the API was asked before arguments were looked at")


def _client() -> sf.ApiClient:
    return sf.ApiClient(_URL, sign=_asked)


_TASK: Final = {"task_id": "walk-1"}
_TIMELINE: Final = {"timeline_id": "walk"}
_REQUEST: Final[dict[str, Any]] = {"task_id": "walk-1", "structure_video": "a.mp4"}


def client_calls() -> dict[str, Call]:
    """Return the calls of `structureflow.ApiClient`, by name."""

    def call(name: str, arguments: Mapping[str, Any], kinds: Mapping[str, str]) -> Call:
        ids = {each: "id" for each in ("task_id", "timeline_id") if each in arguments}
        return Call(method(_client, name, **arguments), ids | dict(kinds), works=False)

    calls = {
        "about": call("about", {}, {}),
        "archive": call("archive", {"key": "a.npz"}, {"key": "key"}),
        "check": call("check", _TASK | {"request": _REQUEST}, {"request": "json"}),
        "clear": call("clear", _TIMELINE, {"overlays": "truth"}),
        "damaged": call("damaged", _TIMELINE, {}),
        "downloads": call("downloads", _TASK, {}),
        "fetch": call("fetch", {"url": "files/a"}, {"url": "url of a reply"}),
        "flow_picture": call(
            "flow_picture",
            {"key": "a.npz", "flow": 0},
            {"key": "key", "flow": "whole from 0", "width_px": "whole from 1"},
        ),
        "forecast": call("forecast", {"request": _REQUEST}, {"request": "json"}),
        "frame": call("frame", _TIMELINE | {"sequence": 0}, {"sequence": "whole from 0", "width_px": "whole from 1?"}),
        "inputs": call("inputs", {}, {}),
        "job": call("job", _TASK, {}),
        "jobs": call("jobs", {}, {}),
        "manifest": call("manifest", _TASK, {}),
        "overlays": call("overlays", _TIMELINE, {"job_id": "id?", "stage": "id?"}),
        "preview": call(
            "preview",
            {"request": _REQUEST},
            {"request": "json", "segment": "whole from 0", "gap": "range", "frames": "whole from 1"},
        ),
        "rebuild": call("rebuild", _TIMELINE, {"quality": "quality?"}),
        "request": call("request", _TASK, {}),
        "segment_frames": call("segment_frames", _TASK | {"index": 0}, {"index": "whole from 0"}),
        "segments": call("segments", _TASK, {}),
        "send": call("send", _TASK | {"request": _REQUEST}, {"request": "json", "again": "truth"}),
        "thumbnails": call(
            "thumbnails",
            _TIMELINE | {"sequences": [0]},
            {"sequences": "sequences", "width_px": "whole from 1", "leave_out_damaged": "truth"},
        ),
        "timeline": call("timeline", _TIMELINE, {}),
        "timelines": call("timelines", {}, {}),
        "upload": call("upload", _TASK | {"path": "clip.mp4"}, {"path": "file"}),
        "wait": call(
            "wait",
            _TASK | {"timeout_s": 1.0},
            {"timeout_s": "number from 0", "watch": "function", "poll_s": "number from 0"},
        ),
    }
    return {
        "ApiClient": Call(
            lambda: (sf.ApiClient, {"url": _URL}),
            {"url": "url", "token": "header?", "sign": "function?", "timeout_s": "rate"},
        ),
        "ApiClient.signed": Call(
            lambda: (sf.ApiClient.signed, {"url": _URL, "region": "us-east-1"}),
            {"url": "url", "region": "header", "timeout_s": "rate"},
        ),
        **{f"ApiClient.{name}": each for name, each in calls.items()},
    }
