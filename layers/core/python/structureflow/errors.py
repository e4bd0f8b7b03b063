"""The error root of structureflow.

Every error raised on purpose descends from `StructureFlowError`, and from the built-in that fits it. It is either
*permanent* (the same input fails again; never retried) or *transient* (a later try may succeed; queues may retry it).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from structureflow.limits import MAX_MESSAGE_CHARS, MAX_PROBLEMS
from structureflow.references import without_queries

__all__ = [
    "ApiReplyError",
    "ApiUnreachableError",
    "BatchJobError",
    "CorruptMediaError",
    "DeadlineError",
    "EncodeError",
    "EngineUnavailableError",
    "FlowCacheCorruptError",
    "FlowCacheError",
    "FlowCacheFormatError",
    "FlowCacheLimitError",
    "FlowCacheVersionError",
    "FlowError",
    "ForeignOriginError",
    "FrameCacheConflictError",
    "FrameCacheError",
    "FrameCorruptError",
    "FrameNotFoundError",
    "GpuUnavailableError",
    "GuidanceError",
    "IncompleteJobError",
    "InputChangedError",
    "InputNotAllowedError",
    "InputNotFoundError",
    "InvalidArgumentError",
    "InvalidIdError",
    "InvalidKeyError",
    "InvalidRequestError",
    "JobBusyError",
    "JobExistsError",
    "JobStateError",
    "MediaError",
    "MediaLimitError",
    "MemoryLimitError",
    "MissingExtraError",
    "ModelWeightsError",
    "NotAVideoError",
    "NotAnImageError",
    "NothingRunsError",
    "ObjectChangedError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "OutputError",
    "PageFileNotFoundError",
    "RangeNotSatisfiableError",
    "ReplyTooLargeError",
    "RouteNotFoundError",
    "SettingsError",
    "StorageError",
    "StructureFlowError",
    "StructureFramesError",
    "SupersededRunError",
    "TimelineNotFoundError",
    "TransientError",
    "TransientStorageError",
    "UnsupportedCodecError",
    "VideoPartsError",
    "VideoTooShortError",
]


def shortened(text: str, most_chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return `text`, or its beginning and how much was left out: a message never echoes what a caller sent."""
    if len(text) <= most_chars:
        return text
    return f"{text[:most_chars]} … ({len(text) - most_chars} characters more)"


def _shown_detail(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(without_queries(value))
    if isinstance(value, list | tuple):
        return [_shown_detail(one) for one in value[:MAX_PROBLEMS]]
    return value


class StructureFlowError(Exception):
    """Root of all errors of this package; `detail` holds machine-readable facts about the failure.

    Both are cut to `structureflow.limits.MAX_MESSAGE_CHARS`, and URLs in them lose their queries: those may be signed.
    """

    transient: ClassVar[bool] = False

    def __init__(self, message: str, **detail: Any) -> None:
        # Before it is cut: half a URL would not be known as one.
        self.message = shortened(without_queries(message))
        self.detail = {name: _shown_detail(value) for name, value in detail.items()}
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """Stable name of the error, as it stands in `status.json`: the class name."""
        return type(self).__name__

    def within(self, where: str, *, instead_of: str = "") -> Self:
        """Return the same error, to be raised ``from`` this: `where` before its message, in place of `instead_of`."""
        return type(self)(f"{where}: {self.message.removeprefix(f'{instead_of}: ')}", **self.detail)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form used in `status.json` and in replies: `code`, `message`, `detail`."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


class TransientError(StructureFlowError):
    """A later try of the same step may succeed."""

    transient: ClassVar[bool] = True


# --- configuration -----------------------------------------------------------------------------------


class SettingsError(StructureFlowError, ValueError):
    """An environment setting is missing, empty or malformed; the message names it."""


class MissingExtraError(StructureFlowError, ModuleNotFoundError):
    """A package is not installed that an extra of this distribution brings; the message says which one."""

    def __str__(self) -> str:
        return self.message


# --- arguments of the library -------------------------------------------------------------------------


class InvalidArgumentError(StructureFlowError, TypeError, ValueError):
    """An argument of a public function is of another type, or out of its range; the message names it."""


class OutputError(StructureFlowError, OSError):
    """A file or folder that results were to go to cannot be written; what was there before still is."""

    def __str__(self) -> str:
        return self.message


# --- requests and keys -------------------------------------------------------------------------------


class InvalidRequestError(StructureFlowError, ValueError):
    """The job request does not follow its schema, or contradicts itself or the structure video."""


class InvalidIdError(InvalidRequestError):
    """A task, timeline, job or stage id has characters that must not stand in a storage key."""


class InvalidKeyError(StructureFlowError, ValueError):
    """A storage key does not have the form that its place in the layout demands."""


class InputNotAllowedError(InvalidRequestError, PermissionError):
    """An input lies in a bucket, host or address that the settings do not allow."""


class ForeignOriginError(InvalidRequestError, PermissionError):
    """A page of another site asks, in the browser of somebody who did not."""


class PageFileNotFoundError(InvalidRequestError, FileNotFoundError):
    """The web page has no file of that name."""

    def __str__(self) -> str:
        return self.message


class NothingRunsError(InvalidRequestError, PermissionError):
    """A store is only shown: nothing here carries jobs out."""


class ReplyTooLargeError(InvalidRequestError):
    """What was asked for does not fit into one reply; the message says what to ask for instead."""


class RouteNotFoundError(InvalidRequestError, FileNotFoundError):
    """The API has no such route."""

    def __str__(self) -> str:
        return self.message


class InputNotFoundError(StructureFlowError, FileNotFoundError):
    """A video or image that the request names does not exist."""

    def __str__(self) -> str:
        return self.message


class InputChangedError(StructureFlowError, ValueError):
    """A video or image was overwritten after the job looked it up; put the request again."""


# --- media -------------------------------------------------------------------------------------------


class MediaError(StructureFlowError, ValueError):
    """A video or image cannot be used."""


class NotAVideoError(MediaError):
    """The bytes are no video file that is opened here."""


class UnsupportedCodecError(NotAVideoError):
    """No decoder knows the codec of the video stream; the message names the codec."""


class NotAnImageError(MediaError):
    """The bytes are no image that the decoder opens."""


class VideoTooShortError(MediaError):
    """A structure video needs at least two frames to have motion."""


class MediaLimitError(MediaError):
    """A video or image exceeds the configured size, frame count or duration, or is too small."""


class CorruptMediaError(MediaError):
    """A frame cannot be decoded whole, or the file breaks off; the message says where."""


class VideoPartsError(MediaError):
    """A video that can be decoded from its beginning only; the message says why it has no parts."""


class EncodeError(StructureFlowError, RuntimeError):
    """The encoder failed or its result does not have the frames it was given."""


# --- storage -----------------------------------------------------------------------------------------


class ApiReplyError(StructureFlowError, ValueError):
    """An API answers something that this version of the client does not know."""


class ApiUnreachableError(StructureFlowError, ConnectionError):
    """An API gives no answer."""

    def __str__(self) -> str:
        return self.message


class StorageError(StructureFlowError, OSError):
    """A storage operation failed for good (denied, wrong bucket, refused)."""

    def __str__(self) -> str:
        return self.message


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """No object has that key."""


class ObjectExistsError(StorageError, FileExistsError):
    """A conditional create found an object with that key."""


class ObjectChangedError(StorageError):
    """The object was overwritten between two reads (`if_match` failed)."""


class RangeNotSatisfiableError(StorageError, ValueError):
    """The byte range starts at or past the end of the object."""


class TransientStorageError(TransientError, StorageError):
    """The store did not answer, throttled, or broke off; a later try may succeed."""


# --- flow --------------------------------------------------------------------------------------------


class FlowError(StructureFlowError, ValueError):
    """A flow field is unusable: wrong shape, dtype or range, or not finite."""


class FlowCacheError(FlowError):
    """A flow archive cannot be read; callers fall back to cached frames, then to the video."""


class FlowCacheFormatError(FlowCacheError):
    """The archive is no flow cache, is truncated, or its members, headers or offsets do not fit."""


class FlowCacheVersionError(FlowCacheError):
    """The archive was written in a format version that this reader does not know."""


class FlowCacheCorruptError(FlowCacheError):
    """A block's CRC-32 or its inflated size is not what the seek table says."""


class FlowCacheLimitError(FlowCacheError):
    """The archive declares more than the configured bounds allow (a bomb, or a giant header)."""


class EngineUnavailableError(StructureFlowError, RuntimeError):
    """The requested flow engine cannot run here."""


class ModelWeightsError(EngineUnavailableError):
    """The weights of an engine's model are missing, have another checksum, or are another model's."""


class GpuUnavailableError(EngineUnavailableError):
    """The GPU task cannot be started: no capacity, refused, or not deployed; the message says which."""


class BatchJobError(EngineUnavailableError):
    """The Batch job cannot be submitted, or ended without its flows; the message says why."""


# --- frame cache -------------------------------------------------------------------------------------


class FrameCacheError(StructureFlowError, ValueError):
    """The frame cache of a timeline cannot be used."""


class TimelineNotFoundError(FrameCacheError, FileNotFoundError):
    """No committed frame cache (no manifest) or no source chunks exist for the timeline."""

    def __str__(self) -> str:
        return self.message


class FrameNotFoundError(FrameCacheError, FileNotFoundError):
    """The manifest lists a frame whose object is gone, or the sequence is not in the timeline."""

    def __str__(self) -> str:
        return self.message


class FrameCorruptError(FrameCacheError):
    """A cached frame's bytes are no decodable JPEG, or not the ones that the manifest lists."""


class StructureFramesError(FrameCacheError):
    """The structure video's frames cannot be had: neither from the frame cache nor from the video."""


class FrameCacheConflictError(TransientError, FrameCacheError):
    """Another writer puts other frames into the same timeline at the same time; a later try may succeed."""


# --- jobs --------------------------------------------------------------------------------------------


class GuidanceError(StructureFlowError, ValueError):
    """Guides, anchors and flows of a segment do not fit together."""


class JobStateError(StructureFlowError, RuntimeError):
    """A step of the job was started without what the step before it must have left."""


class JobExistsError(JobStateError):
    """A new job has the name of one that there is already."""


class SupersededRunError(JobStateError):
    """The job was started again, or deleted, since this run began; the run must leave it alone."""


class JobBusyError(TransientError, JobStateError):
    """Another publisher of the job has its turn, or its status changes all the time; a later try may succeed."""


class DeadlineError(JobStateError, TimeoutError):
    """The work cannot end before the runtime ends the function: refused before it starts, or stopped in time."""

    def __str__(self) -> str:
        return self.message


class MemoryLimitError(JobStateError, MemoryError):
    """The work would take more memory than the function has to spare; it is refused before it starts."""


class IncompleteJobError(JobStateError):
    """A planned output object is missing when the job is assembled."""
