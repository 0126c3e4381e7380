"""How well sets of codes are predicted: exact sets, precision, recall and F1.

A row's codes are a set of strings, predicted and true alike, so their order does not matter, repeated codes count
once, and a spurious code counts against the row. Which decoding the predicted tokens come from (teacher-forced or
free-running) is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from histocc.metrics.mistakes import CodeMistakes
from histocc.metrics.row_groups import GroupCounts, RowGroups

# Rows that may wait on the device; past this they are counted, so that memory does not grow with the data.
_MAX_PENDING_ROWS = 2**18
# Most predicted classes of a row that are looked at to find out which are confused.
_CLASSES_OF_ROW = 5


class BlockDecoder(Protocol):
    """What is needed of a formatter."""

    max_num_codes: int
    block_size: int

    def decode_block(self, tokens: np.ndarray) -> str | None:
        """The code that the S tokens of a block spell; None if there is none."""


class _CountedLater:
    """Keeps what batches give on its device, without synchronising, and has it counted in large lots."""

    def __init__(self, groups: RowGroups | None, mistakes: CodeMistakes | None) -> None:
        self._mistakes = mistakes
        self._counts = GroupCounts(groups)
        self._pending: list[tuple[Tensor | None, ...]] = []
        self._pending_rows = 0

    def counts(self) -> np.ndarray:
        """Counts so far, as `GroupCounts.array`."""
        self._count_pending()
        return self._counts.array.copy()

    def _keep(self, *tensors: Tensor | None) -> None:
        """Note what a batch gives, row by row; what is None is None in every batch."""
        self._pending.append(tensors)
        self._pending_rows += len(tensors[0])
        if self._pending_rows >= _MAX_PENDING_ROWS:
            self._count_pending()

    def _count_pending(self) -> None:
        if self._pending:
            columns = zip(*self._pending)
            self._pending, self._pending_rows = [], 0
            self._count(*(None if each[0] is None else torch.cat(each).cpu().numpy() for each in columns))

    def _count(self, *arrays: np.ndarray | None) -> None:
        """Count what `_keep` was given."""
        raise NotImplementedError


class CodeSetMetrics(_CountedLater):
    """Counts of right, predicted and true codes, by groups of rows.

    `update` only keeps the tokens, as int16 on their device, so that it costs no host synchronisation; they are
    fetched and decoded in `counts`, or once every 2**18 rows.

    Parameters
    ----------
    formatter
        Gives `max_num_codes` (K), `block_size` (S) and `decode_block`.
    groups
        The groups of rows to tell apart, beside those by number of true codes; None for no others.
    mistakes
        Counts which codes are confused, where it is given.
    """

    def __init__(
        self, formatter: BlockDecoder, groups: RowGroups | None = None, mistakes: CodeMistakes | None = None
    ) -> None:
        super().__init__(groups, mistakes)
        self._formatter = formatter
        self._code_of_block: dict[bytes, int] = {}
        self._code_ids: dict[str, int] = {}

    def update(self, pred_tokens: Tensor, target_tokens: Tensor, rows: Tensor | None = None) -> None:
        """Note a batch: tokens without BOS and EOS, integer [B, K*S], and the rows' places in the data set, [B].

        `counts` raises ValueError if the places are missing although groups or mistakes ask for them.
        """
        self._keep(pred_tokens.to(torch.int16), target_tokens.to(torch.int16), rows)

    def _count(self, pred: np.ndarray, target: np.ndarray, places: np.ndarray | None) -> None:
        pred_ids, true_ids = self._code_sets(pred), self._code_sets(target)
        found = (pred_ids[:, :, None] == true_ids[:, None, :]) & (pred_ids[:, :, None] >= 0)
        true_positive = found.sum(axis=(1, 2))
        n_pred, n_true = (pred_ids >= 0).sum(axis=1), (true_ids >= 0).sum(axis=1)
        exact = (true_positive == n_pred) & (true_positive == n_true)
        self._counts.add(np.stack([np.ones_like(n_true), exact, true_positive, n_pred, n_true], axis=1), places)
        if self._mistakes is not None:
            self._mistakes.count(pred_ids, true_ids, list(self._code_ids), places)

    def _code_sets(self, tokens: np.ndarray) -> np.ndarray:
        """Code numbers [N, K] of tokens [N, K*S]; -1 where a block holds no code or one that the row has already."""
        k, s = self._formatter.max_num_codes, self._formatter.block_size
        blocks, block_of = _distinct_rows(tokens.reshape(-1, s))
        ids = np.array([self._code_id(block) for block in blocks], dtype=np.int64)[block_of].reshape(-1, k)
        for column in range(1, k):
            ids[(ids[:, :column] == ids[:, column : column + 1]).any(axis=1), column] = -1
        return ids

    def _code_id(self, block: np.ndarray) -> int:
        key = block.tobytes()
        if key not in self._code_of_block:
            code = self._formatter.decode_block(block)
            # The empty string is how a row without codes is spelt in general-purpose systems.
            self._code_of_block[key] = self._code_ids.setdefault(code, len(self._code_ids)) if code else -1
        return self._code_of_block[key]


class ClassSetMetrics(_CountedLater):
    """As `CodeSetMetrics`, of a flat head: its codes are the classes with a probability above one half.

    Parameters
    ----------
    groups, mistakes
        As for `CodeSetMetrics`.
    names
        The code of each class; needed for the mistakes alone.
    """

    def __init__(
        self,
        groups: RowGroups | None = None,
        mistakes: CodeMistakes | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(groups, mistakes)
        self._names = names

    def update(self, logits: Tensor, targets: Tensor, rows: Tensor | None = None) -> None:
        """Note a batch: logits [B, C], multi-hot targets [B, C], and the rows' places in the data set, [B]."""
        above, true = logits.float().sigmoid() > 0.5, targets.bool()
        right = (above & true).sum(dim=1)
        n_pred, n_true = above.sum(dim=1), true.sum(dim=1)
        exact = (right == n_pred) & (right == n_true)
        numbers = torch.stack([torch.ones_like(right), exact, right, n_pred, n_true], dim=1).to(torch.int32)
        classes = None
        if self._mistakes is not None:
            classes = torch.cat([_classes_of(above, logits.float()), _classes_of(true, targets.float())], dim=1)
        self._keep(numbers, classes, rows)

    def _count(self, numbers: np.ndarray, classes: np.ndarray | None, places: np.ndarray | None) -> None:
        self._counts.add(numbers.astype(np.int64), places)
        if self._mistakes is not None:
            predicted, true = np.split(classes, 2, axis=1)
            self._mistakes.count(predicted, true, self._names, places)


def _classes_of(there: Tensor, order: Tensor) -> Tensor:
    """Up to five classes of each row that are `there`, bool [B, C], the highest `order` first; int32 [B, 5] or -1."""
    scores, classes = order.masked_fill(~there, -torch.inf).topk(min(_CLASSES_OF_ROW, order.shape[1]), dim=1)
    return classes.masked_fill(scores == -torch.inf, -1).to(torch.int32)


def _distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of an int16 [N, S] and, for each row, the index of its like; numpy's own is far slower."""
    n, s = rows.shape
    words = np.pad(rows, ((0, 0), (0, -s % 4))).view(np.int64)  # Four tokens a word.
    label = np.zeros(n, dtype=np.int64)
    for column in words.T:
        values, code = np.unique(column, return_inverse=True)
        _, first, label = np.unique(label * len(values) + code, return_index=True, return_inverse=True)
    return rows[first], label


@dataclass(frozen=True)
class EvaluatedCodes:
    """What an evaluation needs to count sets of codes.

    Attributes
    ----------
    formatter
        Turns tokens into codes; None where there is no decoder.
    groups
        Groups of the data set's rows to tell apart.
    decoded
        Which rows of the data set are also decoded token by token, bool [rows]; None where none are.
    names
        The code of each class; empty where no one asks which classes are confused.
    text_of
        Text of the row at a place of the data set, for examples; None gives none.
    """

    formatter: BlockDecoder | None = None
    groups: RowGroups = field(default_factory=RowGroups)
    decoded: Tensor | None = None
    names: Sequence[str] = ()
    text_of: Callable[[int], str] | None = None
