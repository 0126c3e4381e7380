"""How well sets of codes are predicted: exact sets, precision, recall and F1.

A row's codes are a set of strings, predicted and true alike, so their order does not matter, repeated codes count
once, and a spurious code counts against the row. Which decoding the predicted tokens come from (teacher-forced or
free-running) is up to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# What is counted per group of rows, in the order of the arrays of `CodeSetMetrics.counts`.
COUNTED = ("rows", "exact", "true_positive", "predicted", "true")

# Rows that may wait on the device; past this they are counted, so that memory does not grow with the data.
_MAX_PENDING_ROWS = 2**18


class BlockDecoder(Protocol):
    """What is needed of a formatter."""

    max_num_codes: int
    block_size: int

    def decode_block(self, tokens: np.ndarray) -> str | None:
        """The code that the S tokens of a block spell; None if there is none."""


class CodeSetMetrics:
    """Counts of right, predicted and true codes: over all rows, by number of true codes, by language.

    `update` only keeps the tokens, as int16 on their device, so that it costs no host synchronisation; they are
    fetched and decoded in `counts`, or once every 2**18 rows.

    Parameters
    ----------
    formatter
        Gives `max_num_codes` (K), `block_size` (S) and `decode_block`.
    languages
        Distinct languages, in the order that `language_index` refers to; None: none are told apart.
    """

    def __init__(self, formatter: BlockDecoder, languages: Sequence[str] | None = None) -> None:
        self._formatter = formatter
        self._languages = list(languages or [])
        self._code_of_block: dict[bytes, int] = {}
        self._code_ids: dict[str, int] = {}
        self._pending: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._pending_rows = 0
        groups = ["all", "codes/1", "codes/2", "codes/3+", *(f"language/{name}" for name in self._languages)]
        self._counts = {group: np.zeros(len(COUNTED), dtype=np.int64) for group in groups}

    def update(self, pred_tokens: Tensor, target_tokens: Tensor, language_index: Tensor | None = None) -> None:
        """Note a batch: tokens without BOS and EOS, integer [B, K*S], and the rows' languages, integer [B].

        Raises ValueError if languages are told apart and `language_index` is missing.
        """
        if self._languages and language_index is None:
            raise ValueError("language_index is needed, since the metrics were made with languages")
        languages = None if language_index is None else language_index.to(torch.int16)
        self._pending.append((pred_tokens.to(torch.int16), target_tokens.to(torch.int16), languages))
        self._pending_rows += len(pred_tokens)
        if self._pending_rows >= _MAX_PENDING_ROWS:
            self._count_pending()

    def counts(self) -> dict[str, np.ndarray]:
        """Counts so far: group of rows -> int64 [5], the numbers named in `COUNTED`.

        Groups: `all`; `codes/1`, `codes/2`, `codes/3+` (true codes of the row); `language/<name>` for each language.
        The groups and their order depend on `languages` alone, so that the counts of several processes can be added.
        """
        self._count_pending()
        return {group: counts.copy() for group, counts in self._counts.items()}

    def _count_pending(self) -> None:
        if not self._pending:
            return
        pred, target, languages = zip(*self._pending)
        self._pending, self._pending_rows = [], 0
        pred_ids, true_ids = (self._code_sets(torch.cat(tokens).cpu().numpy()) for tokens in (pred, target))

        found = (pred_ids[:, :, None] == true_ids[:, None, :]) & (pred_ids[:, :, None] >= 0)
        true_positive = found.sum(axis=(1, 2))
        n_pred, n_true = (pred_ids >= 0).sum(axis=1), (true_ids >= 0).sum(axis=1)
        exact = (true_positive == n_pred) & (true_positive == n_true)
        per_row = np.stack([np.ones_like(n_true), exact, true_positive, n_pred, n_true], axis=1)

        self._counts["all"] += per_row.sum(axis=0)
        for group, rows in (("codes/1", n_true == 1), ("codes/2", n_true == 2), ("codes/3+", n_true >= 3)):
            self._counts[group] += per_row[rows].sum(axis=0)
        if self._languages:
            of_row = torch.cat(languages).cpu().numpy()
            for index, name in enumerate(self._languages):
                self._counts[f"language/{name}"] += per_row[of_row == index].sum(axis=0)

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


def summarise(counts: Mapping[str, np.ndarray]) -> dict:
    """Figures in percent from (summed) counts of `CodeSetMetrics`.

    Returns `rows, exact_set_acc, precision, recall, f1` over all rows, and under `by_codes` ('1', '2', '3+') and
    `by_language` the same for each group that has rows. `exact_set_acc` is the share of rows whose predicted set of
    codes is the true one; precision, recall and F1 = 2 TP / (predicted + true) are over codes. A share of nothing
    is NaN.
    """
    summary = {**figures_of(counts["all"]), "by_codes": {}, "by_language": {}}
    for group, numbers in counts.items():
        kind, _, name = group.partition("/")
        if name and numbers[0]:
            summary[{"codes": "by_codes", "language": "by_language"}[kind]][name] = figures_of(numbers)
    return summary


def figures_of(numbers: np.ndarray) -> dict[str, float]:
    """Figures in percent from the five numbers of `COUNTED`, as in `summarise`."""
    rows, exact, true_positive, predicted, true = (int(number) for number in numbers)
    return {
        "rows": rows,
        "exact_set_acc": _percent(exact, rows),
        "precision": _percent(true_positive, predicted),
        "recall": _percent(true_positive, true),
        "f1": _percent(2 * true_positive, predicted + true),
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


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

    Parameters
    ----------
    formatter
        Turns tokens into codes.
    languages
        Distinct languages to tell apart, in the order that `language_index` refers to; None tells none apart.
    language_index
        Language of every row of the evaluation's data set, integer [rows]; None where none are told apart.
    decoded
        Which rows of the data set are also decoded token by token, bool [rows]; None where none are.
    """

    formatter: BlockDecoder
    languages: Sequence[str] | None = None
    language_index: Tensor | None = None
    decoded: Tensor | None = None

    def counter(self) -> CodeSetMetrics:
        """A counter for one evaluation."""
        return CodeSetMetrics(self.formatter, self.languages)
