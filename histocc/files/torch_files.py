"""Reading what `torch.save` wrote: whole files only, tensors and builtins only, nothing of them executed."""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from histocc.errors import UsageError
from histocc.files.ordinary import IS_MISSING, fault_of_file

# What torch says of a pickle that wants to make or call something, as opposed to one that is no whole pickle.
_FORBIDDEN = re.compile(r"GLOBAL (\S+)|unrecognized function (\S+)|Can only (?:create|build).*got (.+)")
_SAID = re.compile(r"WeightsUnpickler error: (.+)")
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
    MemoryError,
    RecursionError,
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
    fault = fault_of_file(path)
    if fault is not None:
        raise UsageError(f"{path}: there is no such file" if fault == IS_MISSING else f"{path} {fault}")
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
        raise DamagedFile(f"{path}: the file is damaged ({_reason(error)}); take another checkpoint") from error
    except DamagedFile:
        raise
    except _UNREADABLE as error:
        raise DamagedFile(f"{path}: the file cannot be read ({first_line(error)}); take another checkpoint") from error


def _reason(error: BaseException) -> str:
    """What torch says about the file, without what it says about itself."""
    found = _SAID.search(str(error))
    return found[1].strip()[:200] if found else first_line(error)


def _what_it_wants(message: str, path: Path) -> str | None:
    if found := _FORBIDDEN.search(message):
        return next(group for group in found.groups() if group)
    with path.open("rb") as file:
        # torch writes protocol 2; newer ones have operations that its safe reader does not know.
        start = file.read(2)
    newer = start[:1] == b"\x80" and start[1:] > b"\x02"
    return "a pickle of arbitrary objects" if newer and "Unsupported operand" in message else None


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
