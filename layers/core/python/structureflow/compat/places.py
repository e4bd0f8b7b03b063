"""Where the original functions upload to, download from and keep frames: they took it from the program around them."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from structureflow import arguments
from structureflow.arguments import checked
from structureflow.errors import InputNotAllowedError, InputNotFoundError, OutputError
from structureflow.files import new_file
from structureflow.limits import MAX_FLOWS
from structureflow.runtime.store import store_of_environment
from structureflow.storage.base import Storage, check_store
from structureflow.storage.http import HttpsSource

#: More is no archive of flows: half a megabyte a flow.
_MAX_BYTES: Final = MAX_FLOWS * 2**19


class Upload(Protocol):
    """Puts a file where other machines find it, and returns its URL; None where it failed."""

    def __call__(self, *, local_path: str, task_id: str, project_id: str | None, is_final_output: bool) -> str | None:
        """Upload the file `local_path` of a task."""
        ...


class Download(Protocol):
    """Gets what an `Upload` put somewhere."""

    def __call__(self, url: str, path: Path) -> None:
        """Download `url` into the file `path`."""
        ...


def local_url(*, local_path: str, task_id: str, project_id: str | None, is_final_output: bool) -> str:  # noqa: ARG001
    """Leave the file where it is: for programs whose segments run on the same machine, or on a shared folder."""
    return Path(local_path).resolve().as_uri()


@checked(url=arguments.text, path=arguments.path)
def fetch_url(url: str, path: Path) -> None:
    """Download a ``file:`` URL, a path, or an ``https://`` URL of a public host, without redirects.

    Raises:
        InputNotFoundError, StorageError, InputNotAllowedError, TransientError: it cannot be had; an older file stays.
        OutputError: `path` cannot be written.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise InputNotAllowedError(f"url: expected https://, file:// or a path: {error}") from error
    if parts.scheme == "https":
        HttpsSource([f"{parts.hostname}{port}"], max_bytes=_MAX_BYTES).get_to_file(url, path)
        return
    if parts.scheme == "file":
        source = Path(url2pathname(parts.path))
    elif "://" not in url:
        arguments.path(url, "url")
        source = Path(url)
    else:
        raise InputNotAllowedError(
            f"expected https://, file:// or a path, got {parts.scheme}://: give use_download what reads it"
        )
    try:
        with source.open("rb") as file:
            if not path.exists() or not source.samefile(path):
                with new_file(path, "path") as part, part.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise InputNotFoundError(f"{source}: cannot be read: {error.strerror}") from error


@dataclass(slots=True)
class _Places:
    upload: Upload = local_url
    download: Download = fetch_url
    store: Storage | None = None


_PLACES: Final = _Places()
_LOCK: Final = threading.Lock()


@checked(upload=arguments.function)
def use_upload(upload: Upload) -> None:
    """Let `_extract_and_upload_structure_flows` upload by `upload`, for the whole process.

    It is called as the original called ``upload_and_get_final_output_location``. Without it the file stays where it
    is, and its URL is a ``file:`` URL.
    """
    _PLACES.upload = upload


@checked(download=arguments.function)
def use_download(download: Download) -> None:
    """Let cached flows be downloaded by `download`, for the whole process; without it by `fetch_url`."""
    _PLACES.download = download


@checked(store=check_store)
def use_store(store: Storage) -> None:
    """Keep frames and overlays in `store`, for the whole process.

    Without it they are in the bucket that ``S3_BUCKET`` names in the environment (``mpr`` where it does not), at
    ``AWS_ENDPOINT_URL_S3`` if that is there: as in the original.
    """
    _PLACES.store = store


def upload() -> Upload:
    """Return what uploads."""
    return _PLACES.upload


def download() -> Download:
    """Return what downloads."""
    return _PLACES.download


def store() -> Storage:
    """Return where frames are."""
    with _LOCK:
        if _PLACES.store is None:
            _PLACES.store = store_of_environment()
        return _PLACES.store
