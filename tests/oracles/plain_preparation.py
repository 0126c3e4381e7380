"""Preparation row by row, the way one would write it first: slow and easy to check."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MISSING = {
    "?",
    "??",
    ".",
    "-",
    "--",
    "n.a.",
    "nan",
    "-nan",
    "none",
    "null",
    "na",
    "#na",
    "<na>",
    "n/a",
    "#n/a",
    "#n/a n/a",
}


@dataclass
class Plain:
    header: list[str]
    train: list[list[str]] = field(default_factory=list)
    val: list[list[str]] = field(default_factory=list)
    key: dict[str, int] = field(default_factory=dict)
    bad_rows: set[int] = field(default_factory=set)
    short_rows: set[int] = field(default_factory=set)
    empty_rows: int = 0
    has_codes: bool = False


def plain_prepare(
    path: Path,
    input_col: str,
    formatter,
    share_val: float,
    language: str = "unk",
    language_col: str | None = None,
    keep_missing_spellings: bool = False,
) -> Plain:
    """Rows that do not fit are left out and reported by their number in the file; short codes are accepted."""
    columns = list(formatter.target_cols)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        numbered = list(enumerate(reader, start=2))
    result = Plain(["occ1", *columns, "lang"])
    records = []
    for number, values in numbered:
        if not any(value.strip() for value in values):
            result.empty_rows += 1
            continue
        record = dict(zip(header, values + [""] * (len(header) - len(values))))
        for column in columns:
            spelt = record[column].strip().lower()
            if not spelt or (not keep_missing_spellings and spelt in MISSING):
                record[column] = ""
        records.append((number, record))

    for column in columns:
        decimals = {record[column] for _, record in records if "." in record[column]}
        if all(map(is_whole_float, decimals)):
            for _, record in records:
                record[column] = record[column].split(".")[0]

    rows = []
    for number, record in records:
        codes = [record[column] for column in columns]
        result.has_codes = result.has_codes or any(codes)
        codes[0] = codes[0] or "?"
        bad = not record[input_col].strip()
        for i, code in enumerate(codes):
            if not code:
                bad = bad or any(codes[i:])
                continue
            try:
                tokens = formatter.encode_block(code)
            except ValueError:
                bad = True
                continue
            if 3 in tokens and not (i == 0 and code == "?"):
                result.short_rows.add(number)
        if bad:
            result.bad_rows.add(number)
            continue
        rows.append([record[input_col], *codes, language if language_col is None else record[language_col]])
        for code in codes:
            if code and code not in result.key:
                result.key[code] = len(result.key)

    drawn = np.random.RandomState(42).choice(len(rows), size=int(len(rows) * share_val), replace=False).tolist()
    result.val = [rows[i] for i in drawn]
    chosen = set(drawn)
    result.train = [row for i, row in enumerate(rows) if i not in chosen]
    return result


def is_whole_float(code: str) -> bool:
    whole, _, decimals = code.partition(".")
    digits = whole[1:] if whole.startswith("-") else whole
    return digits.isascii() and digits.isdigit() and decimals != "" and set(decimals) == {"0"}


def write_plain(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
