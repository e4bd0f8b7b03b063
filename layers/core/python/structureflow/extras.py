"""What the distribution installs only where it is asked for, and how to say that it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from structureflow.errors import MissingExtraError

#: Extra by package.
_EXTRAS: Final = {
    "av": "video",
    "aws_lambda_powertools": "aws",
    "boto3": "aws",
    "botocore": "aws",
    "jinja2": "aws",
    "pillow_heif": "video",
    "torch": "raft",
    "torchvision": "raft",
}


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Import in this block what an extra installs; `what` is what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        # never by name: this is on no index, and what an index has under its name is somebody else's
        raise MissingExtraError(
            f"{what} needs {missing}: pip install '.[{_EXTRAS[missing]}]' in a checkout of structureflow",
            package=missing,
        ) from error
