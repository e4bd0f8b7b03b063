"""Builds the deployable artefacts with SAM, and runs them in Lambda's containers on the golden events.

``python -m structureflow_local.sam build [--architecture arm64]``, ``… packages`` (what functions/Dockerfile copies),
``… local`` (every function), and ``… serve``: the S3 that ``sam local invoke`` of your own finds by samconfig.toml and
events/environment.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from structureflow.errors import StructureFlowError
from structureflow_local.sam_build import ARCHITECTURES, BUILD_DIR, REPO, build, engine_answers, install_packages
from structureflow_local.sam_containers import invoke_all, serve


def main(argv: Sequence[str] | None = None) -> int:
    """Build, or build and run in containers; 0 also where no engine answers, with a line that says so."""
    parser = argparse.ArgumentParser(prog="python -m structureflow_local.sam")
    parser.add_argument("what", choices=("build", "packages", "local", "serve"))
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="x86_64")
    parser.add_argument("--build-dir", type=Path, default=REPO / BUILD_DIR)
    args = parser.parse_args(argv)

    def say(line: str) -> None:
        sys.stdout.write(f"sam-{args.what}: {line}\n")
        sys.stdout.flush()

    if args.what == "local" and not engine_answers():
        say("no Docker engine answers on this machine: skipped")
        return 0
    if args.what == "serve":
        serve(say)
        return 0
    try:
        if args.what == "packages":
            say(f"{args.architecture} packages in {install_packages(args.architecture)}")
            return 0
        built = build(args.build_dir, args.architecture)
        say(f"{args.architecture} artefacts in {built.parent}")
        if args.what == "local":
            invoked = invoke_all(built, say)
            say(f"{len(invoked)} invocations of {len({one.function for one in invoked})} functions, all as expected")
    except StructureFlowError as error:
        say(f"{error.code}: {error.message}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
