"""What somebody exchanges behind the system's back, between a segment's end and the job's, is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from structureflow.storage.base import ObjectInfo
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture


class Tampering(MemoryStorage):
    """Exchanges an output of the first segment when the second one says that it is done."""

    def __init__(self, name: str, *, same_size: bool) -> None:
        super().__init__()
        self._name = name
        self._same_size = same_size
        self.exchanged: list[str] = []
        self.armed = False

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        **conditions: Any,
    ) -> ObjectInfo:
        """Write as always; after the second segment's result, exchange the first one's output."""
        info = super().put(key, data, content_type=content_type, if_absent=if_absent, **conditions)
        if self.armed and key.endswith("001/result.json"):
            for found in list(self.list("jobs/t1/runs/")):
                if found.key.endswith(f"000/{self._name}"):
                    before = self.get(found.key).data
                    after = before[:-1] + bytes([before[-1] ^ 1]) if self._same_size else before + b"\0"
                    super().put(found.key, after)
                    self.exchanged.append(found.key)
        return info


@pytest.mark.parametrize("same_size", [True, False])
@pytest.mark.parametrize("name", ["guide.mp4", "mask.mp4"])
def test_an_exchanged_output_fails_the_job(tmp_path: Path, name: str, same_size: bool) -> None:
    """Size and ETag are compared with what the segment wrote: one bit in a video of the same size is enough."""
    storage = Tampering(name, same_size=same_size)
    put_pan_clip(storage, "videos/pan.mp4", tmp_path)
    for image, seed in (("a", 1), ("b", 2)):
        storage.put(f"images/{image}.png", png(texture(96, 160, seed=seed)))
    runner = JobRunner(storage, tmp_path)
    document = {
        "task_id": "t1",
        "structure_video": "videos/pan.mp4",
        "images": ["images/a.png", "images/b.png", "images/a.png"],
        "frames": 12,
        "overlap": 3,
        "fade": 2,
    }
    assert runner.run("t1", document).state == "done"
    good = {info.key: info.etag for info in storage.list("jobs/t1/") if "/runs/" not in info.key}
    storage.armed = True
    status = runner.run("t1", document)
    assert len(storage.exchanged) == 1
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "IncompleteJobError"
    assert f"000/{name}: expected" in status.error.message
    after = {info.key: info.etag for info in storage.list("jobs/t1/") if "/runs/" not in info.key}
    # Noticed before anything was published: what was there before is there still.
    changing = {"jobs/t1/request.json", "jobs/t1/status.json"}
    assert {key: etag for key, etag in after.items() if key not in changing} == {
        key: etag for key, etag in good.items() if key not in changing
    }
