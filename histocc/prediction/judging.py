"""How good predictions are on rows whose codes are known: figures over all of them and by group, and thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from histocc.metrics.predictions import (
    best_threshold,
    count_sets,
    grouped_figures,
    interval,
    leading_digits,
    reliability,
    same_answer,
)
from histocc.metrics.row_groups import figures_of
from histocc.prediction.coder import Coded
from histocc.prediction.coders import ModelCoder
from histocc.prediction.labelled import Labelled
from histocc.prediction.review import RANDOM
from histocc.prediction.threshold_table import ALL_LANGUAGES, Threshold

# Fewer rows of a language say too little about its threshold.
_FEWEST_ROWS = 30


def judge(
    table: Labelled,
    coder: ModelCoder,
    coded: Coded,
    *,
    top_k: int,
    seen: Collection[str] | None = None,
    try_new_thresholds: bool = False,
) -> tuple[dict[str, Any], dict[str, Threshold]]:
    """All figures, and the best threshold of each language with enough rows.

    Parameters
    ----------
    table
        The rows to judge.
    coder
        What made the predictions; its thresholds are applied.
    coded
        The predictions for all pairs, without thresholds; perhaps with more codes than a text may have.
    top_k
        How many of the best codes count as found.
    seen
        Descriptions that training had, to tell apart; None tells none apart.
    try_new_thresholds
        Give the figures with the best thresholds as well.
    """
    languages = [table.pairs.languages[i] for i in table.pair_of_row.tolist()]
    of_top_k = _top_k(Coded(*(array[table.pair_of_row] for array in coded)), table.true, top_k)
    coded = coded.first(coder.loaded.system.formatter.max_num_codes)
    of_rows = Coded(*(array[table.pair_of_row] for array in coded))
    kept = coder.above_thresholds(of_rows, languages)
    predicted = kept.sets()
    counts = count_sets(predicted, table.true)
    groups: dict[str, Sequence[Any]] = {
        "language": languages,
        "codes": [min(len(set(codes)), 3) for codes in table.true],
    }
    if seen is not None:
        groups["in_training"] = [
            "seen" if table.pairs.texts[i] in seen else "unseen" for i in table.pair_of_row.tolist()
        ]
    if table.samples:
        groups["sample"] = table.samples
    by = grouped_figures(counts, groups)
    by["codes"] = {{"3": "3+"}.get(name, name): figures for name, figures in by["codes"].items()}
    exact = counts[:, 1].astype(bool)
    result: dict[str, Any] = {
        "method": coder.method,
        **figures_of(counts.sum(axis=0)),
        "top_k": of_top_k,
        "left_out": table.left_out,
        "by": by,
        "reliability": reliability(of_rows.confidence[:, 0], exact),
    }
    digits = _hierarchy(table.true)
    if digits:
        result["by"]["leading_digits"] = {
            str(n): figures_of(
                count_sets(
                    [leading_digits(codes, n) for codes in predicted],
                    [leading_digits(codes, n) for codes in table.true],
                ).sum(axis=0)
            )
            for n in range(1, digits + 1)
        }
    if table.samples:
        at_random = [i for i, sample in enumerate(table.samples) if sample == RANDOM]
        low, high = interval(int(exact[at_random].sum()), len(at_random))
        share = 100 * float(exact[at_random].mean()) if at_random else float("nan")
        result["accuracy_of_the_source"] = {"rows": len(at_random), "right": share, "from": low, "to": high}
    answer, share = same_answer(coded.sets() if coder.method != "flat" else _first_codes(coded))
    result["most_frequent_answer"] = {"codes": "&".join(answer), "share_of_texts": 100 * share}
    result["unknown_codes"] = _unknown_codes(table.true, coder.loaded.system.codes)
    found = _thresholds(of_rows, table.true, languages)
    others: dict[str, Mapping[str, float]] = {}
    if coder.stored.by_language:
        others["all rows, without thresholds.csv"] = coder.usual
    if try_new_thresholds and found:
        others["all rows, with the new thresholds"] = {
            language: threshold.threshold for language, threshold in found.items()
        }
    result["with_other_thresholds"] = {
        name: figures_of(count_sets(coder.above_thresholds(of_rows, languages, them).sets(), table.true).sum(axis=0))
        for name, them in others.items()
    }
    return result, found


def _unknown_codes(true: Sequence[tuple[str, ...]], known: Sequence[str] | None) -> dict[str, Any]:
    """True codes that a model with these codes cannot give: how many, in how many rows, and one of them."""
    if known is None:
        return {"codes": 0, "rows": 0, "example": None, "meant": None}
    codes = set(known)
    lengths = {len(code) for code in codes}
    unknown = sorted({code for row in true for code in row} - codes)
    meant = {code: full for code in unknown for n in lengths if (full := code.zfill(n)) in codes}
    example = next(iter(meant), unknown[0] if unknown else None)
    return {
        "codes": len(unknown),
        "rows": sum(not codes.issuperset(row) for row in true),
        "example": example,
        "meant": meant.get(example),
    }


def _first_codes(coded: Coded) -> list[tuple[str, ...]]:
    return [(code,) for code in coded.codes[:, 0, 0].tolist()]


def _top_k(coded: Coded, true: Sequence[tuple[str, ...]], k: int) -> dict[str, float]:
    """Share of rows, in percent, whose true codes are all among the first k codes that the model thinks of."""
    ordered = coded.codes.reshape(len(true), -1).tolist()
    found = [set(codes) <= set(list(dict.fromkeys(filter(None, row)))[:k]) for row, codes in zip(ordered, true)]
    return {"k": k, "all_codes_found": 100 * float(np.mean(found))}


def _hierarchy(true: Sequence[tuple[str, ...]]) -> int | None:
    """Digits of the codes where all have the same number of them; None where the system is no hierarchy of digits."""
    distinct = {code for codes in true for code in codes if not code.startswith("-")}
    lengths = {len(code) for code in distinct}
    if len(lengths) != 1 or not all(code.isascii() and code.isdigit() for code in distinct):
        return None
    return lengths.pop()


def _thresholds(coded: Coded, true: Sequence[tuple[str, ...]], languages: Sequence[str]) -> dict[str, Threshold]:
    """The best threshold over all rows, and for each language with enough of them."""
    codes = coded.codes[:, 0]
    right = np.array([[code in wanted for code in row] for row, wanted in zip(codes.tolist(), map(set, true))])
    there = np.isfinite(coded.code_confidence[:, 0])
    numbers = np.array([len(set(wanted)) for wanted in true])
    found = {}
    names = np.array(languages, dtype=object)
    for language in (ALL_LANGUAGES, *sorted(set(languages))):
        rows = np.ones(len(true), dtype=bool) if language == ALL_LANGUAGES else names == language
        if rows.sum() >= _FEWEST_ROWS:
            cells = there & rows[:, None]
            threshold, f1 = best_threshold(coded.code_confidence[:, 0][cells], right[cells], int(numbers[rows].sum()))
            found[language] = Threshold(threshold, f1, int(rows.sum()))
    return found
