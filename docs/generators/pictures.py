"""Draw the pictures of these pages from a job on the sample clip: ``python docs/generators/pictures.py [CLIP]``.

The job's guide is the clip's own first frame, so that all can be compared with the clip.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from structureflow import keys
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png
from structureflow_local.sample import make_sample

FOLDER = Path(__file__).parent
FRAMES = 33
SIZE = (416, 240)
OUTPUTS = ["vace_flow", "canny", "raw", "tracks", "warped_noise", "ttm"]

Picture = NDArray[np.uint8]


def main(given: Path | None) -> None:
    """Run the job and write the pictures beside this script."""
    with TemporaryDirectory() as scratch:
        clip = given or Path(scratch) / "sample.mp4"
        if given is None:
            make_sample(clip)
        runner = JobRunner(MemoryStorage(), Path(scratch))
        runner.storage.put("clip.mp4", clip.read_bytes())
        runner.storage.put("a.png", png(video(clip)[0]))
        document = {
            "task_id": "pictures",
            "structure_video": "clip.mp4",
            "resolution": SIZE,
            "treatment": "clip",
            "outputs": OUTPUTS,
            "prompt": "as it was",
            "segments": [{"frames": FRAMES, "guides": [{"at": 0, "image": "a.png"}]}],
        }
        status = runner.run("pictures", document)
        if status.state != "done":
            raise SystemExit(f"the job failed: {status.error}")
        prefix = keys.segment_file("pictures", 0, "result.json").removesuffix("result.json")
        for key in runner.keys(prefix):
            path = Path(scratch) / "out" / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            runner.storage.get_to_file(key, path)
        draw(Path(scratch) / "out")
        draw_masks(runner, Path(scratch))


def draw(made: Path) -> None:
    """Write every picture from a segment's folder."""
    times = (8, 20, 32)
    raw, flow, canny = (video(made / f"{name}.mp4") for name in ("raw", "vace_flow", "canny"))
    write("control-videos", [[one[time] for time in times] for one in (raw, flow, canny)])
    signal, mask = video(made / "ttm" / "motion_signal.mp4"), video(made / "ttm" / "mask.mp4")
    write("time-to-move", [[one[time] for time in times] for one in (signal, mask)])
    places = np.load(made / "tracks" / "tracks.npy")[0]
    seen = np.load(made / "tracks" / "visibility.npy")[0]
    write("tracks", [[with_tracks(raw[time], places[: time + 1], seen[time]) for time in times]])
    noise = np.load(made / "warped_noise" / "noises.npy")
    shades = np.clip(noise[[0, 8, 16], ..., :3] * 40 + 128, 0, 255).astype(np.uint8)
    large = [cv2.resize(one, SIZE, interpolation=cv2.INTER_NEAREST) for one in shades]
    write("warped-noise", [[np.asarray(one, np.uint8) for one in large]])


def draw_masks(runner: JobRunner, scratch: Path) -> None:
    """Write what `vace.md` shows: the guide, and the mask in each mode."""
    rows = []
    for mode in ("visibility", "keyframes", "filled"):
        document = {
            "task_id": mode,
            "structure_video": "clip.mp4",
            "target": "vace",
            "treatment": "clip",
            "mask": mode,
            "segments": [{"frames": FRAMES, "guides": [{"at": 0, "image": "a.png"}]}],
        }
        status = runner.run(mode, document)
        if status.state != "done":
            raise SystemExit(f"the job failed: {status.error}")
        for name in ("guide", "mask") if mode == "visibility" else ("mask",):
            path = scratch / f"{mode}_{name}.mp4"
            runner.storage.get_to_file(keys.segment_file(mode, 0, f"{name}.mp4"), path)
            frames = video(path)
            rows.append([framed(frames[time]) for time in (0, 8, 20, 32)])
    write("vace", rows)


def framed(picture: Picture) -> Picture:
    """Shrink a picture and draw a grey edge, so that white and black ones can be told apart."""
    shown = np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.rectangle(shown, (0, 0), (shown.shape[1] - 1, shown.shape[0] - 1), (128, 128, 128), 2)
    return shown


def with_tracks(picture: Picture, places: NDArray[np.float32], seen: NDArray[np.bool_]) -> Picture:
    """Draw where points came from and are: filled where they are seen, hollow where they are hidden."""
    shown = picture.copy()
    for number in range(places.shape[1]):
        hue = np.array([[[number * 180 // places.shape[1], 200, 255]]], np.uint8)
        colour = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        trail = np.rint(places[-12:, number]).astype(np.int32)
        cv2.polylines(shown, [trail[:, None]], False, colour, 1, cv2.LINE_AA)
        x, y = (int(value) for value in trail[-1])
        cv2.circle(shown, (x, y), 3, colour, -1 if seen[number] else 1, cv2.LINE_AA)
    return shown


def video(path: Path) -> Sequence[Picture]:
    """Return all frames, RGB."""
    with av.open(str(path), "r") as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def write(name: str, rows: Sequence[Sequence[Picture]]) -> None:
    """Write pictures side by side, in rows."""
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(sheet).quantize(160).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else None)
