"""What is wrong with a table: judged once per distinct code, then counted for all rows with integer arithmetic."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from histocc.files.entries import shown
from histocc.files.missing import MISSING_SPELLINGS
from histocc.files.spreadsheet_text import unmarked_text
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
UNCODED = "no first code"

REMEDIES = {
    UNKNOWN_CHARACTER: "correct the code; several codes belong in several columns",
    TOO_LONG: "correct the code, or set --block-size to the length of the longest code",
    TOO_SHORT: "restore lost leading zeros (--pad-codes), or name a code that is short on purpose in --short-codes",
    GAP: "move the code to the left, into the first column that has none",
    NO_TEXT: "fill in the description",
    UNCODED: f"code the description; without --drop-uncoded its code is {UNKNOWN_CODE!r}",
}
A_WORD = "a word where a code should be: correct it or leave the cell empty"
TWO_CODES = "two codes need two columns"
SEVERAL_CODES = "several codes need several columns"
_BETWEEN_CODES = re.compile(r"[\s/|;,&+]+")


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
class Repair:
    """What was done alike to many codes: how many cells, and one of them as an example, before and after."""

    cells: int
    before: str
    after: str


@dataclass(frozen=True)
class Spelling:
    """How codes are to be read.

    Attributes
    ----------
    keep_missing
        Words such as `NA` are codes.
    short_codes
        Codes that are shorter than the block on purpose; they are codes whatever they look like.
    pad_to
        Fill digits up to this length with leading zeros; None leaves them.
    """

    keep_missing: bool = False
    short_codes: frozenset[str] = frozenset()
    pad_to: int | None = None

    def is_missing(self, code: str) -> bool:
        """Whether a cell, without the blanks around it, holds no code."""
        return code not in self.short_codes and is_missing(code, self.keep_missing)

    def padded(self, code: str) -> str:
        """The code with the zeros that it lacks."""
        if self.pad_to is None or code in self.short_codes or not (code.isascii() and code.isdigit()):
            return code
        return code.zfill(self.pad_to)


@dataclass
class Labels:
    """The codes of a table after all spellings of "no code" are understood and the codes are repaired.

    Attributes
    ----------
    ids
        int32 [N, K], number of each cell's code in `codes`; -1 where there is none. A missing first code is `?`.
    codes
        The distinct codes.
    spellings
        How often each spelling of "no code" stands in the table.
    float_columns
        Per column of floats, what became of its codes.
    stripped
        The codes that lost the blanks around them; None if there was none.
    unmarked
        The codes that stood in the form `="06510"`; None if there was none.
    padded
        The codes that got leading zeros; None if there was none.
    uncoded
        int64 [n], rows without a first code.
    first_gaps
        int64 [n], rows without a first code that have a later one.
    rows_without_code
        int, rows in which all K codes are missing.
    """

    ids: np.ndarray
    codes: list[str]
    spellings: dict[str, int]
    float_columns: dict[str, Repair]
    stripped: Repair | None
    unmarked: Repair | None
    padded: Repair | None
    uncoded: np.ndarray
    first_gaps: np.ndarray
    rows_without_code: int


def understand(table: Table, target_cols: Sequence[str], spelling: Spelling) -> Labels:
    """Tell codes from spellings of "no code", and repair what spreadsheets did to codes; see `Labels`."""
    n_raw = len(table.code_values)
    known = Interner()
    ids = np.empty(table.codes.shape, dtype=np.int32, order="F")
    spellings: dict[str, int] = {}
    stripped: Repair | None = None
    unmarked: Repair | None = None
    padded: Repair | None = None
    float_columns: dict[str, Repair] = {}
    for j, column in enumerate(target_cols):
        counts = np.bincount(table.codes[:, j], minlength=n_raw)
        number_of = np.full(n_raw, -1, dtype=np.int32)
        present: dict[int, str] = {}
        for i in np.flatnonzero(counts).tolist():
            value = table.code_values[i]
            cell = value.strip()
            code = unmarked_text(cell).strip()
            if spelling.is_missing(code):
                spelt = value if code == cell else code
                spellings[spelt] = spellings.get(spelt, 0) + int(counts[i])
                continue
            present[i] = code
            if cell != value:
                stripped = _repaired(stripped, int(counts[i]), value, cell)
            if code != cell:
                unmarked = _repaired(unmarked, int(counts[i]), cell, code)
        floats = whole_floats(present.values())
        repaired: Repair | None = None
        for i, code in present.items():
            if code in floats:
                repaired = _repaired(repaired, int(counts[i]), code, floats[code])
                code = floats[code]
            filled = spelling.padded(code)
            if filled != code:
                padded = _repaired(padded, int(counts[i]), code, filled)
            number_of[i] = known.number(filled)
        if repaired is not None:
            float_columns[column] = repaired
        ids[:, j] = number_of[table.codes[:, j]]

    missing = ids < 0
    without_code = missing.all(axis=1)
    first_missing = missing[:, 0]
    first_gaps = np.flatnonzero(first_missing & ~without_code)
    ids[first_missing, 0] = known.number(UNKNOWN_CODE)
    return Labels(
        ids,
        known.strings(),
        spellings,
        float_columns,
        stripped,
        unmarked,
        padded,
        np.flatnonzero(first_missing),
        first_gaps,
        int(without_code.sum()),
    )


def _repaired(so_far: Repair | None, cells: int, before: str, after: str) -> Repair:
    return Repair(cells, before, after) if so_far is None else replace(so_far, cells=so_far.cells + cells)


def near_duplicates(codes: Iterable[str], separator: str | None = None) -> list[list[str]]:
    """Groups of codes that differ only by leading zeros, case or a trailing `.0`, in order of appearance.

    Parameters
    ----------
    codes
        Distinct codes.
    separator
        What stands between the parts of a code, each of which is compared.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for code in codes:
        pieces = code.split(separator) if separator else [code]
        groups.setdefault(tuple(map(_without_trifles, pieces)), []).append(code)
    return [group for group in groups.values() if len(group) > 1]


def _without_trifles(code: str) -> str:
    return re.sub(r"\.0+$", "", code).casefold().lstrip("0")


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
    if "," in code and not separator:
        return f"; --use-within-block-sep splits codes at commas into parts; {TWO_CODES}"
    if re.search(r"[;/|&+\s]", code):
        return f"; {TWO_CODES}"
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


def diagnose(
    table: Table,
    labels: Labels,
    formatter: BlockyFormatter,
    short_codes: Collection[str] = (),
    drop_uncoded: bool = False,
) -> Diagnosis:
    """Find all rows that do not fit: each distinct code is judged once; those of `short_codes` may be short.

    With `drop_uncoded` a row without a first code does not fit either, whatever else is wrong with it.
    """
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
            hit &= np.array([*(code not in short_codes for code in labels.codes), True])[labels.ids]
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
    short = cells(TOO_SHORT)
    if drop_uncoded:
        coded = np.ones(len(table), dtype=bool)
        coded[labels.uncoded] = False
        short = short.where(coded)
        findings = [finding.where(coded) for finding in findings]
        findings.append(Finding(UNCODED, labels.uncoded, np.zeros(len(labels.uncoded), dtype=np.int64)))
    bad_rows = np.zeros(len(table), dtype=bool)
    for finding in findings:
        bad_rows[finding.rows] = True
    return Diagnosis([f for f in findings if len(f.rows)], short, bad_rows, details)


class Remedies:
    """What to do about the cells of a table, in the light of the other codes of their columns."""

    def __init__(self, table: Table, n_columns: int) -> None:
        self._codes: list[set[str]] = []
        self._mostly_digits: list[bool] = []
        read = [_plain(value) for value in table.code_values]
        for j in range(n_columns):
            counts = np.bincount(table.codes[:, j], minlength=len(read)).tolist()
            cells = [(code, n) for code, n in zip(read, counts) if n and not is_missing(code)]
            self._codes.append({code for code, _ in cells})
            digits = sum(n for code, n in cells if code.removeprefix("-").isdigit())
            self._mostly_digits.append(2 * digits > sum(n for _, n in cells))

    def of(self, reason: str, value: str, column: int) -> str:
        """The remedy for a cell: its fault, its value as it stands in the table, and the index of its code column."""
        if reason not in (UNKNOWN_CHARACTER, TOO_LONG):
            return REMEDIES[reason]
        code = unmarked_text(value.strip()).strip()
        if self._mostly_digits[column] and "".join(code.split()).isalpha():
            return A_WORD
        parts = [_plain(part) for part in _BETWEEN_CODES.split(code)]
        if len(parts) > 1 and self._codes[column].issuperset(parts):
            return TWO_CODES if len(parts) == 2 else SEVERAL_CODES
        return REMEDIES[reason]


def _plain(value: str) -> str:
    """A code without what spreadsheets add to it: blanks around it, marks, the decimal of a whole number."""
    code = unmarked_text(value.strip()).strip()
    match = WHOLE_FLOAT.fullmatch(code)
    return match[1] if match else code


def describe(
    finding: Finding, table: Table, diagnosis: Diagnosis, labels: Labels, input_col: str, target_cols: Sequence[str]
) -> str:
    """One kind of fault in words: how many rows, and up to ten examples with row, column and value."""
    rows = np.unique(finding.rows)
    lines = [f"{finding.reason}: {count(len(rows), 'row')}"]
    for row, column in zip(finding.rows[:EXAMPLES].tolist(), finding.columns[:EXAMPLES].tolist()):
        where = table.place(row)
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
        lines.append(f"  {where}, column {target_cols[column]!r}: {shown(value)} ({detail})")
    if len(finding.rows) > EXAMPLES:
        lines.append(f"  and {len(finding.rows) - EXAMPLES:,} more")
    return "\n".join(lines)


def count(n: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
