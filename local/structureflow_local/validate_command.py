"""``structureflow validate``: what is wrong with a job file, all at once, before anything starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from structureflow.models.problems import counted
from structureflow_local.exits import BAD_INPUT, DONE
from structureflow_local.output import Output
from structureflow_local.parsers import add_command


def add_commands(commands: Any) -> None:
    """Declare it."""
    parser = add_command(
        commands,
        "validate",
        _validate,
        summary="say everything that is wrong with a job file, without running it",
        examples=["structureflow validate job.json"],
        more="It opens every file of this machine that the job names; other names count as keys of a bucket. "
        "run, submit and cost look at the same before they start.",
    )
    parser.add_argument("job", type=Path, metavar="JOB.json")


def _validate(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.jobfile import read_job_file
    from structureflow_local.problems import look_into

    found = look_into(read_job_file(args.job), args.job.parent)
    problems, remarks = found.lines, found.remarks
    output.give(job=args.job, valid=not problems, problems=problems, warnings=remarks)
    if problems:
        output.say(f"{args.job}: {counted(len(problems), 'problem')}", style="bold red")
    else:
        output.say(f"{args.job}: a valid job", style="bold green")
    for line in problems:
        output.say(f"  {line}")
    for remark in remarks:
        output.say(f"  note: {remark}")
    return BAD_INPUT if problems else DONE
