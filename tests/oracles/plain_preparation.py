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

# Of the languages that the tests use.
LANGUAGES = {"": "unk", "German": "ge", "DE": "ge", "sv": "se"}


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
    short_codes: tuple[str, ...] = (),
    pad_codes: bool = False,
    split_by: str | None = None,
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
            record[column] = record[column].strip()
            spelt = record[column].lower()
            if record[column] not in short_codes and not keep_missing_spellings and spelt in MISSING:
                record[column] = ""
        records.append((number, record))

    for column in columns:
        decimals = {record[column] for _, record in records if "." in record[column]}
        if all(map(is_whole_float, decimals)):
            for _, record in records:
                record[column] = record[column].split(".")[0]
        for _, record in records:
            code = record[column]
            if pad_codes and code not in short_codes and code.isascii() and code.isdigit():
                record[column] = "0" * (formatter.block_size - len(code)) + code

    rows, groups = [], []
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
            if 3 in tokens and code not in short_codes and not (i == 0 and code == "?"):
                result.short_rows.add(number)
        if bad:
            result.bad_rows.add(number)
            continue
        spoken = language if language_col is None else record[language_col]
        rows.append([record[input_col], *codes, LANGUAGES.get(spoken.strip(), spoken)])
        groups.append(record[input_col if split_by == "description" else split_by or input_col])
        for code in codes:
            if code and code not in result.key:
                result.key[code] = len(result.key)

    n_val = int(len(rows) * share_val)
    if split_by is None:
        drawn = np.random.RandomState(42).choice(len(rows), size=n_val, replace=False).tolist()
    else:
        drawn = draw_groups(groups, n_val)
    result.val = [rows[i] for i in drawn]
    chosen = set(drawn)
    result.train = [row for i, row in enumerate(rows) if i not in chosen]
    return result


def draw_groups(groups: list[str], n_val: int) -> list[int]:
    """Whole groups in random order, each that still fits; none where there is one group alone."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2 or not n_val:
        return []
    chosen: set[str] = set()
    for i in np.random.RandomState(42).permutation(len(names)):
        if sum(group in chosen or group == names[i] for group in groups) <= n_val:
            chosen.add(names[i])
    chosen = chosen or {min(names, key=groups.count)}
    return [i for i, group in enumerate(groups) if group in chosen]


def is_whole_float(code: str) -> bool:
    whole, _, decimals = code.partition(".")
    digits = whole[1:] if whole.startswith("-") else whole
    return digits.isascii() and digits.isdigit() and decimals != "" and set(decimals) == {"0"}


def write_plain(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
