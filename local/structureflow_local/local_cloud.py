"""Whether the local cloud can run here, before its packages are imported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final

from structureflow.errors import SettingsError
from structureflow_local.missing import CLOUD

TEMPLATE: Final = Path(__file__).resolve().parents[2] / "template.yaml"


def check_cloud() -> None:
    """Make sure that this is a checkout on Linux that has what the local cloud needs.

    Raises:
        SettingsError: it is not; the message says what is missing.
    """
    if sys.platform != "linux":
        raise SettingsError(f"the local cloud runs on Linux only, this is {sys.platform}: run without --cloud")
    if not TEMPLATE.is_file():
        raise SettingsError("the local cloud runs the template.yaml of a checkout, which this is not: run without it")
    if importlib.util.find_spec("moto") is None:
        raise SettingsError(f"the local cloud needs packages that are missing: {CLOUD}")
