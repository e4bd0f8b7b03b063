"""How commands are declared: help with examples, the options that all have, and those for where jobs lie."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from structureflow.errors import SettingsError
from structureflow_local.output import Output

if TYPE_CHECKING:
    from structureflow import Storage

#: What runs a command: returns its exit code.
Run = Callable[[argparse.Namespace, Output], int]


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number of a range from the command line."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {text!r:.40}")

    return read


def above_zero(most: float) -> Callable[[str], float]:
    """Return what reads a number above 0 and up to `most` from the command line."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if 0 < value <= most:
            return value
        raise argparse.ArgumentTypeError(f"expected more than 0 and up to {most:g}, got {text!r:.40}")

    return read


#: A week, for whoever waits.
seconds: Final = above_zero(7 * 24 * 3600)


def add_command(
    commands: Any,
    name: str,
    run: Run | None,
    *,
    summary: str,
    examples: Sequence[str],
    more: str = "",
) -> argparse.ArgumentParser:
    """Declare a command whose help ends in `examples`, as they are typed; `run` is None where commands are below it."""
    lines = "\n".join(f"  {example}" for example in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[:1].upper() + summary[1:] + "." + (f" {more}" if more else ""),
        epilog=f"{'example' if len(examples) == 1 else 'examples'}:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        parser.add_argument("-v", "--verbose", action="store_true", help="print more: tables of files and of times")
    return parser


def add_place(parser: argparse.ArgumentParser, *, default: Any = None) -> None:
    """Take where jobs and frames lie: a bucket, or a local folder laid out like one.

    `default` is SUPPRESS where the same options may stand before, too: then what stood there holds.
    """
    parser.add_argument("--bucket", default=default, help="data bucket (default: $DATA_BUCKET)")
    parser.add_argument(
        "--endpoint-url", default=default, help="endpoint of an S3-compatible store (default: $AWS_ENDPOINT_URL_S3)"
    )
    parser.add_argument(
        "--folder", type=Path, default=default, metavar="DIR", help="a local folder instead of a bucket"
    )


def storage_of(args: argparse.Namespace, *, may_be_made: bool = False) -> Storage:
    """Return the store that the options of `add_place` name; `may_be_made` lets a folder that is not there be made.

    Raises:
        SettingsError: they name none, nor does the environment; or a folder that is none.
    """
    if args.folder is not None:
        if not args.folder.is_dir() and (args.folder.exists() or not may_be_made):
            got = "a file" if args.folder.exists() else "one that is not there"
            raise SettingsError(f"--folder: expected a folder, got {got}: {args.folder}")
        from structureflow import LocalStorage

        return LocalStorage(args.folder)
    name = args.bucket or os.environ.get("DATA_BUCKET")
    if not name:
        raise SettingsError("--bucket: expected a bucket name, or DATA_BUCKET in the environment, or --folder")
    return bucket(name, args.endpoint_url)


def bucket(name: str, endpoint_url: str | None) -> Storage:
    """Return a bucket as the environment says how to reach it; `endpoint_url` goes before that."""
    from structureflow import S3Settings, S3Storage
    from structureflow.runtime.settings import addressing_style

    endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    style = addressing_style(os.environ)
    return S3Storage(name, settings=S3Settings(endpoint_url=endpoint, region=region, addressing_style=style))
