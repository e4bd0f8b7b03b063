"""What a command needs that is not installed, and how to install it: from a checkout, for no index has it."""

from __future__ import annotations

from typing import Final

from structureflow.errors import MissingExtraError

VIEWER: Final = "pip install '.[video,aws]' './local[viewer]' in a checkout of structureflow"
CLOUD: Final = "make setup in a checkout of structureflow, on Linux"
AWS: Final = "pip install '.[aws]' in a checkout of structureflow"
RAFT: Final = "pip install '.[raft]' in a checkout of structureflow"

#: How to install a package, by the name that is imported.
_INSTALLS: Final = {
    "aws_lambda_powertools": AWS,
    "awslambdaric": CLOUD,
    "boto3": AWS,
    "botocore": AWS,
    "joserfc": CLOUD,
    "moto": CLOUD,
    "torch": RAFT,
    "torchvision": RAFT,
    "werkzeug": VIEWER,
    "yaml": CLOUD,
}


def explained(command: str, error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return what to say of a package that a command lacks; None if it is none of those that may be missing."""
    name = (error.name or "").partition(".")[0]
    if name not in _INSTALLS:
        return None
    return MissingExtraError(f"structureflow {command} needs {name}: {_INSTALLS[name]}", package=name)
