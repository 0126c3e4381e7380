"""Checkpoints on disk: written whole or not at all, found again after a kill, never fewer than one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from histocc.files import run_folder
from histocc.files.atomic import link_or_copy, write_atomically
from histocc.files.console import warn
from histocc.files.torch_files import DamagedFile, read_torch_file

# What `write_atomically` and `link_or_copy` call the files of a run while they are written.
_TEMPORARY = re.compile(r"\..+\.(bin|csv|html|json|md|png|txt|yaml)\.\w+\.tmp")


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
        for folder in (self.folder, self.folder / run_folder.METRICS):
            for leftover in folder.glob(".*.tmp"):
                if _TEMPORARY.fullmatch(leftover.name):
                    with contextlib.suppress(OSError):
                        leftover.unlink()

    def step_files(self) -> list[Path]:
        """The ``<step>.bin`` files, oldest step first."""
        found = [(run_folder.step_of(path.name), path) for path in self.folder.glob("*.bin")]
        return [path for _, path in sorted(pair for pair in found if pair[0] is not None)]

    def files(self) -> list[Path]:
        """The checkpoints that there are, in the order in which a run is resumed from them."""
        names = (self.folder / "last.bin", *reversed(self.step_files()), self.folder / "best.bin")
        return [path for path in names if path.exists()]

    def save(self, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write `state` as ``<step>.bin`` and ``last.bin`` (one file), and as ``best.bin`` where `best`.

        Raises OSError if the file cannot be written, for want of space for example; what was there before stays.
        """
        path = self.folder / f"{state['step']}.bin"
        self.write(path, state)
        link_or_copy(path, self.folder / "last.bin")
        if best:
            link_or_copy(path, self.folder / "best.bin")
        self._prune(state["step"])
        return path

    def save_best(self, state: dict[str, Any]) -> None:
        """Write `state` as ``best.bin`` alone. Raises OSError as `save` does."""
        self.write(self.folder / "best.bin", state)

    def write(self, path: Path, state: dict[str, Any]) -> None:
        """Write one file. Raises OSError where there is no room for it, before anything is written."""
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
        # Files of later steps are left of a run that was resumed further back; it will write them again.
        files = [path for path in self.step_files() if int(path.stem) <= step]
        for path in files[: -self.keep]:
            path.unlink(missing_ok=True)

    def load_newest(self, warn: Callable[[str], None] = warn) -> tuple[dict[str, Any], Path] | None:
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


def _bytes_of(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(_bytes_of(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_bytes_of(value) for value in state)
    return 0
