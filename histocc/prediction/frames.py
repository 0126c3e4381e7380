"""Answers of a model as data frames, in the columns of the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

INPUT_COLUMN, LANGUAGE_COLUMN = "occ1", "lang"
MISSING_CODE = "nan"
NO_PREDICTION, NO_DESCRIPTION, UNKNOWN = "No pred", "Not provided", "Unknown code"


def best_frame(
    label: str,
    codes: Sequence[str],
    describe: Callable[[str], str],
    classes: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
) -> pd.DataFrame:
    """Columns `{label}_i, prob_i, desc_i` for the best classes, i from 1 on.

    Parameters
    ----------
    label
        What code columns are named after.
    codes
        The code of each class.
    describe
        The description of a code.
    classes, probabilities
        [n, k], best first.
    thresholds
        [n]; what is no more probable than this is left out.
    """
    shown = probabilities > thresholds[:, None]
    columns: dict[str, object] = {}
    for i in range(classes.shape[1]):
        # The original makes text of its first column alone, and so of what is missing in it.
        missing = MISSING_CODE if i == 0 else None
        column = [codes[c] if there else missing for c, there in zip(classes[:, i].tolist(), shown[:, i].tolist())]
        columns[f"{label}_{i + 1}"] = pd.Series(column, dtype=object)  # also where all are missing
        columns[f"prob_{i + 1}"] = np.where(shown[:, i], probabilities[:, i].astype(np.float64), np.nan)
        columns[f"desc_{i + 1}"] = [
            describe(codes[c]) if there else NO_PREDICTION
            for c, there in zip(classes[:, i].tolist(), shown[:, i].tolist())
        ]
    return pd.DataFrame(columns)


def codes_frame(label: str, rows: Sequence[Sequence[str]], describe: Callable[[str], str]) -> pd.DataFrame:
    """Columns `{label}_i, desc_i` up to the most codes of any row, at least one."""
    columns: dict[str, list[str]] = {}
    for i in range(max(1, max(map(len, rows), default=1))):
        column = [codes[i] if i < len(codes) else MISSING_CODE for codes in rows]
        columns[f"{label}_{i + 1}"] = column
        columns[f"desc_{i + 1}"] = [
            describe(code) if i < len(codes) else NO_PREDICTION for code, codes in zip(column, rows)
        ]
    return pd.DataFrame(columns)


def indicator_frame(label: str, codes: Sequence[str], indicators: np.ndarray) -> pd.DataFrame:
    """Columns `{label}_{code}` of 0 and 1, from booleans [n, C]."""
    return pd.DataFrame(indicators.astype(np.int64), columns=[f"{label}_{code}" for code in codes])


def with_inputs(frame: pd.DataFrame, inputs: Sequence[str], languages: Sequence[str] | None = None) -> pd.DataFrame:
    """The frame with what the model read in its first column; in front of it the languages, where there are some."""
    first = {} if languages is None else {LANGUAGE_COLUMN: list(languages)}
    first[INPUT_COLUMN] = list(inputs)
    return pd.concat([pd.DataFrame(first, index=frame.index), frame], axis=1)
