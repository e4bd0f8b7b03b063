"""The command line: ``structureflow COMMAND …``; see `exits` for its exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from structureflow import __version__
from structureflow.errors import StructureFlowError
from structureflow_local import (
    cost_command,
    doctor_command,
    flows_command,
    frames_command,
    init_command,
    inspect_command,
    job_commands,
    run_command,
    validate_command,
)
from structureflow_local.exits import DONE, INTERRUPTED, MEANINGS, UNEXPECTED, exit_code
from structureflow_local.missing import explained
from structureflow_local.output import Output
from structureflow_local.parsers import add_command, add_place, storage_of, whole
from structureflow_local.run_command import DEFAULT_STORE, add_weights_option


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    # Polite ends: the local cloud keeps its caches and ends its processes. SIGINT too, because a shell that starts
    # a command in the background has it ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    output = Output(as_json=args.json, verbose=args.verbose)
    try:
        try:
            code: int = args.run(args, output)
        except StructureFlowError as error:
            output.fail(error)
            code = exit_code(error)
        except ModuleNotFoundError as error:
            said = explained(args.command, error)
            if said is None:
                raise
            output.fail(said)
            code = exit_code(said)
        output.finish()
    except KeyboardInterrupt:
        output.remark("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Who read it has enough. Python would try once more to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the form that signal demands
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    codes = "\n".join(f"  {code}  {meaning}" for code, meaning in MEANINGS.items())
    parser = argparse.ArgumentParser(
        prog="structureflow",
        description="Structure video guidance: guide and mask videos for AI video, made of a video's motion.",
        epilog=f"exit codes:\n{codes}\n\nexample:\n  structureflow demo --out out",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"structureflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init_command.add_commands(commands)
    validate_command.add_commands(commands)
    cost_command.add_commands(commands)
    doctor_command.add_commands(commands)
    run_command.add_commands(commands)
    job_commands.add_commands(commands)
    inspect_command.add_commands(commands)
    flows_command.add_commands(commands)
    frames_command.add_commands(commands)
    _add_servers(commands)
    return parser


def _add_servers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    viewer = add_command(
        commands,
        "viewer",
        _viewer,
        summary="serve the web page over a bucket: jobs, frames, flows",
        examples=["structureflow viewer --bucket BUCKET"],
    )
    add_place(viewer)
    viewer.add_argument("--port", type=whole(0, 65535), default=8400, help="on the loopback address (default: 8400)")

    serve = add_command(
        commands,
        "serve",
        _serve,
        summary="run the local cloud until Ctrl-C, for the other commands",
        examples=["structureflow serve"],
        more="It prints what to export, so that other commands find it, and where the web page is.",
    )
    serve.add_argument("--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help="keeps the caches between runs")
    add_weights_option(serve)


def _viewer(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.viewer import serve_viewer

    serve_viewer(storage_of(args), port=args.port, output=output)
    return DONE


def _serve(args: argparse.Namespace, output: Output) -> int:
    from structureflow_local.local_cloud import check_cloud

    check_cloud()
    from structureflow_local.run import serve_cloud

    serve_cloud(store=args.store, output=output, raft_weights=args.raft_weights)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
