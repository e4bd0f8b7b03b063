"""``structureflow doctor``: what works here, and why not; with ``--stack``, of a deployed stack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from structureflow_local.exits import BAD_INPUT, DONE, NOT_REACHABLE
from structureflow_local.output import Output
from structureflow_local.parsers import add_command, add_place


def add_commands(commands: Any) -> None:
    """Declare it."""
    parser = add_command(
        commands,
        "doctor",
        _doctor,
        summary="say what works on this machine and why not, or in a deployed stack",
        examples=["structureflow doctor", "structureflow doctor --stack STACK"],
        more="Nothing is changed. Exit code 2: jobs cannot run here; 4: bucket or stack are not reachable.",
    )
    parser.add_argument("--stack", metavar="NAME", help="look at this CloudFormation stack instead")
    parser.add_argument(
        "--store", type=Path, default=Path(".structureflow"), metavar="DIR", help="where caches are kept"
    )
    add_place(parser)


def _doctor(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local import doctor

    if args.stack is not None:
        findings = doctor.examine_stack(args.stack, endpoint_url=args.endpoint_url)
    else:
        findings = doctor.examine_machine(args.store)
        if args.bucket is not None or args.folder is not None:
            findings.append(doctor.examine_bucket(args))
    output.give(findings=findings)
    marks = {"works": ("works", "green"), "missing": ("missing", "yellow"), "broken": ("broken", "bold red")}
    for found in findings:
        mark, style = marks[found.state]
        output.say(f"{mark:<8} {found.what:<22} {found.said}", style=style if found.state != "works" else "")
        if found.remedy:
            output.say(f"{'':<8} {'':<22} to mend it: {found.remedy}")
    broken = [found for found in findings if found.state == "broken"]
    if not broken:
        return DONE
    return NOT_REACHABLE if all(found.remote for found in broken) else BAD_INPUT
