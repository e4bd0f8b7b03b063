"""Seed inputs, made anew each time: sound archives and requests of every kind, small, so that mutations hit."""

from __future__ import annotations

import io
import json
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from structureflow.models.job import JobRequest
from structureflow.testing.flows import archive_bytes, smooth_flows
from structureflow.testing.odd_videos import write_video
from structureflow.testing.old_archives import format_1_archive
from structureflow.testing.videos import pan_frames, write_clip

#: Byte strings that mutations put in whole.
ARCHIVE_WORDS = [
    b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"'descr': '<f4'",
    b"'descr': '<f2'", b"'descr': '>f8'", b"'descr': '<f16'", b"'descr': '|O'", b"'fortran_order': True",
    b"'fortran_order': False", b"'shape': (1, 2, 2, 2)", b"flows.npy", b"flows_backward.npy", b"format_version.npy",
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\x03\x00",
    b"\x00\x00\x00\xff\xff",
]  # fmt: skip


def write_seeds(target: str, folder: Path) -> Path:
    """Write the seeds and the dictionary of a target into `folder`; return the dictionary's path."""
    corpus = folder / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds, words = (archive_seeds(), ARCHIVE_WORDS) if target == "archive" else (request_seeds(), _request_words())
    for number, seed in enumerate(seeds):
        (corpus / f"{number:03d}").write_bytes(seed)
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in words]
    dictionary = folder / "words.dict"
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))
    return dictionary


def archive_seeds() -> list[bytes]:
    """Return archives of every kind that is read; the byte in front says whether checksums are put right."""
    flows = smooth_flows(3, 3, 4, seed=1)
    sound = [
        archive_bytes(flows, -flows, scene_cuts=(1,)),
        archive_bytes(flows),
        format_1_archive(flows, -flows),
        format_1_archive(flows[:1]),
    ]
    for write in (np.savez, np.savez_compressed):
        types = ("<f2", "<f4", ">f4", "<f8", np.longdouble)
        sound.extend(_plain(write, flows=flows.astype(dtype)) for dtype in types)
        sound.append(_plain(write, flows=np.asfortranarray(flows), flows_backward=np.asfortranarray(-flows)))
        sound.append(
            _plain(
                write,
                flows=flows,
                flows_backward=-flows,
                source_video="video.mp4",
                total_flows=3,
                original_fps=25.0,
                original_resolution=(8, 6),
                engine="dis",
                engine_params='{"a": [1, 2.5, null]}',
                timestamps_s=np.arange(4) / 25,
                scene_cuts=np.array([1]),
                display_max_px=2.0,
                source_sha256="ab" * 32,
            )
        )
    sound.append(_plain(np.savez_compressed, flows=np.zeros((2, 64, 64, 2), np.float32)))
    return [front + data for data in sound for front in (b"\0", b"\1")]


def _plain(write: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, **arrays)
    return buffer.getvalue()


def request_seeds() -> list[bytes]:
    """Return requests that between them use every field, in the names of today and of older payloads."""
    video = {"task_id": "t1", "structure_video": "s3://b/v.mp4"}
    guides = [
        {"at": 0, "image": "a.png"},
        {"at": [5, 7], "video": "b.mp4", "from": 2},
        {"at": [9, 16], "fade": ["a", "b"]},
    ]
    documents: list[dict[str, Any]] = [
        video | {"images": ["a.png", "b.png"], "frames": 16, "overlap": 1, "fade": 2},
        video | {"segments": [{"frames": 17, "guides": guides}, {"frames": 9}]},
        video
        | {
            "project_id": "p",
            "timeline_id": "tl",
            "treatment": "retime",
            "motion_strength": 0.5,
            "resolution": "64x48",
            "fps": 24.5,
            "engine": "dis",
            "quality": "fast",
            "flow_span": "timeline",
            "anchors": "both",
            "outputs": ["flow_vis", "visibility"],
            "overlays": ["flow", "warp"],
            "segments": [{"frames": 33, "guides": guides[:1]}],
        },
        {
            "orchestrator_task_id": "t1",
            "structure_video_path": "https://h.example/v.mp4?sig=x",
            "structure_video_treatment": "clip",
            "structure_video_motion_strength": 1,
            "parsed_resolution_wh": [64, 48],
            "fps_helpers": 16,
            "segments": [{"frames": 5, "guides": []}],
        },
    ]
    parsed = [JobRequest.parse_json(json.dumps(document).encode(), expected_task_id="t1") for document in documents]
    return [json.dumps(document).encode() for document in [*documents, *(request.to_document() for request in parsed)]]


def _request_words() -> list[bytes]:
    """Return the schema's field names and constants, and what numbers and brackets go wrong with."""
    schema = json.dumps(JobRequest.model_json_schema())
    words = {word for word in schema.split('"')[1::2] if 2 < len(word) < 40 and word.isidentifier()}
    odd = ["[[", "]]", "{}", "1e999", "-1", "NaN", "1" * 40, "\\ud800", "\\u0000", "null", "true", "0.0000001", "64x48"]
    return [f'"{word}"'.encode() for word in sorted(words)] + [word.encode() for word in odd]


@cache
def _frames(count: int, height: int = 48, width: int = 64) -> list[Any]:
    return [np.ascontiguousarray(frame) for frame in pan_frames(count, height, width, dx=2, dy=1)]


@cache
def video_seeds() -> list[bytes]:
    """Return small videos of the containers and codecs that users bring."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("a.mp4", {}),
        ("b.mkv", {"sound_s": 0.3}),
        ("c.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}),
        ("d.mpg", {"codec": "mpeg2video", "field": "tff"}),
        ("e.avi", {"codec": "mpeg4"}),
        ("f.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("g.ts", {"sound_s": 0.3}),
        ("h.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("i.mp4", {"sar": Fraction(2, 1), "container": {"movflags": "frag_keyframe+empty_moov"}}),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [write_video(folder / file, _frames(6), **options).read_bytes() for file, options in kinds]
        made.append(write_clip(folder / "r.mp4", _frames(6), rotation_deg=90).read_bytes())
    return made


@cache
def image_seeds() -> list[bytes]:
    """Return small images of every format that is read, with palettes, alpha, 16 bits, profiles and rotation."""
    picture = Image.fromarray(_frames(1, 40, 56)[0])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = picture.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(picture.size))
    gray = picture.convert("L")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(gray).astype(np.float32) / 255)
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("PNG", picture, {}),
        ("PNG", alpha, {"icc_profile": profile}),
        ("PNG", picture.quantize(32), {}),
        ("PNG", deep, {}),
        ("JPEG", picture, {"exif": exif, "icc_profile": profile}),
        ("JPEG", picture.convert("CMYK"), {}),
        ("JPEG", gray, {"progressive": True}),
        ("WEBP", alpha, {}),
        ("WEBP", picture, {"save_all": True, "append_images": [picture.rotate(5)]}),
        ("GIF", picture, {"save_all": True, "append_images": [picture.rotate(5)]}),
        ("BMP", picture, {}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", real, {}),
        ("TIFF", deep, {}),
        ("AVIF", picture, {}),
    ]
    made = []
    for kind, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return made
