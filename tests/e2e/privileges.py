"""Which keys and rights the functions need, by the design; and why some are spare."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from structureflow_local.cloud.gateway import Call

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
FUNCTIONS = tuple(name for name, body in TEMPLATE["Resources"].items() if body["Type"] == "AWS::Serverless::Function")
BUCKET = "DataBucket"
GPU = {"EnableGpu": "true", "GpuImageUri": "raft:test", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}
#: The places of the bucket, said here a second time on purpose: a key that fits none is a layout nobody allowed.
PLACES = {
    "jobs/*/request.json": r"jobs/[^/]+/request\.json",
    "jobs/*/inputs/*": r"jobs/[^/]+/inputs/[^/]+",
    "jobs/*/job.json": r"jobs/[^/]+/job\.json",
    "jobs/*/structure_flows_*.npz": r"jobs/([^/]+)/structure_flows_\1\.npz",
    "jobs/*/runs/*/claim.json": r"jobs/[^/]+/runs/[0-9a-f]+/claim\.json",
    "jobs/*/runs/*/job.json": r"jobs/[^/]+/runs/[0-9a-f]+/job\.json",
    "jobs/*/runs/*/manifest.json": r"jobs/[^/]+/runs/[0-9a-f]+/manifest\.json",
    "jobs/*/runs/*/report.html": r"jobs/[^/]+/runs/[0-9a-f]+/report\.html",
    "jobs/*/runs/*/segments.json": r"jobs/[^/]+/runs/[0-9a-f]+/segments\.json",
    "jobs/*/runs/*/segments/*": r"jobs/[^/]+/runs/[0-9a-f]+/segments/\d{3}/(?:(?:ttm|tracks|warped_noise)/)?[^/]+",
    "jobs/*/runs/*/progress/live/*": r"jobs/[^/]+/runs/[0-9a-f]+/progress/live/[a-z]+-\d{3}\.json",
    "jobs/*/runs/*/progress/ended/*": r"jobs/[^/]+/runs/[0-9a-f]+/progress/ended/[a-z]+-\d{3}\.json",
    "jobs/*/runs/*": r"jobs/[^/]+/runs/[0-9a-f]+/.+",
    "jobs/*/status.json": r"jobs/[^/]+/status\.json",
    "jobs/*/manifest.json": r"jobs/[^/]+/manifest\.json",
    "jobs/*/report.html": r"jobs/[^/]+/report\.html",
    "jobs/*/segments/*": r"jobs/[^/]+/segments/\d{3}/(?:(?:ttm|tracks|warped_noise)/)?[^/]+",
    "work/.gpu/*": r"work/\.gpu/[0-9a-f]+\.json",
    "work/.settling/*": r"work/\.settling/[0-9a-f]+\.json",
    "work/.parts/*/plan.json": r"work/\.parts/[0-9a-f]+/plan\.json",
    "work/.parts/*": r"work/\.parts/[0-9a-f]+/\d{3}/(?:result\.json|failure\.json|blocks-[0-9a-f]{32}\.bin)",
    "cache/flows/*.npz": r"cache/flows/[0-9a-f]+\.npz",
    "cache/timelines/*/frames/*": r"cache/timelines/[^/]+/frames/\d{6}\.jpg",
    "cache/timelines/*/manifest.json": r"cache/timelines/[^/]+/manifest\.json",
    "cache/timelines/*/rebuild.json": r"cache/timelines/[^/]+/rebuild\.json",
    "cache/timelines/*/overlays/*": r"cache/timelines/[^/]+/overlays/[^/]+/[^/]+/\d{6}_[^/]+\.png",
    "timelines/*/chunks/*": r"timelines/[^/]+/chunks/[^/]+",
    "library/*": r"library/[^/]+",
}
#: Where keys of one kind begin; what a listing is allowed for.
TOPS = ("jobs/", "work/", "cache/flows/", "cache/timelines/", "timelines/")
_SLASHES = "a star in a policy stands for slashes too, so what is published has the same pattern in a run's folder"
_ENDED = "what a run leaves that was superseded, or whose job was deleted, at the very moment"
_ANY_INPUT = "a request may name any key that is not reserved as its video or guide"
LONG = "what a part writes that takes longer than seconds, if its run ends before it does"
_REPLACED = "the manifest of another video in the timeline goes before its frames are overwritten"
_HEALS = "what a segment finds rotten is replaced"
_TWICE = "an event that comes twice finds the plan of the first time, which counts"
_PLAN_TOO = "the folder of a run's parts is one pattern"
_STRANGERS = "what another writer of the same frames left at the same moment is compared"
#: Allowed, but used by no run: (function, action, place) and why it is allowed all the same.
SPARE = {
    ("OrchestratorFunction", "s3:GetObject", "*"): _ANY_INPUT,
    ("RenderSegmentFunction", "s3:GetObject", "*"): _ANY_INPUT,
    ("PreviewFunction", "s3:GetObject", "*"): _ANY_INPUT,
    ("SettleGpuFunction", "s3:GetObject", "*"): _ANY_INPUT,
    ("OrchestratorFunction", "s3:DeleteObject", "jobs/*/runs/*/job.json"): _ENDED,
    ("OrchestratorFunction", "s3:DeleteObject", "jobs/*/status.json"): _ENDED,
    ("FailJobFunction", "s3:DeleteObject", "jobs/*/runs/*/claim.json"): _ENDED,
    ("FailJobFunction", "s3:DeleteObject", "jobs/*/runs/*/segments.json"): _ENDED,
    ("FailJobFunction", "s3:GetObject", "jobs/*/runs/*/segments.json"): _SLASHES,
    ("FailJobFunction", "s3:GetObject", "jobs/*/manifest.json"): _ENDED,
    ("RenderSegmentFunction", "s3:DeleteObject", "jobs/*/runs/*/segments/*"): _ENDED,
    ("FailJobFunction", "s3:GetObject", "jobs/*/runs/*/progress/live/*"): _SLASHES,
    ("FailJobFunction", "s3:GetObject", "jobs/*/runs/*/progress/ended/*"): _SLASHES,
    **{
        (function, action, "jobs/*/runs/*/progress/live/*"): LONG
        for function, action in (
            ("AssembleJobFunction", "s3:DeleteObject"),
            ("FailJobFunction", "s3:DeleteObject"),
            ("ExtractPartFunction", "s3:PutObject"),
            ("ExtractPartFunction", "s3:DeleteObject"),
            ("OrchestratorFunction", "s3:PutObject"),
            ("OrchestratorFunction", "s3:DeleteObject"),
            ("RenderSegmentFunction", "s3:PutObject"),
            ("RenderSegmentFunction", "s3:DeleteObject"),
            ("SettleGpuFunction", "s3:PutObject"),
            ("SettleGpuFunction", "s3:DeleteObject"),
        )
    },
    ("RenderSegmentFunction", "s3:DeleteObject", "jobs/*/runs/*/progress/ended/*"): _ENDED,
    ("FailJobFunction", "s3:DeleteObject", "jobs/*/runs/*/progress/ended/*"): _ENDED,
    (
        "ApiFunction",
        "s3:DeleteObject",
        "cache/timelines/*/rebuild.json",
    ): "whoever clears a timeline may clear all of it",
    **{
        (function, action, place): _ENDED
        for function in ("AssembleJobFunction", "FailJobFunction")
        for action, place in (
            ("s3:DeleteObject", "jobs/*/manifest.json"),
            ("s3:DeleteObject", "jobs/*/report.html"),
            ("s3:DeleteObject", "jobs/*/job.json"),
            ("s3:PutObject", "jobs/*/structure_flows_*.npz"),
        )
    },
    **{
        (function, action, f"jobs/*/runs/*/{name}"): _SLASHES
        for function, action, name in (
            ("ApiFunction", "s3:GetObject", "manifest.json"),
            ("ApiFunction", "s3:GetObject", "report.html"),
            ("ApiFunction", "s3:GetObject", "segments/*"),
            ("AssembleJobFunction", "s3:PutObject", "segments/*"),
            ("AssembleJobFunction", "s3:PutObject", "job.json"),
            ("FailJobFunction", "s3:PutObject", "segments/*"),
            ("FailJobFunction", "s3:PutObject", "job.json"),
            ("FailJobFunction", "s3:PutObject", "manifest.json"),
            ("FailJobFunction", "s3:PutObject", "report.html"),
        )
    },
    ("SettleGpuFunction", "s3:DeleteObject", "cache/timelines/*/manifest.json"): _REPLACED,
    ("RenderSegmentFunction", "s3:PutObject", "cache/timelines/*/frames/*"): _HEALS,
    ("RenderSegmentFunction", "s3:PutObject", "cache/timelines/*/manifest.json"): _HEALS,
    ("RenderSegmentFunction", "s3:DeleteObject", "cache/flows/*.npz"): _HEALS,
    ("RebuildTimelineFunction", "s3:GetObject", "cache/timelines/*/frames/*"): _STRANGERS,
    ("JoinFlowsFunction", "s3:GetObject", "cache/timelines/*/frames/*"): _STRANGERS,
    ("OrchestratorFunction", "s3:GetObject", "work/.parts/*"): _TWICE,
    ("OrchestratorFunction", "s3:GetObject", "work/.parts/*/plan.json"): _TWICE,
    ("ExtractPartFunction", "s3:GetObject", "*"): _ANY_INPUT,
    ("ExtractPartFunction", "s3:PutObject", "work/.parts/*/plan.json"): _PLAN_TOO,
    ("JoinFlowsFunction", "s3:AbortMultipartUpload", "cache/flows/*.npz"): "an upload that breaks off is taken back",
}


def place_of(key: str) -> str | None:
    """The first place that a key fits."""
    return next((place for place, pattern in PLACES.items() if re.fullmatch(pattern, key)), None)


def is_probe(call: Call) -> bool:
    """Adapters test what a compatible store can do; they believe AWS, so no policy there speaks of it."""
    return call.key is not None and call.key.startswith("work/.probe/")
