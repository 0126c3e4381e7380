"""Which rows train and which validate, and how much the figures of the validation rows are worth."""

from __future__ import annotations

import numpy as np

from histocc.errors import UsageError
from histocc.preparation.diagnosis import EXAMPLES, Labels, count
from histocc.preparation.report import PreparationReport
from histocc.preparation.table import Table

SPLIT_SEED = 42
# What `--split-by` calls the texts, whatever their column is called.
DESCRIPTION = "description"


def random_split(rows: np.ndarray, share_val: float) -> tuple[np.ndarray, np.ndarray]:
    """Training rows in order and validation rows as drawn, as `DataFrame.sample(n, random_state=42)` draws them."""
    n_val = _rows_to_validate(rows, share_val)
    drawn = np.random.RandomState(SPLIT_SEED).choice(len(rows), size=n_val, replace=False)
    in_train = np.ones(len(rows), dtype=bool)
    in_train[drawn] = False
    return rows[in_train], rows[drawn]


def group_split(rows: np.ndarray, groups: np.ndarray, share_val: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows, both in order, such that no group is in both.

    Groups go to validation in a random but fixed order, each if it still fits into the share; if none does, the
    smallest group goes there.

    Parameters
    ----------
    rows
        int64 [n], the rows to split.
    groups
        int [N], the group of each row of the table.
    share_val
        Share of the rows for validation.
    name
        What the rows are split by, for messages.
    """
    import pandas as pd

    group_of, _ = pd.factorize(groups[rows])
    sizes = np.bincount(group_of).tolist()
    if len(sizes) < 2:
        raise UsageError(
            f"--split-by {name}: all rows that fit have one and the same value, so that they cannot be split; choose "
            f"another column, or give a table for validation with --val-data"
        )
    room = _rows_to_validate(rows, share_val)
    chosen = np.zeros(len(sizes), dtype=bool)
    for group in np.random.RandomState(SPLIT_SEED).permutation(len(sizes)).tolist():
        if sizes[group] <= room:
            chosen[group] = True
            room -= sizes[group]
            if not room:
                break
    if not chosen.any():
        chosen[int(np.argmin(sizes))] = True
    in_val = chosen[group_of]
    return rows[~in_val], rows[in_val]


def _rows_to_validate(rows: np.ndarray, share_val: float) -> int:
    n_val = int(len(rows) * share_val)
    if not n_val or n_val == len(rows):
        raise UsageError(
            f"{count(len(rows), 'row')} cannot be split: --share-val {share_val} gives {n_val} to validation and "
            f"{len(rows) - n_val} to training, and both need at least one; use more rows or another share"
        )
    return n_val


def judge_split(
    table: Table,
    labels: Labels,
    train: np.ndarray,
    val: np.ndarray,
    text_ids: np.ndarray,
    report: PreparationReport,
) -> None:
    """Note in `report` what makes the figures of the validation rows better or worse than those of new rows.

    Parameters
    ----------
    table
        The table.
    labels
        Its codes.
    train
        The rows that train, int64.
    val
        The rows that validate, int64.
    text_ids
        int64 [N], number of each row's text.
    report
        Gets the counts and the notes.
    """
    import pandas as pd

    seen_text = np.zeros(len(table), dtype=bool)  # there are at most as many texts as rows
    seen_text[text_ids[train]] = True
    report.rows_val_seen = int(seen_text[text_ids[val]].sum())
    in_train, in_val = _codes_of(labels, train), _codes_of(labels, val)
    report.codes_only_in_val = [labels.codes[i] for i in np.flatnonzero(in_val & ~in_train).tolist()]
    kept = np.concatenate([train, val])
    codes_of_row = dict(enumerate(labels.ids[kept].T))
    rows = pd.DataFrame({"text": text_ids[kept], "language": table.languages[kept], **codes_of_row})
    report.rows_duplicate = int(rows.duplicated().sum())

    if report.rows_val_seen:
        report.notes.append(
            f"{report.rows_val_seen:,} of {count(len(val), 'validation row')} have a description that training sees "
            f"too: the figures are better than they would be for new descriptions (--split-by {DESCRIPTION} keeps a "
            f"description on one side)"
        )
    if report.codes_only_in_val:
        codes = report.codes_only_in_val
        more = f" and {len(codes) - EXAMPLES:,} more" if len(codes) > EXAMPLES else ""
        report.notes.append(
            f"{count(len(codes), 'code')} of the validation rows that training never sees, which lowers the figures: "
            f"{', '.join(map(repr, codes[:EXAMPLES]))}{more}"
        )
    if report.rows_duplicate:
        report.notes.append(
            f"{count(report.rows_duplicate, 'row')} that another row repeats exactly, with codes and language: each "
            f"counts in training and in the figures"
        )


def _codes_of(labels: Labels, rows: np.ndarray) -> np.ndarray:
    """Which codes some rows have, bool [codes]."""
    there = np.zeros(len(labels.codes) + 1, dtype=bool)  # the last entry stands for -1, no code
    there[labels.ids[rows]] = True
    return there[:-1]
