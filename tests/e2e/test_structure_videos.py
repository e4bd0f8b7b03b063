"""Several structure videos, and flows that are given, on the local cloud: the real functions, each a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.models.results import JobRecord, Manifest
from structureflow.testing.jobs import png
from structureflow.testing.videos import decode_rgb, pan_frames, texture, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 96, 160

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def request(**motion: Any) -> dict[str, Any]:
    """One segment of 24 frames between an image at 0 and one at 14."""
    guides = [{"at": 0, "image": "a.png"}, {"at": 14, "image": "a.png"}]
    return {"mask": "filled", "anchors": "start", "segments": [{"frames": 24, "guides": guides}], **motion}


def test_sources_are_joined_and_an_archive_is_taken_as_given(tmp_path: Path) -> None:
    """The second job takes the archive that the first one left, by its key."""
    write_clip(tmp_path / "right.mp4", pan_frames(9, HEIGHT, WIDTH, dx=2, dy=0), fps=25)
    write_clip(tmp_path / "left.mp4", pan_frames(9, HEIGHT, WIDTH, dx=-3, dy=0), fps=25)
    (tmp_path / "a.png").write_bytes(png(texture(HEIGHT, WIDTH, seed=1)))
    videos = [
        {"path": "right.mp4", "start_frame": 0, "end_frame": 9},
        {"path": "left.mp4", "start_frame": 14, "end_frame": 23},
    ]
    with LocalCloud(REPO / "template.yaml") as cloud:
        storage = bucket_of(cloud)
        client = JobClient(storage)

        def run(name: str, document: dict[str, Any]) -> tuple[JobRecord, Manifest, list[Any]]:
            client.submit(prepare_job(json.dumps({"task_id": name, **document}), name=name, folder=tmp_path))
            status = client.wait(name, timeout_s=180)
            assert status.state == "done", status.error
            record = JobRecord.model_validate_json(storage.get(keys.job_record(name)).data)
            manifest = Manifest.model_validate_json(storage.get(keys.job_manifest(name)).data)
            storage.get_to_file(keys.segment_file(name, 0, "guide.mp4"), tmp_path / f"{name}.mp4")
            return record, manifest, [frame.astype(float) for frame in decode_rgb(tmp_path / f"{name}.mp4")]

        record, manifest, guide = run("several", request(structure_videos=videos))
        (result,) = manifest.segments
        assert manifest.fallbacks == ()
        assert (result.filled, result.left_unguided) == (((1, 8), (15, 22)), ((9, 13), (23, 23)))
        assert [Path(source.reference).name.partition("_")[2] for source in record.sources] == ["right.mp4", "left.mp4"]
        assert like_a_roll(guide[0], guide[8], 16)
        assert like_a_roll(guide[14], guide[22], -24)

        given = request(flow_cache=keys.job_flows("several"), treatment="clip")
        record, manifest, guide = run("given", given)
        (result,) = manifest.segments
        assert manifest.fallbacks == ()
        assert record.flow_cache is not None
        assert record.flow_cache.reference == keys.job_flows("several")
        assert (result.flow_source, result.tracking) == ("cache", "composed")
        # flow 8 is the border of the two videos, and a cut
        assert result.filled == ((1, 8), (15, 18))
        assert like_a_roll(guide[0], guide[8], 16)
        assert like_a_roll(guide[14], guide[18], -12)


def like_a_roll(first: Any, later: Any, by: int) -> bool:
    """Tell whether a picture went so many pixels to the right, where what is seen was in sight before."""
    columns = slice(max(by, 0) + 8, WIDTH + min(by, 0) - 8)
    moved = np.abs(later[16:-16, columns] - np.roll(first, by, axis=1)[16:-16, columns]).mean()
    still = np.abs(later[16:-16, columns] - first[16:-16, columns]).mean()
    return bool(moved < 0.4 * still)
