"""``structureflow validate``: what is wrong with a job file, all at once, before anything starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
        more="Names that are no files of this machine count as keys of the bucket.",
    )
    parser.add_argument("job", type=Path, metavar="JOB.json")


def _validate(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.jobfile import read_job_file
    from structureflow_local.problems import problems_with

    problems = problems_with(read_job_file(args.job), args.job.parent)
    output.give(job=args.job, valid=not problems, problems=problems)
    if not problems:
        output.say(f"{args.job}: a valid job", style="bold green")
        return DONE
    count = len(problems)
    output.say(f"{args.job}: {count} problem{'s' if count != 1 else ''}", style="bold red")
    for line in problems:
        output.say(f"  {line}")
    return BAD_INPUT
