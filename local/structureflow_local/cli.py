"""The command line: ``structureflow COMMAND …``.

Exit codes: 0 done, 1 an unexpected error, 2 bad input or a failed job (a typed error was printed), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from structureflow import __version__
from structureflow.errors import SettingsError, StructureFlowError
from structureflow_local import cost_command, frames_command
from structureflow_local import inspect as inspect_command

if TYPE_CHECKING:
    from structureflow.storage.base import Storage
    from structureflow_local.client import PreparedJob

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "structure.mp4"
DEFAULT_STORE = Path(".structureflow")
#: As in requests; said again, since the model of requests takes long to import.
ENGINES = ("auto", "dis", "farneback", "raft")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    # Polite ends: the local cloud keeps its caches and ends its processes. SIGINT too, because a shell that starts
    # a command in the background has it ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=False)
    try:
        code: int = args.run(args, console)
    except StructureFlowError as error:
        Console(stderr=True).print(f"[bold red]{error.code}[/]: {error.message}", soft_wrap=True, highlight=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the form that signal demands
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="structureflow", description="Structure video guidance.")
    parser.add_argument("--version", action="version", version=f"structureflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a whole job on the local cloud")
    run.add_argument("job", type=Path, metavar="JOB.json", help="the request; paths in it may be local files")
    _add_run_options(run)
    run.set_defaults(run=_run)

    demo = commands.add_parser("demo", help="run a job made of a video alone, or of the sample clip")
    demo.add_argument("--video", type=Path, help="structure video (default: the project's sample)")
    demo.add_argument("--job", type=Path, metavar="JOB.json", help="run this job instead")
    _add_run_options(demo)
    demo.set_defaults(run=_demo)

    cost = commands.add_parser("cost", help="say what a job will take on AWS, before it runs")
    cost_command.add_arguments(cost)
    cost.set_defaults(run=_cost)

    inspect = commands.add_parser(
        "inspect", help="show what is inside a flow archive, or how well the frames of a result are known"
    )
    inspect_command.add_arguments(inspect)
    inspect.set_defaults(run=inspect_command.run)

    frames = commands.add_parser("frames", help="look at, fill, mend and clear the frame caches of timelines")
    _add_bucket_options(frames)
    frames.add_argument("--folder", type=Path, metavar="DIR", help="a local folder instead of a bucket")
    frames_command.add_arguments(frames)
    frames.set_defaults(run=_frames)

    serve = commands.add_parser("serve", help="run the local cloud until Ctrl-C, for the other commands")
    serve.add_argument("--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help="keeps the caches between runs")
    _add_weights_option(serve)
    serve.set_defaults(run=_serve)

    viewer = commands.add_parser("viewer", help="show jobs, frames and overlays of a bucket in a browser")
    _add_bucket_options(viewer)
    viewer.add_argument("--folder", type=Path, metavar="DIR", help="a local folder instead of a bucket")
    viewer.add_argument("--port", type=int, default=8400, help="on the loopback address (default: 8400)")
    viewer.set_defaults(run=_viewer)

    for name, function, text in (
        ("submit", _submit, "upload a job to a data bucket and start it"),
        ("status", _status, "show where a job is"),
        ("fetch", _fetch, "download what a job made"),
        ("clean", _clean, "delete a job's folder"),
    ):
        command = commands.add_parser(name, help=text)
        if name == "submit":
            command.add_argument("job", type=Path, metavar="JOB.json", help="paths in it may be local files")
        else:
            command.add_argument("task_id", metavar="TASK_ID")
        if name == "fetch":
            command.add_argument("--out", type=Path, required=True, metavar="DIR")
        _add_bucket_options(command)
        command.set_defaults(run=function)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the job's folder goes")
    parser.add_argument(
        "--store",
        type=Path,
        default=DEFAULT_STORE,
        metavar="DIR",
        help=f"keeps flow and frame caches between runs (default: {DEFAULT_STORE})",
    )
    parser.add_argument("--no-store", action="store_true", help="keep nothing between runs")
    parser.add_argument("--engine", choices=ENGINES, help="flow engine, in place of the job's own")
    _add_weights_option(parser)
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="give up after (default: 1800)")


def _add_weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raft-weights",
        type=Path,
        metavar="DIR",
        help="folder with raft_large.pth, raft_small.pth or both, for engine raft (default: where the image has them)",
    )


def _add_bucket_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bucket", help="data bucket (default: $DATA_BUCKET)")
    parser.add_argument("--endpoint-url", help="endpoint of an S3-compatible store (default: $AWS_ENDPOINT_URL_S3)")


def _run(args: argparse.Namespace, console: Console) -> int:
    return _run_file(args.job, args, console)


def _demo(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.demo import write_demo_job

    if args.job is not None:
        return _run_file(args.job, args, console)
    with TemporaryDirectory(prefix="structureflow-demo-") as folder:
        return _run_file(write_demo_job(args.video or SAMPLE, Path(folder)), args, console)


def _run_file(path: Path, args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.client import check_target
    from structureflow_local.gpu import with_engine
    from structureflow_local.run import print_result, run_job

    job = _prepare(path)
    if args.engine is not None:
        job = with_engine(job, args.engine)
    check_target(args.out)
    store = None if args.no_store else args.store
    status, files = run_job(
        job, args.out, store=store, timeout_s=args.timeout, console=console, raft_weights=args.raft_weights
    )
    print_result(console, status, args.out, files)
    return 0 if status.state == "done" else 2


def _cost(args: argparse.Namespace, console: Console) -> int:
    return cost_command.run(args, _prepare(args.job), console)


def _submit(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.client import JobClient

    job = _prepare(args.job)
    JobClient(_bucket(args)).submit(job)
    console.print(job.task_id)
    return 0


def _status(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.client import JobClient

    client = JobClient(_bucket(args))
    status = client.status(args.task_id)
    if status is None:
        console.print(client.why_no_status(args.task_id), soft_wrap=True, highlight=False)
        return 2
    console.print_json(status.model_dump_json(exclude_none=True))
    return 2 if status.state == "failed" else 0


def _fetch(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.client import JobClient

    for path in JobClient(_bucket(args)).fetch(args.task_id, args.out):
        console.print(str(path), soft_wrap=True, highlight=False)
    return 0


def _clean(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.client import JobClient

    console.print(f"{JobClient(_bucket(args)).clean(args.task_id)} objects deleted")
    return 0


def _frames(args: argparse.Namespace, console: Console) -> int:  # noqa: ARG001  prints plain lines
    return frames_command.run(args, _folder_or_bucket(args))


def _viewer(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.viewer import serve_viewer

    serve_viewer(_folder_or_bucket(args), port=args.port, console=console)
    return 0


def _serve(args: argparse.Namespace, console: Console) -> int:
    from structureflow_local.run import serve_cloud

    serve_cloud(store=args.store, console=console, raft_weights=args.raft_weights)
    return 0


def _folder_or_bucket(args: argparse.Namespace) -> Storage:
    from structureflow.storage.local import LocalStorage

    return _bucket(args) if args.folder is None else LocalStorage(args.folder)


def _prepare(path: Path) -> PreparedJob:
    from structureflow.errors import InputNotFoundError
    from structureflow.limits import MAX_REQUEST_BYTES
    from structureflow_local.client import prepare_job

    try:
        with path.open("rb") as file:
            data = file.read(MAX_REQUEST_BYTES + 1)
    except OSError as error:
        raise InputNotFoundError(f"{path}: cannot be read: {error.strerror}") from error
    return prepare_job(data.decode("utf-8", "replace"), name=path.stem, folder=path.parent)


def _bucket(args: argparse.Namespace) -> Storage:
    from structureflow.runtime.settings import addressing_style
    from structureflow.storage.s3 import S3Storage
    from structureflow.storage.s3_settings import S3Settings

    name = args.bucket or os.environ.get("DATA_BUCKET")
    if not name:
        raise SettingsError("--bucket: expected a bucket name, or DATA_BUCKET in the environment")
    endpoint = args.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    style = addressing_style(os.environ)
    return S3Storage(name, settings=S3Settings(endpoint_url=endpoint, region=region, addressing_style=style))


if __name__ == "__main__":
    sys.exit(main())
