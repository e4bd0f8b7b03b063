"""The address of a video's flows: the same for the same work, another for any other."""

from __future__ import annotations

import re

import pytest

from structureflow.errors import EngineUnavailableError
from structureflow.flow.address import flow_address
from structureflow.flow.engines import DEFAULT_ENGINES, DisEngine, EnginePreset


def test_it_is_a_stable_key() -> None:
    address = flow_address("s3:etag:1", "dis", "balanced")
    assert re.fullmatch("[0-9a-f]{64}", address)
    assert address == flow_address("s3:etag:1", "dis", "balanced")


def test_everything_that_the_flows_depend_on_is_in_it() -> None:
    dis = DEFAULT_ENGINES.preset("dis", "balanced")

    def other(params: dict[str, object], area_px: int = dis.area_px) -> str:
        engines = DEFAULT_ENGINES.register("balanced", EnginePreset("dis", params, area_px))
        return flow_address("etag", "dis", "balanced", engines=engines)

    addresses = [
        flow_address("etag", "dis", "balanced"),
        flow_address("other", "dis", "balanced"),
        flow_address("etag", "farneback", "balanced"),
        flow_address("etag", "dis", "best"),
        other(DisEngine(patch_stride=2).params()),
        other({**dis.params, "opencv": "4.0"}),
        other(dict(dis.params), area_px=dis.area_px + 1),
    ]
    assert len(set(addresses)) == len(addresses)
    assert other(dict(reversed(list(dis.params.items())))) == addresses[0]


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match="magic"):
        flow_address("etag", "magic", "balanced")
