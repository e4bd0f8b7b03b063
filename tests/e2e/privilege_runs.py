"""Jobs on one local cloud, and what screens ask of it, for tests of what functions are allowed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord, Manifest, Publication
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.signature import sign
from structureflow_local.run import bucket_of


class Run:
    """Jobs on one local cloud."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self.cloud = cloud
        self.storage = bucket_of(cloud)
        self.client = JobClient(self.storage)
        write_clip(folder / "clip.mp4", pan_frames(9, 96, 160, dx=2, dy=0), fps=25)
        self.storage.put_file("library/clip.mp4", folder / "clip.mp4")
        write_clip(folder / "other.mp4", pan_frames(9, 96, 160, dx=1, dy=1, seed=5), fps=25)
        self.storage.put_file("library/other.mp4", folder / "other.mp4")
        write_clip(folder / "unseen.mp4", pan_frames(9, 96, 160, dx=1, dy=0, seed=7), fps=25)
        self.storage.put_file("library/unseen.mp4", folder / "unseen.mp4")
        self.storage.put_file("timelines/reel/chunks/000.mp4", folder / "clip.mp4")
        self.storage.put("library/broken.mp4", b"no video")
        for name, seed in (("a", 1), ("b", 2)):
            self.storage.put(f"library/{name}.png", png(texture(96, 160, seed=seed)))

    def document(self, **changes: Any) -> dict[str, Any]:
        guides: list[dict[str, Any]] = [
            {"at": [0, 2], "image": "library/a.png"},
            {"at": [7, 8], "video": "library/clip.mp4", "from": 1},
        ]
        return {
            "structure_video": "library/clip.mp4",
            "timeline_id": "reel",
            "segments": [{"frames": 9, "guides": guides}],
        } | changes

    def job(self, task_id: str, **changes: Any) -> str:
        """Put a request, wait for its end, and return the state."""
        before = self.client.status(task_id)
        self.client.submit(PreparedJob(task_id, json.dumps(self.document(task_id=task_id, **changes)).encode(), {}))
        status = self.client.wait(task_id, timeout_s=300, newer_than=before)
        self.cloud.wait_idle(60)
        return status.state

    def reopen(self, task_id: str) -> None:
        """Let a run that ended run again, as far as the status says."""
        status = self.client.status(task_id)
        assert status is not None
        running = status.model_copy(update={"state": "running", "published": None})
        self.storage.put(keys.job_status(task_id), running.to_json())

    def break_off(self, task_id: str) -> None:
        """Put a finished job back to the moment when its publisher died, its turn being over."""
        status = self.client.status(task_id)
        assert status is not None
        run = status.run_id
        manifest = Manifest.model_validate_json(self.storage.get(keys.job_manifest(task_id)).data)
        for info in list(self.storage.list(keys.segments_prefix(task_id))):
            self.storage.copy(info.key, info.key.replace("/segments/", f"/runs/{run}/segments/"))
        self.storage.copy(keys.job_report(task_id), keys.run_report(task_id, run))
        planned = manifest.to_json().replace(b"/segments/", f"/runs/{run}/segments/".encode())
        planned = planned.replace(b"/report.html", f"/runs/{run}/report.html".encode())
        self.storage.put(keys.run_manifest(task_id, run), planned)
        self.storage.put(keys.segment_file(task_id, 7, "guide.mp4"), b"old")
        turn = Publication(run_id=run, token="dead", until=status.updated_at)
        dead = status.model_copy(update={"state": "running", "published": None, "publishing": turn})
        self.storage.put(keys.job_status(task_id), dead.to_json())

    def record(self, task_id: str) -> JobRecord:
        return load_record(self.storage, task_id)

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Ask the HTTP API; return status and answer."""
        try:
            with urllib.request.urlopen(self._signed(path, method, body)) as reply:  # noqa: S310 - loopback
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def picture(self, path: str) -> bytes:
        """Ask the HTTP API for a file."""
        with urllib.request.urlopen(self._signed(path)) as reply:  # noqa: S310 - loopback
            data: bytes = reply.read()
        return data

    def _signed(self, path: str, method: str = "GET", body: Any = None) -> urllib.request.Request:
        url = f"{self.cloud.api_url}{path}"
        data = b"" if body is None else json.dumps(body).encode()
        signing: Any = {"service": "execute-api", "region": self.cloud.region, "body": data}
        signed = sign(self.cloud.key, method=method, url=url, **signing) | {"Content-Type": "application/json"}
        return urllib.request.Request(url, data or None, signed, method=method)  # noqa: S310 - loopback

    def open(self, url: str) -> bytes:
        """Read a signed URL, as a screen would."""
        with urllib.request.urlopen(url) as reply:  # noqa: S310 - loopback
            data: bytes = reply.read()
        return data

    def invoke(self, stem: str, **event: Any) -> Any:
        name = "".join(part.title() for part in stem.split("_")) + "Function"
        return self.cloud.invoke(name, event)
