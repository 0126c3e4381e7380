"""The one check of a folder that is to be written to."""

from __future__ import annotations

import os
from pathlib import Path

from histocc.errors import UsageError


def make_folder(folder: str | os.PathLike[str], flag: str) -> Path:
    """Create the save folder and make sure that it can be written to.

    Raises UsageError naming `flag` where that cannot be done.
    """
    path = Path(folder)
    check_folder(path, flag)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag} {path}: the folder cannot be created: {error.strerror}") from error
    return path


def check_folder(folder: str | os.PathLike[str], flag: str) -> None:
    """Raise UsageError if `folder` can be neither used nor created; nothing is created yet."""
    path = Path(folder)
    try:
        _check_folder(path, flag)
    except PermissionError as error:
        closed = next((each for each in reversed(path.parents) if not os.access(each, os.X_OK)), path.parent)
        raise UsageError(f"{flag} {path}: no permission to look into {closed}; give a folder of your own") from error
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}; give another folder") from error


def _check_folder(path: Path, flag: str) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{flag} {path}: this is a file; give a folder")
    parent = path
    while not parent.exists():
        if parent.is_symlink():
            raise UsageError(f"{flag} {path}: {parent} is a link to {os.readlink(parent)}, which is not there")
        parent = parent.parent
    if not parent.is_dir():
        raise UsageError(f"{flag} {path}: {parent} is a file; give a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path}: no permission to write in {parent}; give a folder of your own")
