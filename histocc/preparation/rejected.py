"""Rows that do not fit: the message that refuses them, and the file that lists every one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from histocc.errors import UsageError
from histocc.files.csv_lines import csv_text
from histocc.files.run_folder import REJECTED_ROWS
from histocc.formatter import BlockyFormatter
from histocc.preparation.diagnosis import (
    TOO_SHORT,
    Diagnosis,
    Finding,
    Labels,
    Remedies,
    count,
    describe,
    near_duplicates,
)
from histocc.preparation.table import Table
from histocc.preparation.writing import CHUNK_ROWS, write_together

MOST_GROUPS = 3


def refuse(
    table: Table,
    labels: Labels,
    diagnosis: Diagnosis,
    refused: Sequence[Finding],
    formatter: BlockyFormatter,
    input_col: str,
    save_path: Path,
) -> UsageError:
    """What to raise for a table with rows that do not fit; all of them are listed in a file in `save_path`.

    Parameters
    ----------
    table
        The table.
    labels
        Its codes.
    diagnosis
        All that is wrong with it.
    refused
        What stands against preparing it, the short codes last.
    formatter
        Its blocks decide which codes fit.
    input_col
        Column of the descriptions.
    save_path
        Folder of the list; made if needed.
    """
    columns = formatter.target_cols
    bad_rows = np.unique(np.concatenate([finding.rows for finding in refused]))
    do = "does" if len(bad_rows) == 1 else "do"
    lines = [f"{len(bad_rows):,} of {count(len(table), 'row')} of {table.title} {do} not fit (the header is row 1):"]
    for finding in refused:
        text = describe(finding, table, diagnosis, labels, input_col, columns)
        lines += ["  " + line for line in text.splitlines()]
    lines += list_rejected(save_path, table, refused, input_col, columns)
    short = refused[-1] if refused[-1].reason == TOO_SHORT else None
    others = refused[:-1] if short is not None else refused
    if others:
        left_out = len(np.unique(np.concatenate([finding.rows for finding in others])))
        if diagnosis.bad_rows.all():
            lines.append("Correct these rows.")
        elif short is None:
            lines.append("Correct these rows, or leave them out with --drop-bad-labels.")
        else:
            lines.append(
                f"Correct these rows. --drop-bad-labels leaves out {count(left_out, 'row')}: not those that are only "
                f"too short."
            )
    if short is not None:
        lines.append(
            f"Codes shorter than the block size of {formatter.block_size} often come from lost leading zeros: "
            f"restore them (--pad-codes fills digits up), choose another --block-size, name those that are short on "
            f"purpose (--short-codes -1 -2), or accept all short codes with --allow-codes-shorter-than-block-size."
        )
    lines += duplicates_notes(labels, formatter)
    return UsageError("\n".join(lines))


def nothing_left(
    table: Table, diagnosis: Diagnosis, input_col: str, target_cols: Sequence[str], save_path: Path
) -> UsageError:
    """What to raise where no row would be left."""
    reasons = ", ".join(f"{f.reason} {len(np.unique(f.rows)):,}" for f in diagnosis.findings)
    lines = [f"No row of {table.title} would be left, all {len(table):,} do not fit: {reasons}"]
    return UsageError("\n".join(lines + list_rejected(save_path, table, diagnosis.findings, input_col, target_cols)))


def list_rejected(
    save_path: Path, table: Table, findings: Sequence[Finding], input_col: str, target_cols: Sequence[str]
) -> list[str]:
    """Write the list into a folder where nothing else is written; returns the line that names it, if that worked."""
    # What is wrong with the table is to be told even where the list of it cannot be kept.
    with suppress(UsageError):
        write = {REJECTED_ROWS: lambda path: write_rejected(path, table, findings, input_col, target_cols)}
        write_together(save_path, write)
        return [f"All of them are listed in {save_path / REJECTED_ROWS}."]
    return []


def write_rejected(
    path: Path, table: Table, findings: Sequence[Finding], input_col: str, target_cols: Sequence[str]
) -> None:
    """One line for each fault, ordered by row: where, what, why and what to do, then text and codes as they were."""
    names = [*target_cols, input_col]  # the text is column -1
    reasons = sorted({finding.reason for finding in findings})
    rows = np.concatenate([finding.rows for finding in findings])
    columns = np.concatenate([finding.columns for finding in findings])
    kinds = np.concatenate([np.full(len(finding.rows), reasons.index(finding.reason)) for finding in findings])
    order = np.lexsort((kinds, columns, rows))
    files = ["file"] if table.second is not None else []
    remedies = Remedies(table, len(target_cols))
    with path.open("wb") as file:
        file.write(csv_text([[*files, "row", "column", "value", "reason", "remedy", input_col, *target_cols]]).encode())
        # Where leading zeros are lost, most of a table's rows are here.
        for start in range(0, len(order), CHUNK_ROWS):
            chunk = order[start : start + CHUNK_ROWS]
            lines = []
            for row, column, kind in zip(rows[chunk].tolist(), columns[chunk].tolist(), kinds[chunk].tolist()):
                codes = [table.code_values[i] for i in table.codes[row].tolist()]
                value = table.texts[row] if column < 0 else codes[column]
                where = [*([table.file_of(row)] if files else []), str(table.row_numbers[row]), names[column], value]
                remedy = remedies.of(reasons[kind], value, column)
                lines.append([*where, reasons[kind], remedy, table.texts[row], *codes])
            file.write(csv_text(lines).encode())


def duplicates_notes(labels: Labels, formatter: BlockyFormatter) -> list[str]:
    """A warning about codes of a table that are perhaps one code, and are different classes."""
    cells = np.bincount(labels.ids[labels.ids >= 0], minlength=len(labels.codes)).tolist()
    times = {code: n for code, n in zip(labels.codes, cells) if n}
    groups = near_duplicates(times, formatter.within_block_sep)
    if not groups:
        return []
    shown = "; ".join(
        ", ".join(f"{code!r} ({times[code]:,} times)" for code in group) for group in groups[:MOST_GROUPS]
    )
    more = f"; and {len(groups) - MOST_GROUPS:,} more" if len(groups) > MOST_GROUPS else ""
    remedy = ""
    if any(
        len({code.zfill(formatter.block_size) for code in group if code.isdigit()}) < len(group) for group in groups
    ):
        remedy = ", --pad-codes restores zeros"
    return [
        f"Warning: {count(len(groups), 'group')} of codes that differ only by leading zeros, case or a trailing .0 and "
        f"are codes of their own: {shown}{more}. If they mean the same, spell them alike{remedy}"
    ]
