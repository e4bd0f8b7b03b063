"""The local cloud: runs the template that is deployed, on this machine, without Docker or an account."""

from structureflow_local.cloud.cloud import LocalCloud
from structureflow_local.cloud.errors import (
    FunctionProcessError,
    IdleTimeoutError,
    LocalCloudError,
    TemplateError,
    UnknownResourceError,
)
from structureflow_local.cloud.function_pool import Invocation, InvocationResult
from structureflow_local.cloud.functions import DeadLetter
from structureflow_local.cloud.gateway import Call
from structureflow_local.cloud.moto_services import Execution

__all__ = [
    "Call",
    "DeadLetter",
    "Execution",
    "FunctionProcessError",
    "IdleTimeoutError",
    "Invocation",
    "InvocationResult",
    "LocalCloud",
    "LocalCloudError",
    "TemplateError",
    "UnknownResourceError",
]
