"""Whether a flat head gives one and the same answer to nearly every row, which means that it has learnt nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from histocc.processes.distributed import Processes

ONE_ANSWER, MOST_FREQUENT = "flat_one_answer", "most_frequent_class"
# Percent of the rows, and how far above what the data themselves would have as one answer.
_NEARLY_ALL, _ABOVE_THE_DATA = 90.0, 10.0


class AnswerCounts:
    """Counts how often each class is the most probable one, and how often it is a true one."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits [B, C] and multi-hot targets [B, C]; no host synchronisation."""
        if self._counts is None:
            self._counts = torch.zeros(2, logits.shape[1], dtype=torch.int64, device=logits.device)
        best = logits.argmax(dim=1)
        self._counts[0].scatter_add_(0, best, torch.ones_like(best))
        self._counts[1] += (targets > 0).sum(dim=0)

    def figures(self, processes: Processes) -> dict[str, float]:
        """Share of the most frequent answer and of the most frequent class, in percent of all rows; a collective."""
        classes = max(processes.gather(0 if self._counts is None else self._counts.shape[1]))
        counts = np.zeros((2, classes), dtype=np.int64) if self._counts is None else self._counts.cpu().numpy()
        answers, true = processes.sum_array(counts)
        rows = int(answers.sum())
        return {ONE_ANSWER: 100 * int(answers.max()) / rows, MOST_FREQUENT: 100 * int(true.max()) / rows}


def learnt_nothing(figures: Mapping[str, float]) -> bool:
    """Whether the figures of an evaluation say so."""
    share = figures.get(ONE_ANSWER, 0.0)
    return share >= _NEARLY_ALL and share >= figures[MOST_FREQUENT] + _ABOVE_THE_DATA
