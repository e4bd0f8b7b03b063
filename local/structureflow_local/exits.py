"""Exit codes of the command line, one meaning each."""

from __future__ import annotations

from typing import Final

from structureflow.errors import JobStateError, ObjectNotFoundError, StorageError, StructureFlowError, TransientError

DONE: Final = 0
#: An error that nobody foresaw, with a traceback; or nobody reads on.
UNEXPECTED: Final = 1
#: Of the request, a file, an option or a name.
BAD_INPUT: Final = 2
JOB_FAILED: Final = 3
#: A bucket, a server, an account or a stack.
NOT_REACHABLE: Final = 4
#: The job runs, or waits: ask again.
NOT_FINISHED: Final = 5
#: As a shell says of a program that SIGINT ended.
INTERRUPTED: Final = 130

MEANINGS: Final = {
    DONE: "done",
    BAD_INPUT: "bad input",
    JOB_FAILED: "the job failed",
    NOT_REACHABLE: "a bucket, server or stack is not reachable",
    NOT_FINISHED: "the job is not finished",
}


class NotFinishedError(JobStateError):
    """A job did not end in the time that was waited for it."""


def exit_code(error: StructureFlowError) -> int:
    """Return the exit code of an error that ended a command."""
    if isinstance(error, NotFinishedError):
        return NOT_FINISHED
    if isinstance(error, ObjectNotFoundError):
        return BAD_INPUT
    if isinstance(error, StorageError | TransientError):
        return NOT_REACHABLE
    return BAD_INPUT
