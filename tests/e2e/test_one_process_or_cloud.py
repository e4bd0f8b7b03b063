"""One job, in one process and on the local cloud: the same results, to the byte where the encoder allows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from structureflow.limits import MB_PER_VCPU
from structureflow.models.results import Manifest, SegmentResult
from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.one_process import OneProcess
from structureflow_local.run import bucket_of
from tests.readers.videos import is_same_video

REPO = Path(__file__).resolve().parents[2]
TEMPLATE = REPO / "template.yaml"
#: What of a result is another one each time, or says where it was made.
ITS_OWN = {"run_id", "timings_s", "outputs", "usage"}

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def segment_workers() -> int:
    """Return the threads of the deployed function: x264's output depends on how many encode."""
    found = re.search(r"SegmentMemoryMegabytes:\n(?:    .*\n)*?    Default: (\d+)", TEMPLATE.read_text())
    assert found is not None
    return -(-int(found[1]) // MB_PER_VCPU)


def test_the_same_results(tmp_path: Path) -> None:
    frames = list(pan_frames(24, 192, 320, dx=3, dy=1))
    write_clip(tmp_path / "clip.mp4", frames)
    for name, frame in (("a", frames[0]), ("b", frames[12]), ("c", frames[23])):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
    document = {
        "task_id": "same",
        "structure_video": "clip.mp4",
        "images": ["a.png", "b.png", "c.png"],
        "frames": 33,
        "overlap": 5,
        "outputs": ["flow_vis", "visibility", "tracks", "ttm"],
        "prompt": "a walk",
    }
    job = prepare_job(json.dumps(document), name="same", folder=tmp_path)
    with OneProcess(job, store=None, workers=segment_workers()) as steps:
        steps.start()
        assert steps.wait(timeout_s=240).state == "done"
        (tmp_path / "here").mkdir()
        JobClient(steps.storage).fetch("same", tmp_path / "here")
    with LocalCloud(TEMPLATE) as cloud:
        client = JobClient(bucket_of(cloud))
        client.submit(job)
        assert client.wait("same", timeout_s=240).state == "done"
        (tmp_path / "cloud").mkdir()
        client.fetch("same", tmp_path / "cloud")
    here, there = (
        {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*.*")}
        for name in ("here", "cloud")
    )
    assert set(here) == set(there)
    compared = set()
    for made_at, path in here.items():
        if made_at.suffix in {".mp4", ".npz", ".png", ".npy", ".txt", ".pth"} or made_at.name == "request.json":
            ours, theirs = path.read_bytes(), there[made_at].read_bytes()
            assert ours == theirs or (made_at.suffix == ".mp4" and is_same_video(ours, theirs)), made_at
            compared.add(made_at.suffix)
        elif made_at.name == "result.json":
            one, other = (SegmentResult.model_validate_json(found.read_bytes()) for found in (path, there[made_at]))
            assert one.model_dump(exclude=ITS_OWN) == other.model_dump(exclude=ITS_OWN)
            # of other files than videos; those were compared
            sizes, other_sizes = (
                {key: made.size_bytes for key, made in result.outputs.items() if not made.key.endswith(".mp4")}
                for result in (one, other)
            )
            assert sizes == other_sizes
    assert {".mp4", ".npz", ".png"} <= compared
    whole, whole_other = (
        Manifest.model_validate_json((tmp_path / name / "manifest.json").read_bytes()) for name in ("here", "cloud")
    )
    assert whole.engine == whole_other.engine
    assert not whole.fallbacks
    assert not whole_other.fallbacks
