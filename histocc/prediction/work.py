"""Coding many pairs so that a kill loses at most half a minute: batches are noted on disk as they are done."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from histocc.files.atomic import write_atomically
from histocc.prediction.coder import Coded, Coder, join_coded
from histocc.prediction.fitting import FittingSize
from histocc.prediction.pairs import Pairs
from histocc.processes.distributed import Processes

SAVE_SECONDS = 20.0


class Work:
    """What is done so far of coding a table, in a folder beside the output.

    Parameters
    ----------
    folder
        The folder; made if needed. What is in it from another task is removed.
    task
        All that the predictions depend on, plain values; work of another task is no use.
    """

    def __init__(self, folder: Path, task: Mapping[str, Any]) -> None:
        self.folder = folder
        described = json.dumps(task, sort_keys=True)
        note = folder / "task.json"
        if folder.is_dir() and (not note.is_file() or note.read_text("utf-8") != described):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            write_atomically(note, lambda file: file.write(described.encode()))

    @property
    def rows_file(self) -> Path:
        """The pair of each row."""
        return self.folder / "rows.int32"

    def parts(self) -> list[Path]:
        """Files with batches that are done."""
        return sorted(self.folder.glob("part-*.npz"))

    def save(self, rank: int, batches: list[int], numbers: np.ndarray, coded: Coded) -> None:
        """Note some batches as done."""
        path = self.folder / f"part-{rank}-{batches[0]}.npz"
        # Text of a fixed width, since an array of objects would have to be pickled.
        arrays = {**coded._asdict(), "codes": coded.codes.astype(str)}
        write_atomically(path, lambda file: np.savez(file, batches=np.array(batches), numbers=numbers, **arrays))

    def done(self) -> set[int]:
        """Batches that are done."""
        return {int(batch) for path in self.parts() for batch in _load(path, "batches")[0]}

    def results(self, pairs: int, coder: Coder) -> Coded:
        """The predictions for all pairs."""
        shape = (pairs, coder.alternatives, coder.max_codes)
        result = Coded(np.full(shape, "", dtype=object), np.full(shape, np.nan), np.full(shape[:2], np.nan))
        for path in self.parts():
            numbers, *parts = _load(path, "numbers", *Coded._fields)
            for whole, part in zip(result, parts):
                whole[numbers] = part
        return result

    def remove(self) -> None:
        """Remove the folder, when the output is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _load(path: Path, *names: str) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


def code_pairs(
    pairs: Pairs,
    coder: Coder,
    batch_size: int,
    work: Work,
    processes: Processes,
    *,
    warn: Callable[[str], None] = print,
) -> None:
    """Code all pairs that `work` does not have yet; each process takes its share of the batches.

    The batches are those of the pairs in order of length, whatever was done before and however many processes there
    are, so that the predictions are too. A batch that does not fit into the device's memory is halved.

    Parameters
    ----------
    pairs
        What is to be coded.
    coder
        Codes it.
    batch_size
        Pairs of a batch.
    work
        Where done batches are noted.
    processes
        This process among those that share the work.
    warn
        Told where memory was short.
    """
    order = pairs.longest_first()
    starts = range(0, len(order), batch_size)
    done = work.done()
    mine = [i for i in range(processes.rank, len(starts), processes.world_size) if i not in done]
    rows_of = np.array(pairs.rows, dtype=np.int64)
    batch_rows = [int(rows_of[order[start : start + batch_size]].sum()) for start in starts]
    total = sum(batch_rows)
    shrinking = ShrinkingBatches(coder, warn)
    pending: list[tuple[int, np.ndarray, Coded]] = []
    saved = time.monotonic()
    shown = processes.is_main and os.isatty(2)
    with tqdm(total=total, unit=" rows", unit_scale=True, desc="Coding", disable=not shown, smoothing=0.02) as bar:
        bar.update(sum(batch_rows[i] for i in done))
        for i in mine:
            numbers = order[starts[i] : starts[i] + batch_size]
            pending.append(
                (i, numbers, shrinking([pairs.texts[n] for n in numbers], [pairs.languages[n] for n in numbers]))
            )
            # Others have come as far, more or less.
            bar.update(batch_rows[i] * processes.world_size)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(work, processes.rank, pending)
                saved = time.monotonic()
        _save(work, processes.rank, pending)


def _save(work: Work, rank: int, pending: list[tuple[int, np.ndarray, Coded]]) -> None:
    if pending:
        batches, numbers, coded = zip(*pending)
        work.save(rank, list(batches), np.concatenate(numbers), join_coded(coded))
        pending.clear()


class ShrinkingBatches:
    """A coder that halves what does not fit into memory, and remembers what does.

    Parameters
    ----------
    coder
        What codes.
    warn
        Told once for each size that was too much.
    """

    def __init__(self, coder: Coder, warn: Callable[[str], None]) -> None:
        self._coder = coder
        self._fitting = FittingSize(warn)

    def __call__(self, texts: list[str], languages: list[str]) -> Coded:
        return join_coded(list(self._fitting.parts(len(texts), lambda part: self._coder(texts[part], languages[part]))))
