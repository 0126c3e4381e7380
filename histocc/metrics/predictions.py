"""How good predicted sets of codes are, with the confidence that was given for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from histocc.metrics.row_groups import COUNTED, figures_of

Codes = Sequence[str]
_NORMAL_95 = 1.959963984540054


def count_sets(predicted: Sequence[Codes], true: Sequence[Codes]) -> np.ndarray:
    """The five numbers of `COUNTED` for each of N rows, int64 [N, 5]; repeated codes count once."""
    counts = np.zeros((len(true), len(COUNTED)), dtype=np.int64)
    for row, found, wanted in zip(counts, map(set, predicted), map(set, true)):
        right = len(found & wanted)
        row[:] = 1, found == wanted, right, len(found), len(wanted)
    return counts


def grouped_figures(counts: np.ndarray, groups: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures in percent by group of rows.

    Parameters
    ----------
    counts
        From `count_sets`, [N, 5].
    groups
        Under the name of a grouping, the group of each row; None where a row belongs to none.

    Returns
    -------
    dict
        grouping -> group -> rows, exact_set_acc, precision, recall, f1; groups in order of their size.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, members in groups.items():
        numbers: dict[Any, np.ndarray] = {}
        for group, row in zip(members, counts):
            if group is not None:
                numbers[group] = numbers.get(group, 0) + row
        ordered = sorted(numbers.items(), key=lambda item: (-item[1][0], str(item[0])))
        result[name] = {str(group): figures_of(row) for group, row in ordered}
    return result


def leading_digits(codes: Codes, digits: int) -> tuple[str, ...]:
    """The codes cut to their first digits; codes that begin with a minus sign stand for themselves."""
    return tuple(code if code.startswith("-") else code[:digits] for code in codes)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """What share of predictions is right where the model says how sure it is.

    Parameters
    ----------
    confidence
        Float [N], 0..1; NaN is left out.
    right
        Bool [N].
    bins
        Intervals of equal width.

    Returns
    -------
    list
        For each interval with rows: its bounds, rows, mean confidence and share that is right, both in percent.
    """
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    table = []
    for i in range(bins):
        here = place == i
        if here.any():
            table.append(
                {
                    "from": i / bins,
                    "to": (i + 1) / bins,
                    "rows": int(here.sum()),
                    "mean_confidence": 100 * float(confidence[here].mean()),
                    "right": 100 * float(right[here].mean()),
                }
            )
    return table


def best_threshold(confidence: np.ndarray, right: np.ndarray, true: int) -> tuple[float, float]:
    """The threshold above which codes are kept so that F1 = 2 TP / (kept + true) is greatest.

    Parameters
    ----------
    confidence
        Of each predicted code, float [M].
    right
        Whether it is a true one, bool [M].
    true
        How many true codes there are.

    Returns
    -------
    tuple[float, float]
        The threshold, half way between the last code kept and the first one that is not, and F1 in percent. Of several
        that are as good, the lowest.
    """
    if not len(confidence) or not true:
        return 0.0, math.nan
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + true)
    # Codes of equal confidence are kept together.
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    best = ends[len(ends) - 1 - int(np.argmax(f1[ends][::-1]))]
    below = confidence[best + 1] if best + 1 < len(confidence) else 0.0
    return float((confidence[best] + below) / 2), 100 * float(f1[best])


def interval(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson 1927, "Probable inference")."""
    if not rows:
        return 0.0, 100.0
    share, z = right / rows, _NORMAL_95
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    # Rounding must not leave the share itself outside.
    return 100 * min(share, max(0.0, middle - half)), 100 * max(share, min(1.0, middle + half))


def same_answer(answers: Sequence[Codes]) -> tuple[Codes, float]:
    """The most frequent answer, and the share of all that it makes."""
    counts: dict[Codes, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    answer = max(counts, key=counts.__getitem__)
    return answer, counts[answer] / len(answers)
