"""Files and folders that are written for callers: whole, or not at all, and with them the folders they need."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from structureflow.arguments import path as check_path
from structureflow.errors import OutputError, StructureFlowError

#: What says that the place, not the caller, is why nothing more could be written.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


@contextmanager
def new_file(target: str | os.PathLike[str], argument: str) -> Iterator[Path]:
    """Give a path to write a file at, which is moved to `target` when the block ends well.

    Missing folders are made; when the block fails, they go again, and an older file stays.

    Args:
        target: where the file shall be.
        argument: what the caller calls it, for messages.

    Raises:
        InvalidArgumentError: it is no path.
        OutputError: it is a folder, or cannot be written.
    """
    check_path(target, argument)
    place = Path(target)
    if place.name in ("", ".."):
        raise OutputError(f"{argument}: expected a file to write, got the folder {place}")
    with new_files(place.parent, (place.name,), argument) as files:
        yield files[0]


@contextmanager
def new_files(folder: str | os.PathLike[str], names: Sequence[str], argument: str) -> Iterator[list[Path]]:
    """Give paths to write files at, which are all moved into `folder` when the block ends well; as `new_file`."""
    check_path(folder, argument)
    place = Path(folder)
    with made_folder(place, argument):
        scratch = _scratch(place, names, argument)
        try:
            yield [scratch / name for name in names]
            for name in names:
                _move(scratch / name, place / name, argument)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def made_folder(folder: Path, argument: str) -> Iterator[None]:
    """Have a folder to write to, and those above it; what had to be made goes again when the block fails.

    Raises:
        OutputError: it is a file, or cannot be made; or no more could be written to it.
    """
    missing: list[Path] = []
    try:
        try:
            missing += [place for place in (folder, *folder.parents) if not place.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise OutputError(f"{argument}: expected a folder to write to, got the file {folder}") from error
        except OSError as error:
            raise _failed(argument, folder, error) from error
        try:
            yield
        except OSError as error:
            if isinstance(error, StructureFlowError) or error.errno not in _FULL:
                raise
            raise _failed(argument, folder, error) from error
    except BaseException:
        for place in missing:
            # somebody else may have put something there, or nothing was made
            with suppress(OSError):
                place.rmdir()
        raise


def _scratch(folder: Path, names: Sequence[str], argument: str) -> Path:
    try:
        for name in names:
            if (folder / name).is_dir():
                raise OutputError(f"{argument}: expected a file to write, got the folder {folder / name}")
        return Path(tempfile.mkdtemp(prefix=".structureflow-", dir=folder))
    except OutputError:
        raise
    except OSError as error:
        raise _failed(argument, folder, error) from error


def _move(part: Path, target: Path, argument: str) -> None:
    try:
        part.replace(target)
    except FileNotFoundError:
        # it was not written, which is the caller's to explain
        raise
    except OSError as error:
        # Windows replaces no file that somebody has open
        raise OutputError(f"{argument}: {target} cannot be replaced: {error.strerror}", path=str(target)) from error


def _failed(argument: str, folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{argument}: {folder} cannot be written to: {error.strerror}", path=str(folder))
