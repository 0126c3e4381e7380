"""What is said to people: every line goes through here, and none that cannot be written ends anything.

A run takes days; whoever reads its output may have left long ago, the disk under its log may be full, and a terminal
may know no letter beyond ASCII. None of that is a reason to lose what was trained since the last save.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from histocc.files.ordinary import IS_MISSING, fault_of_file

# Before a record has a file, more than this is not kept for it.
_MOST_WAITING = 10_000

_failed: set[str] = set()


def say(text: str) -> None:
    """A line, or several, on stdout."""
    known = "stdout" in _failed
    reason = _write("stdout", text)
    if reason is not None and not known:
        warn(f"stdout cannot be written to ({reason}); everything else goes on")


def aligned(lines: Collection[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Rows of cells as indented lines with columns below each other; `numbers`: all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = (
        [
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        for line in lines
    )
    return ["  " + "  ".join(cells).rstrip() for cells in padded]


def warn(message: str) -> None:
    """A warning on stderr."""
    complain(f"Warning: {message}")


def complain(text: str) -> None:
    """A line, or several, on stderr."""
    _write("stderr", text)


class _Record:
    """What is said, kept for a file that may be named later."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._file: int | None = None
        self._path: Path | None = None
        self._told = False

    def open(self, path: Path) -> None:
        """Write what was said so far to the end of a file, and from now on everything."""
        self._path = path
        fault = fault_of_file(path)
        if fault not in (None, IS_MISSING):
            # A pipe would wait for a reader.
            self._fail(fault)
            return
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            self._fail(f"cannot be opened ({error.strerror})")
            return
        waiting, self._waiting = self._waiting, []
        self.write("\n".join([f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} ---", *waiting]))

    def write(self, text: str) -> None:
        """A line, or several."""
        if self._path is None and len(self._waiting) < _MOST_WAITING:
            self._waiting.append(text)
        if self._file is None:
            return
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self._fail(f"cannot be written to ({error.strerror})")

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)

    def _fail(self, fault: str) -> None:
        if not self._told:
            self._told = True
            warn(f"{self._path} {fault}, so that it lacks lines of this run; everything else goes on")


_record: _Record | None = None


def begin_record() -> None:
    """Keep what is said from now on, for `record_in`."""
    global _record
    _record = _Record()


def record_in(path: Path) -> None:
    """Write what was said since `begin_record`, and everything from now on, to the end of a file.

    Where that fails a warning says so, once. Without `begin_record` nothing is written.
    """
    if _record is not None:
        _record.open(path)


def end_record() -> None:
    """Keep nothing any more."""
    global _record
    if _record is not None:
        _record.close()
    _record = None


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
    """Write a line to a stream of `sys`, and to the record; the reason where the stream fails."""
    if _record is not None:
        _record.write(text)
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
