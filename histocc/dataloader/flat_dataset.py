"""The data set of the flat classifier: descriptions with their classes, in batches no wider than their texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import UsageError
from .augmentation import BatchAugmenter
from .encoding import LANGUAGE_SEPARATOR, UNKNOWN_LANGUAGE, LanguagePrefixes, encode_texts, texts_of
from .rows import TextColumn

# CANINE joins four characters to one position of its deep encoder.
WIDTH_STEP = 4
# What one more group of rows costs, in padded characters that it must save. Measured on a CPU at batch size 256, where
# anything from 500 to 4,000 is equally good; a GPU gains by fewer, larger groups.
GROUP_COST = 2048


class FlatDataset(Dataset):
    """Some rows of a table, in a given order, for the flat classifier.

    Args:
        text: descriptions of the table.
        languages: distinct languages.
        language_index: index into `languages` of each row of the table, [n].
        classes: class indices of each row of the table, [n, K], -1 where there is none.
        rows: rows of the table that make the data set, in its order; one may occur several times.
        num_classes: C.
        max_input_len: ids of a row, at most.
        augmenter: noise for training; None leaves texts and languages as they are.
        dense_targets: add the multi-hot `targets` to batches.
        width_step: widths of batches and groups are multiples of this, itself a multiple of 4.

    Raises:
        UsageError: if there is no room for a text.
    """

    def __init__(
        self,
        text: TextColumn,
        languages: list[str],
        language_index: np.ndarray,
        classes: np.ndarray,
        rows: np.ndarray,
        num_classes: int,
        max_input_len: int,
        augmenter: BatchAugmenter | None = None,
        dense_targets: bool = False,
        width_step: int = WIDTH_STEP,
    ) -> None:
        if max_input_len < WIDTH_STEP:
            raise UsageError(f"the greatest length is {max_input_len}; CANINE needs at least {WIDTH_STEP} (--max-len)")
        self.text = text
        self.languages = languages
        self.language_index = language_index
        self.classes = classes
        self.rows = rows
        self.num_classes = num_classes
        self.max_input_len = max_input_len
        self.augmenter = augmenter
        self.dense_targets = dense_targets
        self.width_step = width_step
        self.epoch = 0
        self._prefixes = LanguagePrefixes(languages)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row as in epoch `self.epoch`: `occ1` (input text), `input_ids`, `attention_mask` [L], `targets` [C]."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        rows = np.array([row % len(self)])
        codepoints, lengths, languages = self._texts(rows, self.epoch)
        ids, mask = encode_texts(codepoints, lengths, languages, self._prefixes, self.max_input_len)
        names = [*self.languages, UNKNOWN_LANGUAGE]
        return {
            "occ1": names[languages[0]] + LANGUAGE_SEPARATOR + texts_of(codepoints, lengths)[0],
            "input_ids": torch.from_numpy(ids[0]),
            "attention_mask": torch.from_numpy(mask[0]),
            "targets": torch.from_numpy(multi_hot_rows(self.classes[self.rows[rows]], self.num_classes)[0]),
        }

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> dict[str, Any]:
        """Several rows as one batch, shortest text first, as wide as its longest text, rounded up.

        Args:
            rows: places in the data set, 0 .. n - 1, [B].
            epoch: whose augmentation to apply; `self.epoch` by default.

        Returns:
            int64 tensors `input_ids`, `attention_mask` [B, L]; `targets_classes` [B, K], -1 where there is no class;
            `rows` [B], the places in the order of the batch; and `groups`, how the rows divide by length, see
            `length_groups`. With `dense_targets` also `targets`, float32 [B, C].
        """
        rows = np.asarray(rows, dtype=np.int64)
        codepoints, lengths, languages = self._texts(rows, self.epoch if epoch is None else epoch)
        needed = np.minimum(self._prefixes.lengths[languages] + lengths + 1, self.max_input_len)
        widths = np.minimum(-(-needed // self.width_step) * self.width_step, self.max_input_len)
        ids, mask = encode_texts(codepoints, lengths, languages, self._prefixes, int(widths.max()))
        order = np.argsort(widths, kind="stable")
        rows = rows[order]
        classes = self.classes[self.rows[rows]].astype(np.int64)
        batch = {
            "input_ids": torch.from_numpy(ids[order]),
            "attention_mask": torch.from_numpy(mask[order]),
            "targets_classes": torch.from_numpy(classes),
            "rows": torch.from_numpy(rows),
            "groups": length_groups(widths[order]),
        }
        if self.dense_targets:
            batch["targets"] = torch.from_numpy(multi_hot_rows(classes, self.num_classes))
        return batch

    def _texts(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Code points end to end, length and language (an index of the prefixes) of each row's text."""
        places = self.rows[rows]
        codepoints, lengths = self.text.take(places)
        languages = self.language_index[places].astype(np.int64)
        if self.augmenter is not None:
            # Drawn by place in the data set: a row that occurs several times gets a different noise each time.
            draws = self.augmenter.draws(rows, epoch)
            codepoints, lengths = self.augmenter.attack(codepoints, lengths, draws)
            languages[self.augmenter.hides_language(draws)] = self._prefixes.unknown
        return codepoints, lengths, languages


def multi_hot_rows(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Float32 [n, C] with 1 at the classes of each row, [n, K]; indices outside 0 .. C - 1 are left out."""
    hot = np.zeros((len(classes), num_classes), dtype=np.float32)
    row, column = np.nonzero((classes >= 0) & (classes < num_classes))
    hot[row, classes[row, column]] = 1.0
    return hot


def length_groups(widths: np.ndarray, group_cost: int = GROUP_COST) -> tuple[tuple[int, int], ...]:
    """Divide rows into groups of similar length, so that little is padded and few groups are run.

    Args:
        widths: ids that each row needs, ascending, [B].
        group_cost: cost of a group beyond its padded characters, in characters.

    Returns:
        (rows, width) of each group, in order; of all divisions the one with the least sum of rows * width + cost.
    """
    distinct, counts = np.unique(widths, return_counts=True)
    ends = np.concatenate(([0], np.cumsum(counts)))
    # Dynamic programming: least[j] is the cost of all rows of the j shortest widths, first[j] their last group's start.
    least = np.zeros(len(ends))
    first = np.zeros(len(ends), dtype=np.int64)
    for j in range(1, len(ends)):
        costs = least[:j] + (ends[j] - ends[:j]) * distinct[j - 1] + group_cost
        first[j] = costs.argmin()
        least[j] = costs[first[j]]
    groups = []
    j = len(distinct)
    while j > 0:
        groups.append((int(ends[j] - ends[first[j]]), int(distinct[j - 1])))
        j = int(first[j])
    return tuple(reversed(groups))
