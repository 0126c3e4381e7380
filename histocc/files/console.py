"""What is said to people: every line goes through here, and none that cannot be written ends anything.

A run takes days; whoever reads its output may have left long ago, the disk under its log may be full, and a terminal
may know no letter beyond ASCII. None of that is a reason to lose what was trained since the last save.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

_failed: set[str] = set()


def say(text: str) -> None:
    """A line, or several, on stdout."""
    known = "stdout" in _failed
    reason = _write("stdout", text)
    if reason is not None and not known:
        warn(f"stdout cannot be written to ({reason}); everything else goes on")


def warn(message: str) -> None:
    """A warning on stderr."""
    complain(f"Warning: {message}")


def complain(text: str) -> None:
    """A line, or several, on stderr."""
    _write("stderr", text)


def is_watched() -> bool:
    """Whether stderr is a terminal, on which a progress bar can move."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        # It was closed, or never there.
        return False


def open_missing_descriptors() -> None:
    """Give stdin, stdout and stderr a place where they have none.

    A script that is started without them would get their numbers for the next files that it opens, and what libraries
    print would be written into these.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


def flush() -> None:
    """Write what still waits to be written."""
    for name in ("stdout", "stderr"):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            getattr(sys, name).flush()


def _write(name: str, text: str) -> str | None:
    """Write a line to a stream of `sys`; the reason where that fails."""
    stream = getattr(sys, name)
    try:
        if stream is None:
            raise OSError("it is closed")
        try:
            stream.write(f"{text}\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:
        if name not in _failed:
            _failed.add(name)
            atexit.register(_give_up, name)
        return getattr(error, "strerror", None) or str(error)
    return None


def _give_up(name: str) -> None:
    # What a stream could not get rid of would make the interpreter end with a message and a code of its own.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            stream.flush()
