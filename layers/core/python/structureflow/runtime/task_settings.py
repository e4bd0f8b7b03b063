"""The environment of the GPU task and of the Batch job, read once and typed, and what they work with.

Buckets, hosts and limits are those of `structureflow.runtime.settings`; the variables here are the tasks' own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast, get_args

from structureflow.errors import SettingsError
from structureflow.flow.raft import Device, Precision
from structureflow.flow.raft_weights import MODELS, RaftModel
from structureflow.jobs.raft_task import RaftOptions
from structureflow.jobs.services import Services
from structureflow.limits import MB_PER_VCPU
from structureflow.runtime import wiring
from structureflow.runtime.ecs import ORDER_VARIABLE

_MEMORY_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Typed environment of one task.

    Attributes:
        order_key: of the order to carry out (``EXTRACTION_KEY``).
        raft: ``RAFT_WEIGHTS_URI``, ``RAFT_WEIGHTS_SHA256`` (``raft_large=<64 hex>,raft_small=<64 hex>``, one of
            them at least), and, where set, ``RAFT_BATCH_PAIRS``, ``RAFT_MEMORY_MB`` (bound of a batch),
            ``RAFT_DEVICE`` (``auto``, ``cpu``, ``cuda``), ``RAFT_PRECISION`` (``auto``, ``float32``, …).
    """

    order_key: str
    raft: RaftOptions

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TaskSettings:
        """Read and check all settings.

        Raises:
            SettingsError: a variable is missing, empty or malformed.
        """
        memory_mb = _whole_number(environment, "RAFT_MEMORY_MB", 0)
        return cls(
            order_key=_required(environment, ORDER_VARIABLE),
            raft=RaftOptions(
                weights=_required(environment, "RAFT_WEIGHTS_URI"),
                weights_sha256=_checksums(_required(environment, "RAFT_WEIGHTS_SHA256")),
                batch_pairs=_whole_number(environment, "RAFT_BATCH_PAIRS", 8),
                memory_bytes=memory_mb * 1_000_000 or None,
                device=cast("Device", _choice(environment, "RAFT_DEVICE", get_args(Device))),
                precision=cast("Precision", _choice(environment, "RAFT_PRECISION", get_args(Precision))),
            ),
        )


def order_key() -> str:
    """Return the key of the process's order, whatever else is wrong with its settings.

    Raises:
        SettingsError: it is missing or empty.
    """
    return _required(os.environ, ORDER_VARIABLE)


def task_settings() -> TaskSettings:
    """Return the process's settings.

    Raises:
        SettingsError: a variable is missing, empty or malformed.
    """
    return TaskSettings.from_environment(os.environ)


def task_services() -> Services:
    """Build the adapters of a function, for a process that has its machine to itself.

    It may use every CPU, and its time is not billed as a function's, so its steps report no usage. Its memory is what
    ``TASK_MEMORY_MB`` says, or as much as a function of so many CPUs has.

    Raises:
        SettingsError: a variable is missing, empty or malformed.
    """
    cpus = os.cpu_count() or 1
    # A function derives its CPUs from the memory that Lambda tells it; outside of Lambda nobody sets that.
    memory_mb = _whole_number(os.environ, "TASK_MEMORY_MB", cpus * MB_PER_VCPU)
    os.environ.setdefault(_MEMORY_VARIABLE, str(memory_mb))
    return replace(wiring.services(), workers=cpus, vcpus=cpus, usage=lambda _: ())


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name}: expected a value in the environment, got {environment.get(name)!r}")
    return value


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, "").strip()
    if not value:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise SettingsError(f"{name}: expected a whole number above 0, got {value!r:.60}")
    return int(value)


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = environment.get(name, "").strip() or choices[0]
    if value not in choices:
        raise SettingsError(f"{name}: expected one of {', '.join(choices)}, got {value!r:.60}")
    return value


def _checksums(value: str) -> dict[RaftModel, str]:
    found: dict[RaftModel, str] = {}
    for part in value.split(","):
        model, _, digest = part.strip().partition("=")
        if model not in MODELS or not _SHA256.fullmatch(digest):
            raise SettingsError(
                f"RAFT_WEIGHTS_SHA256: expected MODEL=SHA256 with MODEL of {', '.join(MODELS)} and 64 hex digits, "
                f"separated by commas, got {part!r:.120}"
            )
        found[model] = digest.lower()
    return found
