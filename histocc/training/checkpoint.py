"""Checkpoints on disk: written whole or not at all, found again after a kill, never fewer than one."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from histocc.errors import UsageError

_STEP_FILE = re.compile(r"(\d+)\.bin")
_TEMPORARY = re.compile(r"\..+\.(bin|csv)\.\w+\.tmp")
_RETRY_SECONDS = 2.0
# What torch says of a pickle that wants to make or call something, as opposed to one that is no whole pickle.
_FORBIDDEN = re.compile(r"GLOBAL (\S+)|unrecognized function (\S+)|Can only (?:create|build).*got (.+)")
# What zipfile, pickle and torch raise, between them, on bytes that make no sense.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    AssertionError,
)


class DamagedFile(UsageError):
    """A file of weights that is not whole."""


class RefusedFile(UsageError):
    """A file of weights that holds more than tensors and builtins."""


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Read a file written by ``torch.save`` onto the CPU, tensors and builtins only.

    Nothing in the file is executed. Every byte of the current zip layout is checked against its checksum, which
    torch itself does not do.

    Raises
    ------
    DamagedFile
        The file is truncated, empty or altered.
    RefusedFile
        The file holds pickled objects beyond tensors and builtins, which could run code.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise DamagedFile(f"{path}: the file is empty; its writing was interrupted or the disk was full")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad is not None:
                raise DamagedFile(f"{path}: the file is damaged (checksum of {bad} is wrong); take another checkpoint")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _what_it_wants(str(error), path)
        if reason is not None:
            raise RefusedFile(
                f"{path}: the file holds more than tensors and plain values ({reason}); loading it could run code, so "
                "it is refused. If you trust where it comes from, load it once with torch.load(..., weights_only=False)"
                " and save only its tensors"
            ) from error
        raise DamagedFile(f"{path}: the file is damaged ({_first_line(error)}); take another checkpoint") from error
    except DamagedFile:
        raise
    except _UNREADABLE as error:
        raise DamagedFile(f"{path}: the file cannot be read ({_first_line(error)}); take another checkpoint") from error


def _what_it_wants(message: str, path: Path) -> str | None:
    if found := _FORBIDDEN.search(message):
        return next(group for group in found.groups() if group)
    with path.open("rb") as file:
        # torch writes protocol 2; newer ones have operations that its safe reader does not know.
        start = file.read(2)
    newer = start[:1] == b"\x80" and start[1:] > b"\x02"
    return "a pickle of arbitrary objects" if newer and "Unsupported operand" in message else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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


def _warn(message: str) -> None:
    print(f"Warning: {message}", file=sys.stderr)


class CheckpointFolder:
    """The checkpoints of one run: ``<step>.bin``, ``last.bin`` and ``best.bin`` in its save folder.

    Parameters
    ----------
    folder
        The save folder; it exists.
    keep
        How many ``<step>.bin`` to keep, the newest ones; None keeps all. ``last.bin`` and ``best.bin`` always stay.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int | None = None) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def remove_leftovers(self) -> None:
        """Remove what a kill in the middle of a write left behind; for the process that writes, before it does."""
        for leftover in self.folder.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(leftover.name):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    def step_files(self) -> list[Path]:
        """The ``<step>.bin`` files, oldest step first."""
        found = [(int(m[1]), p) for p in self.folder.glob("*.bin") if (m := _STEP_FILE.fullmatch(p.name))]
        return [path for _, path in sorted(found)]

    def files(self) -> list[Path]:
        """The checkpoints that there are, in the order in which a run is taken up from them."""
        names = (self.folder / "last.bin", *reversed(self.step_files()), self.folder / "best.bin")
        return [path for path in names if path.exists()]

    def save(self, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write `state` as ``<step>.bin`` and ``last.bin`` (one file), and as ``best.bin`` where `best`.

        Raises OSError if the file cannot be written, for want of space for example; what was there before stays.
        """
        path = self.folder / f"{state['step']}.bin"
        self._write(path, state)
        link_or_copy(path, self.folder / "last.bin")
        if best:
            link_or_copy(path, self.folder / "best.bin")
        self._prune(state["step"])
        return path

    def save_best(self, state: dict[str, Any]) -> None:
        """Write `state` as ``best.bin`` alone. Raises OSError as `save` does."""
        self._write(self.folder / "best.bin", state)

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        needed = _bytes_of(state)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", str(path)
            )
        write_atomically(path, lambda file: torch.save(state, file))

    def _prune(self, step: int) -> None:
        if self.keep is None:
            return
        # Files of later steps are left of a run that was taken up further back; it will write them again.
        files = [path for path in self.step_files() if int(path.stem) <= step]
        for path in files[: -self.keep]:
            path.unlink(missing_ok=True)

    def load_newest(self, warn: Callable[[str], None] = _warn) -> tuple[dict[str, Any], Path] | None:
        """The newest whole checkpoint and its path; None if there is none at all.

        A damaged ``last.bin`` is named with `warn`, and the newest whole ``<step>.bin`` is taken in its place, or else
        ``best.bin``; that one alone is there if a run was killed after an evaluation and before its first save.

        Raises
        ------
        DamagedFile
            There are checkpoints and none of them is whole.
        RefusedFile
            A checkpoint holds pickled objects.
        """
        damaged: list[str] = []
        for path in self.files():
            try:
                state = read_torch_file(path)
                if not isinstance(state, dict) or "model" not in state or "step" not in state:
                    raise DamagedFile(f"{path}: this is no checkpoint of a training run (no 'model' and 'step' in it)")
            except DamagedFile as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                warn(message)
            if damaged:
                warn(f"resuming from {path} instead")
            return state, path
        if damaged:
            raise DamagedFile(
                "No checkpoint in the save folder is whole; move them away, or choose another save folder:\n"
                + "\n".join(damaged)
            )
        return None


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
            failure = OSError(errno.EIO, _first_line(error))
        if attempt == 1:
            time.sleep(_RETRY_SECONDS)
    _warn(f"{what} could not be saved: {failure}. Earlier files are untouched, and training goes on.")
    return failure


def _bytes_of(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(_bytes_of(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_bytes_of(value) for value in state)
    return 0
