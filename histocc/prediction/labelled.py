"""Tables whose codes are known, by which a model is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histocc.errors import UsageError
from histocc.files.review import CHECKED, SAMPLE, is_review, is_ticked
from histocc.files.spreadsheet_text import unmarked_text
from histocc.files.tables import column_names, columns_fault, read_chunks
from histocc.prediction.languages import KnownLanguages
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.pairs import NO_TEXT, Pairs

# The column of descriptions in prepared files.
_TEXT = "occ1"
_NO_CODES = frozenset({"", "?"})


@dataclass
class Labelled:
    """A table with its true codes.

    Attributes
    ----------
    pairs
        Distinct pairs of text and language.
    pair_of_row
        Of each judged row, int32 [N].
    true
        The true codes of each judged row.
    samples
        In a review table, how each row was chosen; else empty.
    left_out
        Rows that are not judged, by reason.
    """

    pairs: Pairs
    pair_of_row: np.ndarray
    true: list[tuple[str, ...]]
    samples: list[str]
    left_out: dict[str, int]


def read_labelled(
    source: Path,
    input_col: str,
    target_cols: Sequence[str] | None,
    language_col: str | None,
    language: str,
    loaded: LoadedModel,
    known: KnownLanguages,
) -> Labelled:
    """Read a table; codes that the system writes as class indices are turned into codes.

    Parameters
    ----------
    source
        The table.
    input_col, target_cols
        Its columns of descriptions and of codes; by default the model's own.
    language_col, language
        Its column of languages, and the language of rows without one.
    loaded
        The model that is to be judged.
    known
        Reads the languages.

    Raises
    ------
    UsageError
        A column is missing, a cell holds no code, or no row can be judged.
    """
    names = column_names(source)
    targets = list(target_cols or loaded.system.columns)
    fault = columns_fault(str(source), names, targets, "Name the columns of the true codes with --target-cols")
    if fault:
        raise UsageError(fault)
    holds_classes = loaded.system.holds_classes and set(targets) <= set(loaded.system.columns)
    reviewed = is_review(names)
    language_col = language_col or ("lang" if reviewed else None)
    columns = [input_col, *targets, *([language_col] if language_col else [])]
    pairs, numbers, true, samples = Pairs(known), [], [], []
    left_out = {"without a text": 0, "without a true code": 0, "not ticked": 0}
    for chunk in read_chunks(source, list(dict.fromkeys(columns + ([CHECKED, SAMPLE] if reviewed else [])))):
        own = pairs.number(chunk, input_col, language_col, language)
        codes = list(zip(*(chunk[name].tolist() for name in targets)))
        ticked = chunk[CHECKED].tolist() if reviewed else None
        sample = chunk[SAMPLE].tolist() if reviewed else None
        for i, (number, cells) in enumerate(zip(own.tolist(), codes)):
            found = tuple(
                _code(unmarked_text(cell.strip()), holds_classes, loaded, source, int(chunk.row_numbers[i]))
                for cell in cells
                if unmarked_text(cell.strip()) not in _NO_CODES
            )
            if ticked is not None and not is_ticked(ticked[i]):
                left_out["not ticked"] += 1
            elif number == NO_TEXT:
                left_out["without a text"] += 1
            elif not found:
                left_out["without a true code"] += 1
            else:
                numbers.append(number)
                true.append(found)
                if sample is not None:
                    samples.append(sample[i])
    if not true:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "it has no rows"
        raise UsageError(f"no row of {source} can be judged: {reasons}")
    return Labelled(pairs, np.array(numbers, dtype=np.int32), true, samples, {k: v for k, v in left_out.items() if v})


def _code(cell: str, holds_classes: bool, loaded: LoadedModel, source: Path, row: int) -> str:
    if not holds_classes:
        return cell
    try:
        return loaded.system.formatter.code_from_class(int(float(cell)))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{source}, row {row}: {cell!r} is no class index of {loaded.system.name}: {error}") from error


def texts_of(paths: Sequence[str], column: str | None, otherwise: str) -> set[str]:
    """The descriptions of tables that were trained on.

    They stand in `column`; where that is None in `occ1`, as in prepared files, or in the column called `otherwise`.
    """
    texts: set[str] = set()
    for path in paths:
        name = column or (_TEXT if _TEXT in column_names(path) else otherwise)
        for chunk in read_chunks(path, [name]):
            texts.update(chunk[name].tolist())
    return texts
