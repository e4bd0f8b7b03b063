"""Drawn scenes of photographs: their truth is true, whatever they show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.testing.photo_scenes import VARIANTS, PhotoScene, PhotoTexture
from structureflow.testing.videos import texture

HEIGHT, WIDTH = 120, 200


def photos(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    ground, thing = (cv2.GaussianBlur(texture(HEIGHT, WIDTH, seed=seed + more), (0, 0), 1.5) for more in (0, 1))
    return np.asarray(ground, np.uint8), np.asarray(thing, np.uint8)


def scene(**options: float) -> PhotoScene:
    return PhotoScene(photos(1), height=HEIGHT, width=WIDTH, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("time", [7, 43])
@pytest.mark.parametrize("photo_seed", [1, 50])
def test_pixels_carried_along_the_true_path_are_those_of_the_frame(time: int, photo_seed: int) -> None:
    drawn = scene(speed=0.6)
    path, shown = drawn.path(time, 0)
    anchor, frame = (drawn.frame(at, photos(photo_seed)) for at in (0, time))
    carried = cv2.remap(anchor, path, None, cv2.INTER_CUBIC | cv2.WARP_RELATIVE_MAP)  # type: ignore[call-overload]
    difference = np.abs(carried.astype(int) - frame).max(axis=-1)
    # edges of the object mix with the ground in the sampling
    assert np.percentile(difference[shown], 95) < 8
    assert difference[~shown].mean() > 3 * difference[shown].mean()
    assert 0.5 < shown.mean() < 0.99
    # other ways do not fit
    off = cv2.remap(anchor, path + np.float32(3), None, cv2.INTER_CUBIC | cv2.WARP_RELATIVE_MAP)  # type: ignore[call-overload]
    assert np.abs(off.astype(int) - frame).max(axis=-1)[shown].mean() > 2 * difference[shown].mean()


def test_a_path_to_itself_is_identity_and_all_is_shown() -> None:
    path, shown = scene().path(5, 5)
    assert np.abs(path).max() < 1e-3
    assert shown.all()


def test_light_and_noise_change_the_picture_and_not_the_motion() -> None:
    plain, changed = scene(), scene(light=0.15, noise=4.0)
    np.testing.assert_array_equal(plain.path(20, 0)[0], changed.path(20, 0)[0])
    darker = changed.frame(22).astype(int).mean() / plain.frame(22).mean()
    assert darker == pytest.approx(1 + 0.15 * np.sin(0.21 * 22), abs=0.02)
    np.testing.assert_array_equal(changed.frame(9), scene(light=0.15, noise=4.0).frame(9))
    np.testing.assert_array_equal(changed.frame(9, photos(1)), plain.frame(9))


def test_faster_scenes_go_further() -> None:
    moved = [np.abs(scene(speed=speed).path(1, 0)[0]).mean() for _, speed, _, _ in VARIANTS]
    assert moved[2] < moved[0] == moved[1] < moved[3]


def test_a_photograph_goes_on_mirrored() -> None:
    picture = texture(30, 40, seed=3)
    shown = PhotoTexture(picture)
    x, y = np.meshgrid(np.arange(40.0), np.arange(30.0))
    np.testing.assert_array_equal(shown(x, y), picture)
    np.testing.assert_array_equal(shown(78 - x, y), picture)
    np.testing.assert_array_equal(shown(x, -y), picture)
