"""Rows to be checked by hand: some at random, which show how good the codes are, and some that teach a model most."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histocc.files.atomic import write_atomically
from histocc.files.review import CHECKED, SAMPLE
from histocc.files.spreadsheet_text import marked_text
from histocc.prediction.coder import Coded
from histocc.prediction.pairs import Pairs

RANDOM, LEAST_SURE = "random", "least sure"
TEXT, LANGUAGE = "occ1", "lang"


def choose_rows(
    pair_of_row: np.ndarray, confidence: np.ndarray, rows_of_pair: Sequence[int], number: int, seed: int = 42
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for a review.

    Parameters
    ----------
    pair_of_row
        Pair of each row of the table, integers [rows]; negative where it has no text.
    confidence
        Of each pair, float [P].
    rows_of_pair
        How many rows have each pair, [P].
    number
        Rows to choose, or all if there are fewer.
    seed
        Of the random half.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        Positions of rows drawn at random, each as likely as any other; and of rows in which a mistake is likely and
        counts most: the first rows of the pairs with the largest (1 - confidence) times rows. Both ascending.
    """
    coded = np.flatnonzero(np.asarray(pair_of_row) >= 0)
    half = min(number - number // 2, len(coded))
    drawn = np.sort(np.random.Generator(np.random.PCG64(seed)).choice(coded, half, replace=False))
    doubt = (1 - np.nan_to_num(confidence)) * np.asarray(rows_of_pair)
    doubt[np.asarray(pair_of_row)[drawn]] = -1.0  # looked at already
    first_row = np.full(len(doubt), -1, dtype=np.int64)
    backwards = coded[::-1]
    first_row[np.asarray(pair_of_row)[backwards]] = backwards  # the last assignment stays
    doubt[first_row < 0] = -1.0
    chosen = np.argsort(-doubt, kind="stable")[: number // 2]
    return drawn, np.sort(first_row[chosen[doubt[chosen] >= 0]])


def write_review(
    path: Path,
    pairs: Pairs,
    pair_of_row: np.ndarray,
    coded: Coded,
    number: int,
    seed: int = 42,
    *,
    for_spreadsheets: bool = False,
) -> int:
    """Write the table to check: text, language, predicted codes to correct, and a column to tick; the rows written.

    With `for_spreadsheets` codes are marked as text, so that a spreadsheet keeps their leading zeros.

    Raises OSError if the file cannot be written; what was there before stays.
    """
    written = marked_text if for_spreadsheets else str
    confidence = coded.confidence[:, 0]
    drawn, doubtful = choose_rows(pair_of_row, confidence, pairs.rows, number, seed)
    codes = [f"code_{i + 1}" for i in range(coded.codes.shape[2])]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", TEXT, LANGUAGE, *codes, "confidence", "rows_alike", SAMPLE, CHECKED])
    for sample, rows in ((RANDOM, drawn), (LEAST_SURE, doubtful)):
        for row in rows.tolist():
            pair = int(pair_of_row[row])
            sure = "" if np.isnan(confidence[pair]) else f"{confidence[pair]:.4f}"
            writer.writerow(
                # The header of the table is its row 1.
                [
                    row + 2,
                    pairs.texts[pair],
                    pairs.languages[pair],
                    *(written(code) if code else "" for code in coded.codes[pair, 0]),
                    sure,
                    pairs.rows[pair],
                    sample,
                    "",
                ]
            )
    # The mark of UTF-8, which spreadsheets go by.
    encoding = "utf-8-sig" if for_spreadsheets else "utf-8"
    write_atomically(path, lambda file: file.write(out.getvalue().encode(encoding)))
    return len(drawn) + len(doubtful)
