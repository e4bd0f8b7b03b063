"""``structureflow run`` and ``demo``: a whole job on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from structureflow.errors import InvalidRequestError
from structureflow_local.exits import DONE, JOB_FAILED
from structureflow_local.output import Output
from structureflow_local.parsers import add_command, seconds

if TYPE_CHECKING:
    from structureflow_local.client import PreparedJob

#: In a wheel beside this module; in a checkout in a folder of its own.
SAMPLES = (
    Path(__file__).resolve().parent / "structure.mp4",
    Path(__file__).resolve().parents[1] / "sample" / "structure.mp4",
)
DEFAULT_STORE = Path(".structureflow")
#: As in requests; said again, since the model of requests takes long to import.
ENGINES = ("auto", "dis", "farneback", "raft")


def add_commands(commands: Any) -> None:
    """Declare both."""
    run = add_command(
        commands,
        "run",
        _run,
        summary="run a whole job on this machine, in one process",
        examples=["structureflow run job.json --out walk", "structureflow run walk/request.json --out again"],
        more="Everything is looked at before it starts, as by validate. The second example runs a finished job "
        "again, from what it left. --cloud runs it on the local cloud instead, as it is deployed.",
    )
    run.add_argument("job", type=Path, metavar="JOB.json", help="the request; paths in it may be local files")
    _add_options(run)

    demo = add_command(
        commands,
        "demo",
        _demo,
        summary="run a job made of a video alone, or of the sample clip",
        examples=["structureflow demo --out out", "structureflow demo --video clip.mp4 --out out -v"],
    )
    demo.add_argument("--video", type=Path, help="structure video (default: the project's sample)")
    demo.add_argument("--job", type=Path, metavar="JOB.json", help="run this job instead")
    _add_options(demo)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the job's folder goes")
    parser.add_argument("--replace", action="store_true", help="put it in the place of another job's")
    parser.add_argument(
        "--cloud",
        action="store_true",
        help="on the local cloud: template.yaml, every function a process of its own (Linux, in a checkout)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=DEFAULT_STORE,
        metavar="DIR",
        help=f"keeps flow and frame caches between runs (default: {DEFAULT_STORE})",
    )
    parser.add_argument("--no-store", action="store_true", help="keep nothing between runs")
    parser.add_argument("--engine", choices=ENGINES, help="flow engine, in place of the job's own")
    add_weights_option(parser)
    parser.add_argument(
        "--timeout", type=seconds, default=1800, metavar="SECONDS", help="give up after (default: 1800)"
    )


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """Take the folder of RAFT's weights."""
    parser.add_argument(
        "--raft-weights",
        type=Path,
        metavar="DIR",
        help="folder with raft_large.pth, raft_small.pth or both, for engine raft (default: where the image has them)",
    )


def _run(args: argparse.Namespace, output: Output) -> int:
    return _run_file(args.job, args, output)


def _demo(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.demo import write_demo_job

    if args.job is not None and args.video is not None:
        raise InvalidRequestError("--video and --job: expected one of them; a job names its own structure video")
    if args.job is not None:
        return _run_file(args.job, args, output)
    with TemporaryDirectory(prefix="structureflow-demo-") as folder:
        return _run_file(write_demo_job(args.video or sample(), Path(folder)), args, output)


def sample() -> Path:
    """Return the project's sample clip."""
    return next(path for path in SAMPLES if path.is_file())


def _run_file(path: Path, args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.client import check_target
    from structureflow_local.jobfile import checked

    job = checked(path, output, here=True, engine=args.engine)
    made = [folder for folder in (args.out, *args.out.parents) if not folder.exists()]
    try:
        check_target(args.out, job.task_id, replace=args.replace)
        return _run_job(job, args, output)
    except BaseException:
        for folder in made:
            # nothing was put there
            with suppress(OSError):
                folder.rmdir()
        raise


def _run_job(job: PreparedJob, args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.results import print_result

    store = None if args.no_store else args.store
    options = {"timeout_s": args.timeout, "output": output, "raft_weights": args.raft_weights}
    cost: Mapping[str, float] | None = None
    if args.cloud:
        from structureflow_local.local_cloud import check_cloud

        check_cloud()
        from structureflow_local.run import run_job

        status, files, cost = run_job(job, args.out, store=store, **options)
    else:
        from structureflow_local.run_here import run_job_here

        status, files = run_job_here(job, args.out, store=store, **options)
    print_result(output, status, args.out, files, cost, named=job.in_own_words)
    return DONE if status.state == "done" else JOB_FAILED
