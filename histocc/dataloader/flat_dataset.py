"""The data set of the flat classifier: descriptions with their classes, in batches no wider than their texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from histocc.dataloader.augmentation import BatchAugmenter
from histocc.dataloader.batch import Batch
from histocc.dataloader.rows import TextColumn
from histocc.dataloader.texts import TextDataset, Texts, multi_hot_rows
from histocc.errors import UsageError

# CANINE joins four characters to one position of its deep encoder.
WIDTH_STEP = 4
# What one more group of rows costs, in padded characters that it must save. Measured on a CPU at batch size 256, where
# anything from 500 to 4,000 is equally good; a GPU gains by fewer, larger groups.
GROUP_COST = 2048


class FlatDataset(TextDataset):
    """Some rows of a table, in a given order, for the flat classifier.

    Parameters
    ----------
    text, languages, language_index, max_input_len, augmenter
        As for `TextDataset`.
    classes
        Class indices of each row of the table, [n, K], -1 where there is none.
    rows
        Rows of the table that make the data set, in its order; one may occur several times.
    num_classes
        C.
    dense_targets
        Add the multi-hot `targets` to batches.
    width_step
        Widths of batches and groups are multiples of this, itself a multiple of 4.

    Raises
    ------
    UsageError
        There is no room for a text.
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
        super().__init__(text, languages, language_index, max_input_len, augmenter)
        self.classes = classes
        self.rows = rows
        self.num_classes = num_classes
        self.dense_targets = dense_targets
        self.width_step = width_step

    def __len__(self) -> int:
        return len(self.rows)

    def _read(self, places: np.ndarray) -> Texts:
        return super()._read(self.rows[places])

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row; noise is drawn anew each time.

        Returns
        -------
        dict
            `occ1`, the input text; `input_ids` and `attention_mask`, int64 [L]; `targets`, float32 [C].

        Raises
        ------
        IndexError
            There is no such row.
        """
        places = self._places([row])
        texts = self._texts(places, self._draws(places, None))
        ids, mask = texts.encode(self.max_input_len)
        return {
            "occ1": texts.inputs()[0],
            "input_ids": torch.from_numpy(ids[0]),
            "attention_mask": torch.from_numpy(mask[0]),
            "targets": torch.from_numpy(multi_hot_rows(self.classes[self.rows[places]], self.num_classes)[0]),
        }

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> Batch:
        """Several rows as one batch, shortest text first, as wide as its longest text, rounded up.

        Parameters
        ----------
        rows
            Places in the data set, 0 .. n - 1, [B].
        epoch
            Whose noise to apply; without one it is drawn anew.

        Returns
        -------
        Batch
            `input_ids`, `attention_mask`, `targets_classes`, `rows` (the places in the order of the batch) and
            `groups`, see `length_groups`; with `dense_targets` also `targets`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        texts = self._texts(rows, self._draws(rows, epoch))
        widths = texts.padded_lengths(self.width_step, self.max_input_len)
        ids, mask = texts.encode(int(widths.max()))
        order = np.argsort(widths, kind="stable")
        rows = rows[order]
        classes = self.classes[self.rows[rows]].astype(np.int64)
        batch: Batch = {
            "input_ids": torch.from_numpy(ids[order]),
            "attention_mask": torch.from_numpy(mask[order]),
            "targets_classes": torch.from_numpy(classes),
            "rows": torch.from_numpy(rows),
            "groups": length_groups(widths[order]),
        }
        if self.dense_targets:
            batch["targets"] = torch.from_numpy(multi_hot_rows(classes, self.num_classes))
        return batch


def length_groups(widths: np.ndarray, group_cost: int = GROUP_COST) -> tuple[tuple[int, int], ...]:
    """Divide rows into groups of similar length, so that little is padded and few groups are run.

    Parameters
    ----------
    widths
        Ids that each row needs, ascending, [B].
    group_cost
        Cost of a group beyond its padded characters, in characters.

    Returns
    -------
    tuple
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
