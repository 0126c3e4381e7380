"""Checkpoints on disk: written whole or not at all, found again after a kill, never fewer than one."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from histocc.errors import UsageError

_STEP_FILE = re.compile(r"(\d+)\.bin")
_RETRY_SECONDS = 2.0


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
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            reason = _refusal(str(error))
            raise RefusedFile(
                f"{path}: the file holds more than tensors and plain values ({reason}); loading it could run code, so "
                "it is refused. If you trust where it comes from, load it once with torch.load(..., weights_only=False)"
                " and save only its tensors"
            ) from error
        raise DamagedFile(f"{path}: the file is damaged ({_first_line(error)}); take another checkpoint") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, UsageError):
            raise
        raise DamagedFile(f"{path}: the file cannot be read ({_first_line(error)}); take another checkpoint") from error


def _refusal(text: str) -> str:
    found = re.search(r"GLOBAL (\S+)|(?:Unsupported|unsupported) (?:class|global|operand|type)[: ]+(\S+)", text)
    return next((g for g in found.groups() if g), "objects") if found else "pickled objects"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Write a binary file so that `path` holds either its old or its new content, whatever happens.

    `write` gets an open binary file in the same folder; the file is flushed to the disk, then renamed, and the folder
    is flushed too, so that the rename survives a power cut.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        # mkstemp makes private files; checkpoints are shared with colleagues under the usual permissions.
        os.fchmod(handle, 0o666 & ~_umask())
        with os.fdopen(handle, "wb") as file:
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
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        # A kill in the middle of a write leaves its temporary file behind.
        for leftover in self.folder.glob(".*.bin.*.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()

    def step_files(self) -> list[Path]:
        """The ``<step>.bin`` files, oldest step first."""
        found = [(int(m[1]), p) for p in self.folder.glob("*.bin") if (m := _STEP_FILE.fullmatch(p.name))]
        return [path for _, path in sorted(found)]

    def save(self, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write `state` as ``<step>.bin`` and ``last.bin`` (one file), and as ``best.bin`` where `best`.

        Raises OSError if the file cannot be written, for want of space for example; what was there before stays.
        """
        path = self.folder / f"{state['step']}.bin"
        self._write(path, state)
        link_or_copy(path, self.folder / "last.bin")
        if best:
            link_or_copy(path, self.folder / "best.bin")
        self._prune()
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

    def _prune(self) -> None:
        if self.keep is None:
            return
        files = self.step_files()
        for path in files[: max(0, len(files) - self.keep)]:
            path.unlink(missing_ok=True)

    def load_newest(self) -> tuple[dict[str, Any], Path] | None:
        """The newest whole checkpoint and its path; None if there is none at all.

        A damaged ``last.bin`` is named on stderr and the newest whole ``<step>.bin`` is taken in its place.

        Raises
        ------
        DamagedFile
            There are checkpoints and none of them is whole.
        RefusedFile
            A checkpoint holds pickled objects.
        """
        candidates = [p for p in (self.folder / "last.bin", *reversed(self.step_files())) if p.exists()]
        damaged: list[str] = []
        for path in candidates:
            try:
                state = read_torch_file(path)
                if not isinstance(state, dict) or "model" not in state or "step" not in state:
                    raise DamagedFile(f"{path}: this is no checkpoint of a training run (no 'model' and 'step' in it)")
            except DamagedFile as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                print(f"Warning: {message}", file=sys.stderr)
            if damaged:
                print(f"Warning: resuming from {path} instead", file=sys.stderr)
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
    print(f"Warning: {what} could not be saved: {failure}. Earlier checkpoints are untouched.", file=sys.stderr)
    return failure


def _bytes_of(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(_bytes_of(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_bytes_of(value) for value in state)
    return 0
