"""Colours by their tags, HDR, wide primaries and transparency, each made here with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from structureflow.testing import odd_videos
from structureflow.testing.odd_videos import UNTAGGED, write_video
from structureflow.testing.videos import Image
from tests.contract.decoding import HEIGHT, LIMIT, assert_shows, decode, needs_animated_webp, pan

# --- colours -----------------------------------------------------------------------------------------


def bars(height: int, width: int) -> list[Image]:
    colours = [(235, 30, 40), (30, 200, 60), (40, 60, 230), (220, 210, 40), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    picture = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(colours):
        picture[:, index * width // len(colours) : (index + 1) * width // len(colours)] = colour
    return [picture, picture]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5])
def test_tags_are_followed(tmp_path: Path, matrix: int, full_range: bool) -> None:
    truth = bars(HEIGHT, 140)
    path = write_video(
        tmp_path / "a.mp4",
        truth,
        pix_fmt="yuv444p",
        options={"crf": "1"},
        matrix=matrix,
        tags=(matrix, 1, 1),
        full_range=full_range,
    )
    assert_shows(path, truth, 1.5)


@pytest.mark.parametrize(("size", "matrix"), [((720, 1280), 1), ((600, 800), 1), ((480, 640), 5)])
def test_untagged_hd_is_bt709_and_untagged_sd_bt601(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    truth = bars(*size)
    path = write_video(tmp_path / "a.mkv", truth, codec="ffv1", pix_fmt="yuv444p", matrix=matrix, tags=UNTAGGED)
    assert_shows(path, truth, 1.5)


def test_a_turned_hd_picture_is_bt709_too(tmp_path: Path) -> None:
    truth = bars(1280, 720)
    path = write_video(tmp_path / "a.mkv", truth, codec="ffv1", pix_fmt="yuv444p", matrix=1, tags=UNTAGGED)
    assert_shows(path, truth, 1.5)


def scene_light() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Linear BT.709 light by SDR white: greys from black to four times white, and some colours."""
    greys = np.repeat(np.array([0, 0.01, 0.05, 0.18, 0.5, 0.7, 1.0, 2.0, 4.0])[:, None], 3, 1)
    return np.concatenate([greys, [[0.5, 0.1, 0.1], [0.1, 0.4, 0.1], [0.05, 0.1, 0.5], [0.6, 0.5, 0.2]]])


TO_BT2020 = np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]])


def hdr_clip(path: Path, transfer: int) -> Path:
    """Write swatches of `scene_light`, 32 pixels each, as HDR with its white at 203 cd/m2."""
    nits = 203 * scene_light() @ TO_BT2020.T
    if transfer == 16:
        signal = odd_videos.pq_signal(nits)
    else:
        luminance = np.maximum(nits @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[:, None] / 1000
        signal = odd_videos.hlg_signal(nits / 1000 * luminance ** (-0.2 / 1.2))
    row = np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)
    picture = np.repeat(np.repeat(row[None], 64, 0), 32, 1)
    options = {"crf": "2", "x265-params": "log-level=none"}
    return write_video(
        path,
        [picture] * 2,
        codec="libx265",
        pix_fmt="yuv444p10le",
        source_format="rgb48le",
        matrix=9,
        tags=(9, transfer, 9),
        options=options,
    )


@pytest.mark.parametrize("transfer", [16, 18], ids=["pq", "hlg"])
def test_hdr_is_brought_to_what_a_standard_display_shows(tmp_path: Path, transfer: int) -> None:
    path = hdr_clip(tmp_path / "a.mkv", transfer)
    shown = decode(path)[1].image[32, 16::32].astype(float)
    truth = 255 * np.clip(scene_light(), 0, 1) ** (1 / 2.4)
    below_knee = scene_light().max(-1) <= 0.69
    assert np.abs(shown - truth)[below_knee].max() < 6
    greys = shown[:9].mean(-1)
    assert (np.diff(greys) > 2).all()  # highlights keep their order
    assert greys[6] > 225  # and white is near white
    with av.open(str(path)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="rgb24")[32, 16::32].astype(float)
    assert np.abs(shown - truth).mean() < 0.3 * np.abs(plain - truth).mean()


def test_wide_primaries_are_brought_to_bt709(tmp_path: Path) -> None:
    light = scene_light()[scene_light().max(-1) <= 1]
    row = np.rint(255 * (light @ TO_BT2020.T) ** (1 / 2.4)).astype(np.uint8)
    picture = np.repeat(np.repeat(row[None], 64, 0), 32, 1)
    path = write_video(tmp_path / "a.mkv", [picture] * 2, codec="ffv1", pix_fmt="yuv444p", matrix=9, tags=(9, 14, 9))
    shown = decode(path)[0].image[32, 16::32].astype(float)
    assert np.abs(shown - 255 * light ** (1 / 2.4)).max() < 6


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mov", "qtrle", "argb", {}),
        ("b.mov", "prores_ks", "yuva444p10le", {"profile": "4"}),
        ("c.mov", "png", "rgba", {}),
        ("d.webm", "libvpx-vp9", "yuva420p", {"crf": "5", "cpu-used": "8"}),
        pytest.param("f.webp", "libwebp_anim", "bgra", {"lossless": "1"}, marks=needs_animated_webp),
        ("g.apng", "apng", "rgba", {}),
        ("h.mkv", "ffv1", "yuva420p", {}),
    ],
)
def test_holes_are_mid_grey(tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    layered = list(odd_videos.with_hole(pan(4)))
    path = write_video(tmp_path / name, layered, codec=codec, pix_fmt=pix_fmt, source_format="rgba", options=options)
    for frame, image in zip(decode(path), layered, strict=True):
        hole = cv2.erode((image[..., 3] == 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        solid = cv2.erode((image[..., 3] == 255).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert np.abs(frame.image[hole].astype(int) - 128).max() <= 3
        assert np.abs(frame.image[solid].astype(int) - image[solid][:, :3]).mean() < LIMIT
