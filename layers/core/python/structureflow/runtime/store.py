"""The store that the environment names, for programs that say it nowhere else."""

from __future__ import annotations

import os
from typing import Final

from structureflow.runtime.settings import addressing_style
from structureflow.storage.base import Storage
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings

#: What the original frame cache took where ``S3_BUCKET`` was not set.
_BUCKET: Final = "mpr"


def store_of_environment() -> Storage:
    """Return the bucket that ``S3_BUCKET`` names, at ``AWS_ENDPOINT_URL_S3``; nothing is asked of it yet.

    Raises:
        SettingsError: a setting is malformed.
    """
    environment = os.environ
    return S3Storage(
        environment.get("S3_BUCKET") or _BUCKET,
        settings=S3Settings(
            endpoint_url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None,
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
            addressing_style=addressing_style(environment),
        ),
    )
