"""What is wrong with a table: judged once per distinct code, then counted for all rows with integer arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from histocc.files.missing import MISSING_SPELLINGS
from histocc.formatter import EOS_IDX, BlockyFormatter
from histocc.preparation.table import Interner, Table

UNKNOWN_CODE = "?"
EXAMPLES = 10

WHOLE_FLOAT = re.compile(r"(-?[0-9]+)\.0+")

UNKNOWN_CHARACTER = "unknown character"
TOO_LONG = "too long"
TOO_SHORT = "too short"
GAP = "a gap before a later code"
NO_TEXT = "missing text"


def is_missing(code: str, keep_spellings: bool = False) -> bool:
    """Whether a code cell says that there is no code; with `keep_spellings` only a blank one does."""
    stripped = code.strip()
    return not stripped or (not keep_spellings and stripped.lower() in MISSING_SPELLINGS)


def whole_floats(codes: Iterable[str]) -> dict[str, str]:
    """What codes such as `61110.0` stand for, if their column is one of floats, else nothing.

    A column is one of floats if all its codes with a decimal point end in `.0`: among `10.0` and `10.1` the point
    belongs to the code.
    """
    matches = {code: WHOLE_FLOAT.fullmatch(code) for code in codes if "." in code}
    return {code: match[1] for code, match in matches.items()} if all(matches.values()) else {}


@dataclass
class Labels:
    """The codes of a table after all spellings of "no code" are understood.

    Attributes
    ----------
    ids
        int32 [N, K], number of each cell's code in `codes`; -1 where there is none. A missing first code is `?`.
    codes
        The distinct codes.
    spellings
        How often each spelling of "no code" stands in the table.
    float_columns
        Per column of floats, the number of cells, and one of them as an example with its code.
    rows_without_first_code
        int.
    rows_without_code
        int, rows in which all K codes are missing.
    """

    ids: np.ndarray
    codes: list[str]
    spellings: dict[str, int]
    float_columns: dict[str, tuple[int, str, str]]
    rows_without_first_code: int
    rows_without_code: int


def understand(table: Table, target_cols: Sequence[str], keep_missing_spellings: bool = False) -> Labels:
    """Tell codes from spellings of "no code", and undo what floats did to codes; see `Labels`."""
    n_raw = len(table.code_values)
    known = Interner(table.code_values)
    ids = np.empty(table.codes.shape, dtype=np.int32, order="F")
    spellings: dict[str, int] = {}
    float_columns: dict[str, tuple[int, str, str]] = {}
    for j, column in enumerate(target_cols):
        counts = np.bincount(table.codes[:, j], minlength=n_raw)
        number_of = np.arange(n_raw, dtype=np.int32)
        present = []
        for i in np.flatnonzero(counts).tolist():
            code = table.code_values[i]
            if is_missing(code, keep_missing_spellings):
                number_of[i] = -1
                spellings[code] = spellings.get(code, 0) + int(counts[i])
            else:
                present.append(i)
        floats = whole_floats(table.code_values[i] for i in present)
        for code, meant in floats.items():
            number_of[known.index[code]] = known.number(meant)
        if floats:
            code, meant = next(iter(floats.items()))
            float_columns[column] = (int(sum(counts[known.index[c]] for c in floats)), code, meant)
        ids[:, j] = number_of[table.codes[:, j]]

    without_code = int((ids < 0).all(axis=1).sum())
    first_missing = ids[:, 0] < 0
    ids[first_missing, 0] = known.number(UNKNOWN_CODE)
    return Labels(ids, known.strings(), spellings, float_columns, int(first_missing.sum()), without_code)


@dataclass
class Fault:
    """One code's fault: which kind, and the words that explain it."""

    reason: str
    detail: str


def judge(code: str, formatter: BlockyFormatter) -> Fault | None:
    """What keeps a code from being written in one block; None if it fills the block."""
    separator = getattr(formatter, "within_block_sep", None)
    pieces = code.split(separator) if separator else list(code)
    what = "piece" if separator else "character"
    try:
        tokens = formatter.encode_block(code)
    except ValueError as error:
        unknown = next((piece for piece in pieces if piece not in formatter.map_char_idx), None)
        if unknown is not None:
            return Fault(UNKNOWN_CHARACTER, f"the {what} {unknown!r}{_hint(code, separator)}")
        if len(pieces) > formatter.block_size:
            return Fault(TOO_LONG, f"{len(pieces)} {what}s{_hint(code, separator)}")
        return Fault(UNKNOWN_CHARACTER, str(error))
    if EOS_IDX in tokens:
        return Fault(TOO_SHORT, f"{len(pieces)} {what}{'s' if len(pieces) != 1 else ''}")
    return None


def _hint(code: str, separator: str | None) -> str:
    """What may be behind a code that does not fit."""
    if code != code.strip():
        return "; remove the space around the code"
    if "," in code and not separator:
        return "; --use-within-block-sep splits codes at commas into parts; two codes need two columns"
    if re.search(r"[;/|\s]", code.strip()):
        return "; two codes need two columns"
    return ""


@dataclass
class Finding:
    """All cells with one kind of fault: int64 arrays of equal length, ordered by row, then column.

    Attributes
    ----------
    rows
        Position in the table, 0-based.
    columns
        Index of the code column, -1 for the text.
    """

    reason: str
    rows: np.ndarray
    columns: np.ndarray

    def where(self, good: np.ndarray) -> Finding:
        """The cells of those rows for which `good`, bool [N], holds."""
        kept = good[self.rows]
        return Finding(self.reason, self.rows[kept], self.columns[kept])


@dataclass
class Diagnosis:
    """What is wrong with a table.

    Attributes
    ----------
    findings
        The faults, without the short codes.
    short
        The cells whose code is shorter than the block; a first code of `?` may be.
    bad_rows
        bool [N], rows with any of `findings`.
    details
        Per distinct code, the words that explain its fault.
    """

    findings: list[Finding]
    short: Finding
    bad_rows: np.ndarray
    details: dict[str, str] = field(default_factory=dict)


def diagnose(table: Table, labels: Labels, formatter: BlockyFormatter) -> Diagnosis:
    """Find all rows that do not fit: each distinct code is judged once."""
    present = np.zeros(len(labels.codes) + 1, dtype=bool)
    present[labels.ids] = True
    # The last entry stands for -1, no code.
    faults = {i: judge(labels.codes[i], formatter) for i in np.flatnonzero(present[:-1]).tolist()}
    details = {labels.codes[i]: fault.detail for i, fault in faults.items() if fault is not None}

    def cells(reason: str) -> Finding:
        # No code is never at fault by itself.
        at_fault = np.zeros(len(labels.codes) + 1, dtype=bool)
        at_fault[[i for i, fault in faults.items() if fault is not None and fault.reason == reason]] = True
        if not at_fault.any():
            return Finding(reason, np.empty(0, np.int64), np.empty(0, np.int64))
        hit = at_fault[labels.ids]
        if reason == TOO_SHORT:
            hit[:, 0] &= np.array([value != UNKNOWN_CODE for value in labels.codes])[labels.ids[:, 0]]
        return Finding(reason, *np.nonzero(hit))

    missing = labels.ids < 0
    gap = ~missing & np.logical_or.accumulate(missing, axis=1) if labels.ids.shape[1] > 2 else np.empty((0, 0), bool)
    blank = np.empty(0, dtype=np.int64)
    if not all(map(str.strip, table.texts)):
        blank = np.flatnonzero([not text.strip() for text in table.texts])
    findings = [
        cells(UNKNOWN_CHARACTER),
        cells(TOO_LONG),
        Finding(GAP, *np.nonzero(gap)),
        Finding(NO_TEXT, blank, np.full(len(blank), -1, dtype=np.int64)),
    ]
    bad_rows = np.zeros(len(table), dtype=bool)
    for finding in findings:
        bad_rows[finding.rows] = True
    return Diagnosis([f for f in findings if len(f.rows)], cells(TOO_SHORT), bad_rows, details)


def describe(
    finding: Finding, table: Table, diagnosis: Diagnosis, labels: Labels, input_col: str, target_cols: Sequence[str]
) -> str:
    """One kind of fault in words: how many rows, and up to ten examples with row, column and value."""
    rows = np.unique(finding.rows)
    lines = [f"{finding.reason}: {count(len(rows), 'row')}"]
    for row, column in zip(finding.rows[:EXAMPLES].tolist(), finding.columns[:EXAMPLES].tolist()):
        where = f"row {table.row_numbers[row]}"
        if column < 0:
            lines.append(f"  {where}, column {input_col!r}: {table.texts[row]!r}")
            continue
        value = table.code_values[table.codes[row, column]]
        if finding.reason == GAP:
            empty = int(np.argmax(labels.ids[row] < 0))
            detail = f"column {target_cols[empty]!r} before it has no code"
        else:
            code = labels.codes[labels.ids[row, column]]
            detail = diagnosis.details[code] + (f", read as {code!r}" if code != value else "")
        lines.append(f"  {where}, column {target_cols[column]!r}: {value!r} ({detail})")
    if len(finding.rows) > EXAMPLES:
        lines.append(f"  and {len(finding.rows) - EXAMPLES:,} more")
    return "\n".join(lines)


def count(n: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
