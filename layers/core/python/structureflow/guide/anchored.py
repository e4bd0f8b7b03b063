"""Paths that do not drift: composed step by step, and at every whole frame looked at against the anchor's.

Nodes and legs are those of `guide.plan`; node m is a frame of the structure video. Time may run backwards for the
caller, as for `path.Carry`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from structureflow.flow.fields import Field32, compose_flows, partial_flow, pull
from structureflow.flow.times import ON_NODE
from structureflow.guide.evidence import Evidence, Judgement, unjudged
from structureflow.guide.path import Carry, bounded
from structureflow.guide.ports import Gray
from structureflow.guide.refine import Look, Matching, Refiner

#: A correction longer than this is another surface coming into view, not drift: it is not spread over time.
_LARGEST_DRIFT_PX: Final = 3.0

#: Every so many steps `RefinedLegs` remembers where it was, so that it can go back.
_SNAPSHOT_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class _State:
    """A path at a whole node: to the base frame, with its evidence; `composed` is what it was refined from."""

    node: int
    path: Field32
    composed: Field32
    evidence: Evidence


class AnchoredPath:
    """The path from later nodes back to an anchor at node `start`, refined at the nodes of `refined`.

    An anchor that stands between two frames is matched by the later of them, and reached from there.
    """

    def __init__(
        self,
        leg: Callable[[int], Field32],
        start: float,
        shape: tuple[int, int],
        frame: Callable[[int], Gray | None],
        refined: Collection[int],
        matching: Matching,
    ) -> None:
        """Carry from node `start`.

        Args:
            leg: ``leg(m)`` pulls from node m + 1 to node m, ``(*shape, 2)`` float32.
            start: of the anchor.
            shape: (height, width) of the grid.
            frame: ``frame(m)`` is the structure frame at node m, ``(*shape)`` uint8; None if it cannot be had.
            refined: the nodes to refine at.
            matching: how.
        """
        self._leg = leg
        self._start = start
        self._frame = frame
        self._refined = refined
        self._base = math.ceil(start - ON_NODE)
        self._before = Carry(leg, start, shape)
        anchor = frame(self._base)
        self._refiner = None if anchor is None else Refiner(anchor, matching)
        still = np.zeros((*shape, 2), np.float32)
        self._to_anchor = None if self._base <= start else self._before.copy().to(self._base).copy()
        self._state = _State(self._base, still, still, Evidence.at_anchor(shape))
        self._next: _State | None = None
        self._judged: list[tuple[_State, Judgement]] = []

    @property
    def node(self) -> int:
        """The whole node that the path stands at."""
        return self._state.node

    def plain_leg(self, number: int) -> Field32:
        """Return leg `number` as it was handed in."""
        return self._leg(number)

    def copy(self) -> AnchoredPath:
        """Return one that goes on from here on its own, in the same thread; it shares the legs and the matcher."""
        twin = object.__new__(AnchoredPath)
        twin.__dict__.update(self.__dict__)
        twin._before = self._before.copy()
        return twin

    def to(self, position: float) -> Judgement:
        """Return the path from node `position` (not before the last one asked for), and what speaks for it.

        Between two frames the path goes on evenly from the one before, and what the look at the one behind
        corrects comes in evenly too, if that one is looked at.
        """
        if position < self._base:
            return unjudged(self._before.to(position).copy())
        while self._state.node < math.floor(position):
            self._advance()
        state = self._state
        fraction = position - state.node
        judged = self._between(state, fraction) if fraction else self._judgement(state)
        if self._to_anchor is None:
            return judged
        return replace(judged, displacement=bounded(compose_flows(judged.displacement, self._to_anchor)))

    def refined_step(self) -> Field32:
        """Advance by one node, and return the step of it: the leg with what drifts taken out.

        Returns:
            ``(h, w, 2)`` float32 pulling from the node that is reached to the one before, fresh memory: along it
            and the path of that one, each pixel comes where the path of this one leads to.
        """
        before = self._state
        step = self._leg(before.node).copy()
        after = self._advance()
        drift = after.path - after.composed
        # another surface may have been found: no motion from frame to frame
        small = (np.abs(drift).max(axis=-1, keepdims=True) < _LARGEST_DRIFT_PX).astype(np.float32)
        if not drift.any():
            return step
        leg = step.copy()
        for _ in range(3):
            step += (after.path - compose_flows(step, before.path)) * small
            np.clip(step, leg - _LARGEST_DRIFT_PX, leg + _LARGEST_DRIFT_PX, out=step)
        return step

    def _advance(self) -> _State:
        self._state, self._next = self._following(), None
        return self._state

    def _following(self) -> _State:
        """Return the state at the next node."""
        if self._next is None:
            state = self._state
            step = self._leg(state.node)
            composed = bounded(compose_flows(step, state.path))
            evidence, path = state.evidence.followed(step), composed
            now = self._frame(state.node + 1) if self._refiner and state.node + 1 in self._refined else None
            if now is not None and self._refiner is not None:
                look = Look(now)
                path, unlike = self._refiner.refine(look, composed, turn=state.node)
                evidence = evidence.judged(unlike, look.activity())
            self._next = _State(state.node + 1, path, composed, evidence.returning(path))
        return self._next

    def _judgement(self, state: _State) -> Judgement:
        """Return what speaks for a state; two are asked for by turns while positions lie between them."""
        for known, judgement in self._judged:
            if known is state:
                return judgement
        self._judged = [*self._judged[-1:], (state, state.evidence.judgement(state.path))]
        return self._judged[-1][1]

    def _between(self, state: _State, fraction: float) -> Judgement:
        judged = self._judgement(state)
        leg = self._leg(state.node)
        step = partial_flow(leg, lag=1 - fraction, span=fraction)
        displacement = bounded(compose_flows(step, state.path))
        if state.node + 1 in self._refined:
            rest = step * np.float32(-(1 - fraction) / fraction)
            following = self._following()
            drift = pull(following.path - following.composed, rest)
            spread = np.abs(drift).max(axis=-1, keepdims=True) < _LARGEST_DRIFT_PX
            share = np.where(spread, np.float32(fraction), np.float32(fraction > 0.5))
            displacement += drift * share
            return judged.between(step, self._judgement(following), rest, fraction, displacement)
        return judged.pulled(step, displacement)


class RefinedLegs:
    """The legs of a path with what drifts taken out, each ``strength(number)`` times as long: motion to be carried."""

    def __init__(self, path: AnchoredPath, strength: Callable[[int], float]) -> None:
        """Refine the legs of `path`, which stands at its base."""
        self._strength = strength
        self._first = path.node
        self._snapshots: list[AnchoredPath] = [path]
        self._path = path.copy()
        self._kept: dict[int, Field32] = {}

    def __call__(self, number: int) -> Field32:
        """Return leg `number`, ``(h, w, 2)`` float32, intact until the second call after it; not to be changed."""
        if number in self._kept:
            return self._kept[number]
        if number < self._first:
            # between the anchor and the first whole frame nothing is refined
            return self._path.plain_leg(number) * np.float32(self._strength(number))
        if number < self._path.node:
            self._path = self._snapshots[(number - self._first) // _SNAPSHOT_STEPS].copy()
        while True:
            node = self._path.node
            if (node - self._first) // _SNAPSHOT_STEPS == len(self._snapshots):
                self._snapshots.append(self._path.copy())
            step = self._path.refined_step()
            if node == number:
                break
        step *= np.float32(self._strength(number))
        self._kept = {**dict(list(self._kept.items())[-1:]), number: step}
        return step
