"""Non-finite numbers: a loss or gradient that is not finite stops all processes, and names the rows that did it."""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from histocc.files import run_folder
from histocc.files.atomic import save_with_retry, write_atomically
from histocc.processes.distributed import Processes

_MOST_PENDING = 2
_MOST_OVERFLOWS = 100
_CLS, _SEP = 0xE000, 0xE001


class NonFiniteError(RuntimeError):
    """Training met a loss or a gradient that is not finite; the message says where."""


def one_if_finite(loss: Tensor) -> Tensor:
    """The factor of a loss that shows in the gradient whether the loss is finite: exactly 1 if it is, otherwise inf.

    A loss may be infinite while its gradient is not, and of several processes' losses only the gradients are exchanged.
    """
    return torch.isfinite(loss.detach()).to(loss.dtype).reciprocal()


class _Pending(NamedTuple):
    step: int
    finite: Tensor
    ready: Any
    losses: Sequence[Mapping[str, Tensor]]
    batches: Sequence[dict[str, Any]]


class FiniteChecks:
    """Checks every step's gradient norm without making the device wait.

    Gradients are averaged over the processes, so that one bad loss, multiplied by `one_if_finite`, shows in the norm of
    all of them and all stop at the same step. On a GPU the verdict travels to the host behind the work and is read up
    to two steps later, and always before anything is saved.

    Parameters
    ----------
    processes
        The processes of the run.
    folder
        Where ``bad_batch.csv`` is written.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._folder = folder
        self._pending: deque[_Pending] = deque()
        self._overflows = 0

    def submit(
        self, step: int, grad_norm: Tensor, losses: Sequence[Mapping[str, Tensor]], batches: Sequence[dict[str, Any]]
    ) -> None:
        """Check step `step` (gradient norm, 0-dim; its batches on the host, and the loss and its parts of each).

        Raises NonFiniteError, for this step on a CPU, or for an earlier one whose verdict has arrived.
        """
        finite = torch.isfinite(grad_norm)
        ready = None
        if finite.is_cuda:
            finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._pending.append(_Pending(step, finite, ready, losses, batches))
        self._settle_down_to(0 if ready is None else _MOST_PENDING)

    def settle(self) -> None:
        """Read every verdict that is still on its way; raises NonFiniteError."""
        self._settle_down_to(0)

    def count_overflow(
        self,
        stepped: bool,
        step: int,
        grad_norm: Tensor,
        losses: Sequence[Mapping[str, Tensor]],
        batches: Sequence[dict[str, Any]],
    ) -> None:
        """With float16 a skipped update is ordinary; only a long row of them means that the loss itself is bad."""
        self._overflows = 0 if stepped else self._overflows + 1
        if self._overflows >= _MOST_OVERFLOWS:
            self._stop(_Pending(step, torch.isfinite(grad_norm), None, losses, batches))

    def _settle_down_to(self, most: int) -> None:
        while len(self._pending) > most:
            check = self._pending.popleft()
            if check.ready is not None:
                check.ready.synchronize()
            if not check.finite:
                self._stop(check)

    def _stop(self, check: _Pending) -> None:
        self._pending.clear()
        losses = [{name: float(value) for name, value in parts.items()} for parts in check.losses]
        bad = [i for i, parts in enumerate(losses) if not all(map(math.isfinite, parts.values()))]
        suspects = bad or range(len(losses))
        mine = {
            "rank": self._processes.rank,
            "parts": losses[suspects[0]],
            "bad": bool(bad),
            "rows": _describe([check.batches[i] for i in suspects]),
        }
        reports = self._processes.gather(mine)
        # A gradient can overflow under a finite loss; then every batch's rows are suspects.
        guilty = [r for r in reports if r["bad"]] or reports
        path = self._folder / run_folder.BAD_BATCH
        if self._processes.is_main:
            rows = [[r["rank"], *row] for r in guilty for row in r["rows"]]
            save_with_retry(lambda: _write_rows(path, rows), str(path))
        # Nobody leaves before the file is there: the end of one process is the end of all.
        self._processes.gather(None)
        shown = "; ".join(
            (f"process {r['rank']}: " if len(reports) > 1 else "")
            + ", ".join(f"{k} {v:.6g}" for k, v in r["parts"].items())
            for r in guilty
        )
        raise NonFiniteError(
            f"Step {check.step:,}: the loss or its gradient is not a finite number ({shown}). Training stopped and "
            f"saved nothing; the last good checkpoint is untouched. The rows of the batch are in {path}. "
            "A longer --warmup-pct, training without --use-amp, or a lower --learning-rate usually helps; since a run "
            "that goes on keeps its rate, a lower one needs a new save folder, with --initial-checkpoint"
        )


def _write_rows(path: Path, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["process", "row", "text", "classes"])
    writer.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))


def _describe(batches: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """(row number in the data set, text that the model saw, class indices) of every row of the batches."""
    rows = []
    for batch in batches:
        ids = batch["input_ids"].tolist()
        numbers = batch["rows"].tolist() if "rows" in batch else range(len(ids))
        if "targets_classes" in batch:
            classes = [[c for c in row if c >= 0] for row in batch["targets_classes"].tolist()]
        else:
            dense = batch["targets_linear"] if "targets_linear" in batch else batch["targets"]
            classes = [row.nonzero().flatten().tolist() for row in dense]
        for number, points, own in zip(numbers, ids, classes):
            text = "".join(chr(p) for p in points if p not in (0, _CLS, _SEP))
            rows.append((int(number), text, " ".join(map(str, own))))
    return rows
