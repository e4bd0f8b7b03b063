"""Errors of the local cloud."""

from __future__ import annotations

from structureflow.errors import StructureFlowError


class LocalCloudError(StructureFlowError, RuntimeError):
    """The local cloud cannot do what was asked; root of the errors of this package."""


class TemplateError(LocalCloudError, ValueError):
    """The template, or a file it names, has a construct that the local cloud does not understand."""


class UnknownResourceError(LocalCloudError, KeyError):
    """No resource of that kind has that logical id."""

    def __str__(self) -> str:
        return self.message


class FunctionProcessError(LocalCloudError):
    """A function process cannot be started or does not answer."""


class ThrottledError(LocalCloudError):
    """All places of the account's concurrency are taken."""


class IdleTimeoutError(LocalCloudError, TimeoutError):
    """The cloud was still busy when the time to wait for it was over; the message says with what."""
