"""Follow points of a segment's first frame through it, along the motion that the guide is made of."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, sample
from structureflow.guide.travel import Move, Pictures
from structureflow.targets.companions import Layer, Points, groups_around, similarity
from structureflow.targets.patches import Patches

#: A place is a point's if the way from there ends so near to where it began, in pixels of the grid.
_MEETS_PX: Final = 0.75
_FIXED_POINT_STEPS: Final = 6
#: From this visibility on (of 255) the first frame shows a pixel; soft edges lie outside of what it shows.
_SEEN: Final = 64
#: A lost point is believed to be where the flow leads, and seen, while its companions say so too: so near (and a share
#: of the step), and so long. At first the flow's place is the better one.
_AGREES_PX: Final = 0.75
_AGREES_SHARE: Final = 0.15
_BELIEVED_FRAMES: Final = 8
_FLOW_FRAMES: Final = 2
#: A point whose ways part by so much within so many pixels, in one of the first frames, may lie on either side of an
#: outline; so may one that is lost before it was found so often.
_PART_PX: Final = 3.0
_OUTLINE_PX: Final = 3
_DOUBTED_FRAMES: Final = 8
_KNOWN_FRAMES: Final = 3
#: A point lies on the layer that brings it so near to where it was found last.
_OWN_PX: Final = 3.0
#: How many times the difference of a layer counts: of the one that the point went with, of the one that it goes at the
#: pace of in the first frames, and of where the ways say that it is.
_OWN_TRUST: Final = 0.5
_PACE_TRUST: Final = 0.9
_WAY_TRUST: Final = 0.9
#: Where too few companions are left, a point is looked for: so far around, and again around where others like it were.
_REACH_PX: Final = 8.0
_AGAIN_PX: Final = 2.0
_ALIKE_PX: Final = 2.0
_FEWEST_LOOKED_FOR: Final = 4
#: A found place that is farther from the likelier layer's is that of something else.
_ELSEWHERE_PX: Final = 2.0
#: Companions went at the point's own pace when it was known last: within so many pixels, and a share of their distance
#: at the beginning, since things turn and grow.
_SAME_PACE_PX: Final = 0.5
_SAME_PACE_SHARE: Final = 0.04
_NEAREST: Final = 32


class PointTracker:
    """Where points of the first frame are now, and whether they are seen.

    A point is where a pixel is whose way back ends at the point's beginning, if the evidence says that the first frame
    shows that pixel. One that is lost goes with its companions: near points that one similarity has brought, with
    it, from the first frame to where they are. Where it may lie on one of several things (near an outline, or lost at
    once) it is on the one along which the first frame's picture of it is found again; it is looked for where no
    companions are left.

    Attributes:
        places: ``(N, 2)`` float64, where the points are, in pixels of the flow grid; finite.
        visible: ``(N,)`` bool.
    """

    def __init__(self, points: Points, shape: tuple[int, int]) -> None:
        """Begin with `points` of a grid of `shape` (height, width)."""
        self._begin = np.asarray(points, np.float64)
        self._shape = shape
        self._own = _inside(self._begin, shape)
        self.places = self._begin.copy()
        self.visible = self._own.copy()
        self._known = self._own.copy()
        self._pace = np.zeros_like(self._begin)
        self._lost_for = np.zeros(len(self._begin), np.intp)
        self._found_for = np.zeros(len(self._begin), np.intp)
        self._frame = 0
        self._doubtful = np.zeros(len(self._begin), np.bool_)
        self._layers: dict[int, list[Layer]] = {}
        self._as_found: dict[int, list[float]] = {}
        self._patches: Patches | None = None

    def move(self, move: Move) -> None:
        """Go on to the next frame."""
        self._frame += 1
        if move.step is None or move.way is None or move.seen is None:
            # across a cut, or past the last flow, nothing is known
            self.visible = np.zeros_like(self.visible)
            return
        step = move.step if move.steady is None else move.steady
        steps = _at(step, self.places)
        expected = self.places + steps
        seen = cv2.resize(move.seen, self._shape[::-1], interpolation=cv2.INTER_LINEAR) >= _SEEN
        places, found = self._solved(move.way, seen, expected)
        found &= self._own
        if move.pictures is not None and self._patches is None:
            self._patches = Patches(move.pictures.first, self._begin)
        if move.pictures is not None and self._frame <= _DOUBTED_FRAMES:
            self._doubt(move.way, places, found)
        self._settle(places, found, expected, step, move.pictures)

    def _solved(self, way: Field32, seen: NDArray[np.bool_], starts: Points) -> tuple[Points, NDArray[np.bool_]]:
        """Find by fixed point, from `starts`, the places whose way leads to where the points began."""
        begin, places = self._begin, starts.copy()
        for _ in range(_FIXED_POINT_STEPS):
            places = begin - _at(way, places)
        miss = np.abs(places + _at(way, places) - begin).max(axis=1, initial=0)
        found = (miss < _MEETS_PX) & _inside(places, self._shape)
        cells = self._cells(places)
        return places, found & seen[cells[:, 1], cells[:, 0]]

    def _doubt(self, way: Field32, places: Points, found: NDArray[np.bool_]) -> None:
        """Remember which points stand at an outline: they may be on the other side of it."""
        around = np.ones((2 * _OUTLINE_PX + 1, 2 * _OUTLINE_PX + 1), np.uint8)
        parts = (cv2.dilate(way, around) - cv2.erode(way, around)).max(axis=-1) > _PART_PX
        cells = self._cells(places)
        self._doubtful |= found & parts[cells[:, 1], cells[:, 0]]

    def _settle(
        self, places: Points, found: NDArray[np.bool_], expected: Points, step: Field32, pictures: Pictures | None
    ) -> None:
        """Take the places that were found; the others go with their layers."""
        before = self.places
        now = np.where(found[:, None], places, expected)
        visible = found.copy()
        self._lost_for = np.where(found, 0, self._lost_for + 1)
        self._found_for += found
        asked = np.flatnonzero(self._own & (~found | self._doubtful)).tolist()
        for point in self._layers.keys() - asked:
            del self._layers[point]
        before_layers = self._carry(asked, found, before, now, step, pictures)
        if pictures is not None and self._patches is not None:
            self._compare(self._patches, pictures, asked, found, places, before_layers)
        for point in asked:
            layers = self._layers[point]
            if not layers:
                continue
            best = min(layers, key=lambda layer: layer.score)
            guess = best.place(self._begin[point])
            if found[point]:
                as_found = self._as_found.get(point)
                if as_found and Layer(best.members, best.matrix, _WAY_TRUST, as_found).score <= best.score:
                    continue
                if np.hypot(*(guess - places[point])) > _ELSEWHERE_PX:
                    now[point], visible[point] = guess, False
                continue
            most = _AGREES_PX + _AGREES_SHARE * np.hypot(*(guess - before[point]))
            agrees = bool(np.hypot(*(expected[point] - guess)) < most)
            if not agrees or self._lost_for[point] > _FLOW_FRAMES:
                now[point] = guess
            visible[point] = agrees and self.visible[point] and self._lost_for[point] <= _BELIEVED_FRAMES
        limit = 4.0 * max(self._shape)
        now = np.clip(now, -limit, limit)
        self._pace = now - before
        self.places = now
        self.visible = visible & _inside(now, self._shape)
        self._known = found

    # --- layers ---------------------------------------------------------------------------------------

    def _carry(
        self,
        asked: list[int],
        found: NDArray[np.bool_],
        before: Points,
        now: Points,
        step: Field32,
        pictures: Pictures | None,
    ) -> dict[int, list[Points]]:
        """Bring the layers of the points `asked` to the next frame; return where each had the point before."""
        begin = self._begin
        was: dict[int, list[Points]] = {}
        alone: list[tuple[int, Layer, Points]] = []
        for point in asked:
            if point not in self._layers:
                self._layers[point] = self._layers_of(point, found, before, now, several=pictures is not None)
            layers = self._layers[point]
            was[point] = [layer.place(begin[point]) for layer in layers]
            steps = _at(step, np.array(was[point]).reshape(-1, 2))
            for layer, place, along in zip(layers, was[point], steps, strict=True):
                if not layer.go_on(begin, now, found, begin[point], along):
                    alone.append((point, layer, place))
        if alone and pictures is not None and self._patches is not None:
            self._look_for(self._patches, pictures, alone)
        return was

    def _layers_of(
        self, point: int, found: NDArray[np.bool_], before: Points, now: Points, *, several: bool
    ) -> list[Layer]:
        """Return the layers that a point may lie on, the one that it went with first."""
        begin = self._begin[point]
        still = np.hstack([np.eye(2), (before[point] - begin)[:, None]])
        at_pace = self._at_its_pace(point)
        if self._found_for[point] < _KNOWN_FRAMES or self._doubtful[point]:
            around = groups_around(point, _but(found, point), self._begin, now)
            own = [Layer(at_pace, still, _PACE_TRUST)] if at_pace.size else []
            layers = own + around
        else:
            around = groups_around(point, _but(self._known, point), self._begin, before)
            around.sort(key=lambda layer: float(np.hypot(*(layer.place(begin) - before[point]))))
            if around and np.hypot(*(around[0].place(begin) - before[point])) < _OWN_PX:
                around[0].trust = _OWN_TRUST
                layers = around
            else:
                layers = [Layer(at_pace, still, _OWN_TRUST), *around]
        return layers if several else layers[:1]

    def _look_for(self, patches: Patches, pictures: Pictures, alone: list[tuple[int, Layer, Points]]) -> None:
        """Look for points that have too few companions: each for itself, then where those like it were found."""
        points = np.array([point for point, _, _ in alone], np.intp)
        self._search(patches, pictures, alone, points, _REACH_PX)
        looked: dict[int, Points] = {}
        for point, layer, _ in alone:
            looked.setdefault(point, layer.place(self._begin[point]))
        again = []
        for one in alone:
            point, layer, _ = one
            others = np.array([other for other in layer.members.tolist() if other in looked], np.intp)
            if len(others) < _FEWEST_LOOKED_FOR:
                continue
            fitted = similarity(self._begin[others], np.array([looked[other] for other in others.tolist()]), _ALIKE_PX)
            if fitted is not None and fitted[1].sum() >= _FEWEST_LOOKED_FOR:
                layer.matrix = fitted[0]
                again.append(one)
        if again:
            self._search(patches, pictures, again, np.array([point for point, _, _ in again], np.intp), _AGAIN_PX)

    def _search(
        self,
        patches: Patches,
        pictures: Pictures,
        layers: list[tuple[int, Layer, Points]],
        points: NDArray[np.intp],
        reach_px: float,
    ) -> None:
        early = np.array([pictures.early * (one.place(self._begin[point]) - was) for point, one, was in layers])
        matrices = np.array([layer.matrix for _, layer, _ in layers])
        matrices[:, :, 2] += early
        found = patches.found(pictures.now, points, matrices, reach_px)
        found[:, :, 2] -= early
        for (_, layer, _), matrix in zip(layers, found, strict=True):
            layer.matrix = matrix

    def _compare(
        self,
        patches: Patches,
        pictures: Pictures,
        asked: list[int],
        found: NDArray[np.bool_],
        places: Points,
        was: dict[int, list[Points]],
    ) -> None:
        """Note how unlike the first frame each point looks on each of its layers, and where the ways say that it is."""
        points: list[int] = []
        matrices: list[NDArray[np.float64]] = []
        notes: list[list[float]] = []
        for point in asked:
            begin, layers = self._begin[point], self._layers[point]
            for layer, place in zip(layers, was[point], strict=True):
                matrix = layer.matrix.copy()
                matrix[:, 2] += pictures.early * (layer.place(begin) - place)
                points.append(point)
                matrices.append(matrix)
                notes.append(layer.unlike)
            if found[point] and layers:
                nearest = min(layers, key=lambda layer: float(np.hypot(*(layer.place(begin) - places[point]))))
                matrix = nearest.matrix.copy()
                matrix[:, 2] += places[point] - nearest.place(begin)
                matrix[:, 2] += pictures.early * (places[point] - self.places[point])
                points.append(point)
                matrices.append(matrix)
                notes.append(self._as_found.setdefault(point, []))
        if points:
            unlike = patches.unlike(pictures.now, np.array(points, np.intp), np.array(matrices))
            for note, one in zip(notes, unlike.tolist(), strict=True):
                note.append(one)

    def _at_its_pace(self, point: int) -> NDArray[np.intp]:
        """Return the points near this one at the beginning that went as it did when it was known last."""
        others = _but(self._known, point)
        far = np.hypot(*(self._begin[others] - self._begin[point]).T)
        order = np.argsort(far, kind="stable")[:_NEAREST]
        others, far = others[order], far[order]
        apart = np.hypot(*(self._pace[others] - self._pace[point]).T)
        return np.asarray(others[apart < _SAME_PACE_PX + _SAME_PACE_SHARE * far], np.intp)

    def _cells(self, places: Points) -> NDArray[np.intp]:
        most = np.array([self._shape[1] - 1, self._shape[0] - 1])
        return np.clip(np.rint(places), 0, most).astype(np.intp)


def _but(which: NDArray[np.bool_], point: int) -> NDArray[np.intp]:
    """Return the numbers of points, without one."""
    numbers = np.flatnonzero(which)
    return np.asarray(numbers[numbers != point], np.intp)


def _at(field: Field32, places: Points) -> Points:
    """Sample a field at `places`; past the edge, the edge."""
    if not len(places):
        return np.zeros((0, 2))
    # OpenCV keeps places in 16 bits
    column = np.clip(places, -(2.0**14), 2.0**14).astype(np.float32)[:, None]
    return np.asarray(sample(field, column)[:, 0], np.float64)


def _inside(places: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (
        (places[:, 0] >= -0.5)
        & (places[:, 0] <= shape[1] - 0.5)
        & (places[:, 1] >= -0.5)
        & (places[:, 1] <= shape[0] - 0.5)
    )
    return inside
