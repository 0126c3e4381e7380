"""Whether a path is a file that can be read: there, ordinary, and open to this user; else which one may be meant."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from histocc.errors import did_you_mean

IS_FOLDER, IS_MISSING = "is a folder", "does not exist"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def near_names(path: str | os.PathLike[str]) -> str:
    """A note on what stands beside a path that is not there and is spelt nearly like it; '' where nothing does."""
    parent, name = os.path.split(os.fspath(path).rstrip(os.sep))
    with contextlib.suppress(OSError):
        return did_you_mean(name, os.listdir(parent or "."))
    return ""


def fault_of_file(path: str | os.PathLike[str]) -> str | None:
    """What keeps a path from being read as an ordinary file, to be put behind its name; None if nothing does.

    What can be read only once, such as a pipe, is no ordinary file: a program that opens it may wait for ever.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        for is_kind, name in _KINDS:
            if is_kind(mode):
                return f"is {name}"
        return None if os.access(path, os.R_OK) else "may not be read by this user"
    except FileNotFoundError:
        if path.is_symlink():
            return f"is a link to {os.readlink(path)}, which is not there"
        return IS_MISSING
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        return f"cannot be opened: {error.strerror}"
