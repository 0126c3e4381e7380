"""One run at a time in a folder: a lock that ends with the process that holds it, however it ends.

The lock is the system's own on a file in the folder, so that nothing has to be cleaned up after a kill, and a run can
be resumed at once. It is not passed on to the processes that prepare batches, which may live a moment longer. On disks
that several machines share it holds across them where the system passes locks on; where not, a warning says so.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from histocc.errors import UsageError
from histocc.files import console, run_folder
from histocc.files.folders import check_folder, make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TAKEN = (errno.EACCES, errno.EAGAIN)
# Options of shared file systems with which each machine keeps its locks to itself.
_KEPT_TO_ONESELF = frozenset({"nolock", "local_lock=all", "local_lock=posix", "localflock"})
_SHARED = ("nfs", "lustre", "fuse.sshfs")
_MOUNTS = Path("/proc/self/mountinfo")


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike[str], flag: str) -> Iterator[None]:
    """Hold a folder, which is made if it is not there, for this process alone.

    A folder that was made and is still empty in the end is removed again.

    Parameters
    ----------
    folder
        The folder.
    flag
        The flag that named it, for messages.

    Raises
    ------
    UsageError
        Another process holds the folder: which one, on which machine and since when; or it cannot be made or written
        to.
    """
    folder = Path(folder)
    check_folder(folder, flag)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        make_folder(folder, flag)
        with _lock(folder, flag):
            yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _lock(folder: Path, flag: str) -> Iterator[None]:
    path = folder / run_folder.LOCK
    descriptor = _take(path, folder, flag)
    owner = os.getpid()
    try:
        yield
    finally:
        # A process that was forked meanwhile holds no lock and removes none.
        if descriptor is not None and os.getpid() == owner:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _take(path: Path, folder: Path, flag: str) -> int | None:
    """The locked file, open; None where there are no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise UsageError(
                f"{flag} {folder}: {path.name} cannot be opened ({error.strerror}); give a folder of your own"
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{flag} {folder}: {path.name} in it is no file; move it away")
            if not _try(descriptor, folder):
                os.close(descriptor)
                return None
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise UsageError(
                f"{flag} {folder}: another run is at work in this folder: {holder}. Let it end or stop it, or give "
                "another folder"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            _sign(descriptor)
            return descriptor
        # It was removed by the run before, between opening and locking: nobody else would find this one.
        os.close(descriptor)


def _try(descriptor: int, folder: Path) -> bool:
    """Lock a file; False, with a warning, where that keeps nobody out. Raises BlockingIOError where it is locked."""
    reason = "this system has no locks on files"
    if fcntl is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not locks_stay_on_this_machine(folder):
                return True
            console.warn(
                f"the file system of {folder} keeps locks to each machine: a second run there on another machine "
                "would not be noticed"
            )
            return True
        except OSError as error:
            if error.errno in _TAKEN:
                raise BlockingIOError from error
            reason = error.strerror or str(error)
    console.warn(f"{folder} cannot be locked ({reason}): a second run in it would not be noticed")
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"host": socket.gethostname(), "process": os.getpid(), "started": started}
    # On a full disk the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(descriptor: int) -> str:
    # Who has just got the lock may not have signed yet.
    time.sleep(0.1)
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['process'])} on {holder['host']:.80}, started {holder['started']:.40}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "it has not said which"


def locks_stay_on_this_machine(folder: Path, mounts: str | None = None) -> bool:
    """Whether a folder is on a disk shared with other machines, to which locks are not passed on.

    Parameters
    ----------
    folder
        The folder.
    mounts
        What is mounted, in the form of Linux's ``/proc/self/mountinfo``; the system's own by default. Where that is not
        known, the answer is no.
    """
    try:
        lines = (_MOUNTS.read_text(encoding="utf-8", errors="replace") if mounts is None else mounts).splitlines()
        place = os.path.realpath(folder)
    except OSError:
        return False
    found = ("", "", frozenset())
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, system = before.split(), after.split()
        if len(fields) < 6 or len(system) < 3:
            continue
        where = fields[4].replace("\\040", " ")
        if os.path.commonpath([place, where]) == where and len(where) >= len(found[0]):
            found = where, system[0], frozenset((*fields[5].split(","), *system[2].split(",")))
    _, kind, options = found
    return kind.startswith(_SHARED) and (kind == "fuse.sshfs" or bool(options & _KEPT_TO_ONESELF))
