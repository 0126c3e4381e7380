"""Writing files whole or not at all, and what to do where that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from histocc.errors import UsageError
from histocc.files import console
from histocc.files.torch_files import first_line

_RETRY_SECONDS = 2.0


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Write a binary file so that `path` holds either its old or its new content, whatever happens.

    `write` gets an open binary file in the same folder; the file is flushed to the disk, then renamed, and the folder
    is flushed too, so that the rename survives a power cut.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            # mkstemp makes private files; checkpoints are shared with colleagues under the usual permissions.
            with contextlib.suppress(OSError):
                os.fchmod(handle, 0o666 & ~_umask())
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # Some network file systems cannot flush a folder; the rename itself has happened.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the file system allows it, else a copy."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        write_atomically(target, lambda file: _copy_into(source, file))
        return
    os.replace(temporary, target)
    # Renaming one link onto another of the same file does nothing, and leaves the first in place.
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    _sync_folder(target.parent)


def _copy_into(source: Path, file: Any) -> None:
    with source.open("rb") as original:
        shutil.copyfileobj(original, file, 16 * 1024 * 1024)


def save_with_retry(save: Callable[[], Any], what: str) -> OSError | None:
    """Run `save`; on failure try once more, then report and return the error, so that training can go on."""
    for attempt in (1, 2):
        try:
            save()
            return None
        except OSError as error:
            failure = error
        except RuntimeError as error:
            # torch's zip writer reports a full disk as a RuntimeError of its own.
            failure = OSError(errno.EIO, first_line(error))
        except UsageError as error:
            # A file that is added to has become another one meanwhile.
            failure = OSError(errno.EINVAL, str(error))
        if attempt == 1:
            time.sleep(_RETRY_SECONDS)
    console.warn(f"{what} could not be saved: {failure}. Earlier files are untouched, and training goes on.")
    return failure
