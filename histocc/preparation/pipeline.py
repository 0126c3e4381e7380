"""From a user's table to `data_train.csv`, `data_val.csv` and `key.csv`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.csv_lines import csv_line
from histocc.files.folders import check_folder
from histocc.files.key import read_key, write_key
from histocc.files.run_folder import (
    KEY,
    PREPARATION_FACTS,
    PREPARED_FILES,
    REJECTED_ROWS,
    TRAINING_ROWS,
    VALIDATION_ROWS,
)
from histocc.files.tables import column_names, file_fault
from histocc.formatter import BlockyFormatter
from histocc.preparation.diagnosis import (
    EXAMPLES,
    TOO_SHORT,
    UNKNOWN_CODE,
    Diagnosis,
    Finding,
    Labels,
    count,
    describe,
    diagnose,
    is_missing,
    judge,
    understand,
    whole_floats,
)
from histocc.preparation.report import PreparationReport
from histocc.preparation.table import Table, read_column, read_table
from histocc.preparation.writing import SET_ASIDE, distinct_ends, write_table, write_together

if TYPE_CHECKING:
    import pandas as pd

    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles

TEXT_COLUMN, LANGUAGE_COLUMN = "occ1", "lang"
ALL_CODES_COLUMNS = ("pst2_1", "system_code", "code")
SPLIT_SEED = 42


def is_prepared(save_path: str | Path) -> bool:
    """Whether `data_train.csv`, `data_val.csv` and `key.csv` all stand in a folder."""
    # Unlike pathlib's, this says no where one may not look.
    return all(os.path.isfile(Path(save_path) / name) for name in PREPARED_FILES)


def prepare_finetuning_data(
    dataset: str | Path | pd.DataFrame | None,
    input_col: str,
    formatter: BlockyFormatter,
    save_path: str | Path,
    share_val: float,
    language: str = UNKNOWN_LANGUAGE,
    language_col: str | None = None,
    drop_bad_rows: bool = False,
    allow_codes_shorter_than_block_size: bool = False,
    **options: Any,
) -> dict[str, int]:
    """Prepare a table for fine-tuning and print what was done; arguments and errors as in `prepare`.

    Returns
    -------
    dict[str, int]
        The class index of each code, as in `key.csv`.
    """
    key, report = prepare(
        dataset,
        input_col,
        formatter,
        save_path,
        share_val,
        language,
        language_col,
        drop_bad_rows,
        allow_codes_shorter_than_block_size,
        **options,
    )
    console.say(report.summary())
    return key


def prepare(
    dataset: str | Path | pd.DataFrame | None,
    input_col: str,
    formatter: BlockyFormatter,
    save_path: str | Path,
    share_val: float,
    language: str = UNKNOWN_LANGUAGE,
    language_col: str | None = None,
    drop_bad_rows: bool = False,
    allow_codes_shorter_than_block_size: bool = False,
    *,
    keep_missing_spellings: bool = False,
    all_codes_file: str | Path | None = None,
    all_codes_col: str | None = None,
    before_writing: Callable[[], None] | None = None,
    progress: bool | None = None,
) -> tuple[dict[str, int], PreparationReport]:
    """Turn a table into `data_train.csv`, `data_val.csv` and `key.csv`, unless they all stand in `save_path` already.

    The files hold the columns `occ1`, the code columns and `lang`. A missing first code becomes `?`, any other missing
    code an empty cell. The validation rows are a fixed random draw, the training rows the rest in their order. Nothing
    in `save_path` is touched before the table is known to be good.

    Parameters
    ----------
    dataset
        A CSV file (UTF-8, commas), a Parquet file or a DataFrame; may be None if the files stand already.
    input_col
        Column of the occupational descriptions.
    formatter
        Its `target_cols` are the code columns, and its blocks decide which codes fit.
    save_path
        Folder for the files; made if needed.
    share_val
        Share of the rows for validation, above 0 and below 1.
    language
        The language of all rows.
    language_col
        Column with the language of each row, in place of `language`.
    drop_bad_rows
        Leave rows that do not fit out and list them in `rejected_rows.csv`.
    allow_codes_shorter_than_block_size
        Accept codes that do not fill the block.
    keep_missing_spellings
        Take `nan`, `NA`, `None`, `null`, `?` and the like in code columns as codes.
    all_codes_file
        A table (or a `.txt` file with a code per line) of codes that get a class although the data may
        lack them.
    all_codes_col
        Their column; by default `pst2_1`, `system_code`, `code` or the first.
    before_writing
        Called once the table is known to be good; what it raises keeps the files from being written.
    progress
        Show progress bars; None: for large tables.

    Returns
    -------
    tuple[dict[str, int], PreparationReport]
        The class index of each code, in order of first appearance in the table, and a report.

    Raises
    ------
    UsageError
        Naming all that is wrong with the arguments, or else with the table; `save_path` is as before.
    """
    save_path = Path(save_path)
    target_cols = list(formatter.target_cols)
    if is_prepared(save_path):
        notes = prepared_notes(
            save_path,
            dataset=dataset,
            target_cols=target_cols,
            share_val=share_val,
            input_col=input_col,
            language=language,
            language_col=language_col,
            block_size=formatter.block_size,
        )
        if all_codes_file is not None:
            notes.append("Warning: --all-codes-file has no effect on a key that is there already")
        key = read_key(save_path / KEY)
        return key, PreparationReport(str(save_path), reused=True, classes=len(key), notes=notes)

    check_arguments(dataset, input_col, target_cols, save_path, share_val, language, language_col)
    table = read_table(dataset, input_col, target_cols, language_col, language, progress)
    labels = understand(table, target_cols, keep_missing_spellings)
    if labels.rows_without_code == len(table):
        columns = ", ".join(map(repr, target_cols))
        raise UsageError(f"No row of {table.name} has a code in {columns}: name the code columns with --target-cols")
    diagnosis = diagnose(table, labels, formatter)
    kept = _kept_rows(
        table, labels, diagnosis, formatter, input_col, drop_bad_rows, allow_codes_shorter_than_block_size
    )
    train, val = _split(kept, share_val)
    short = diagnosis.short.where(~diagnosis.bad_rows)

    key = _number_codes(labels, kept)
    n_from_data = len(key)
    report = PreparationReport(
        save_path=str(save_path),
        rows_read=len(table),
        rows_train=len(train),
        rows_val=len(val),
        rows_dropped=len(table) - len(kept),
        rows_empty=table.empty_rows,
        dropped={finding.reason: len(np.unique(finding.rows)) for finding in diagnosis.findings},
        missing_spellings=labels.spellings,
        rows_without_first_code=labels.rows_without_first_code,
        rows_short=len(np.unique(short.rows)),
        float_cells=sum(cells for cells, _, _ in labels.float_columns.values()),
    )
    if all_codes_file is not None:
        report.notes += _add_codes(key, all_codes_file, all_codes_col, formatter, keep_missing_spellings)
    report.classes, report.codes_added = len(key), len(key) - n_from_data
    report.notes = [*_notes(table, labels, short, report, language, language_col), *report.notes]
    replaced = [name for name in PREPARED_FILES if (save_path / name).exists()]
    report.notes += [
        f"{name} from before is now {name}{SET_ASIDE}, for not all of {', '.join(PREPARED_FILES)} were there"
        for name in replaced
    ]

    if before_writing is not None:
        before_writing()
    header = [TEXT_COLUMN, *target_cols, LANGUAGE_COLUMN]
    # The empty string stands behind the codes, where the number -1 of a missing code finds it.
    values = [*labels.codes, ""]
    code_numbers = np.where(labels.ids < 0, len(labels.codes), labels.ids)
    ends, end_ids = distinct_ends(
        [*((values, code_numbers[:, j]) for j in range(len(target_cols))), (table.language_values, table.languages)]
    )
    facts = {
        "dataset": str(Path(dataset).absolute()) if isinstance(dataset, (str, Path)) else None,
        "dataset_state": _file_state(dataset),
        "input_col": input_col,
        "target_cols": target_cols,
        "language": language,
        "language_col": language_col,
        "share_val": share_val,
        "block_size": formatter.block_size,
        "rows_read": report.rows_read,
        "rows_train": report.rows_train,
        "rows_val": report.rows_val,
        "rows_dropped": report.rows_dropped,
        "classes": report.classes,
    }
    files = {
        TRAINING_ROWS: lambda path: write_table(path, header, table.texts, train, ends, end_ids, progress),
        VALIDATION_ROWS: lambda path: write_table(path, header, table.texts, val, ends, end_ids, progress),
        PREPARATION_FACTS: lambda path: path.write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8"
        ),
    }
    if report.rows_dropped:
        files[REJECTED_ROWS] = lambda path: _write_rejected(path, table, diagnosis, input_col, target_cols)
    files[KEY] = lambda path: write_key(key, path)
    write_together(save_path, files, obsolete=[] if report.rows_dropped else [REJECTED_ROWS], kept=replaced)
    return key, report


def prepared_notes(
    save_path: str | Path,
    *,
    dataset: str | Path | pd.DataFrame | None = None,
    target_cols: Sequence[str] | None = None,
    share_val: float | None = None,
    input_col: str | None = None,
    language: str | None = None,
    language_col: str | None = None,
    block_size: int | None = None,
) -> list[str]:
    """Lines about a prepared folder: that it is used as it is, and which arguments disagree with what is there.

    Arguments that are None, or at the default of `finetune.py` for a column or language, are not compared: who goes on
    with a prepared folder need not name the table. Folders prepared by older versions lack the facts for some
    comparisons.

    Raises
    ------
    UsageError
        If the prepared files lack a code column.
    """
    save_path = Path(save_path)
    notes = [
        f"{', '.join(PREPARED_FILES)} in {save_path} are used as they are, with any edits; "
        f"move or delete them to prepare the table again"
    ]
    facts = _read_facts(save_path)
    if target_cols is not None:
        present = column_names(save_path / TRAINING_ROWS)
        absent = [column for column in target_cols if column not in present]
        there = facts.get("target_cols") or [c for c in present if c not in (TEXT_COLUMN, LANGUAGE_COLUMN)]
        if absent:
            raise UsageError(
                f"The prepared {save_path / TRAINING_ROWS} has no column {', '.join(map(repr, absent))}: it was "
                f"prepared with --target-cols {' '.join(there)}. Use these, or choose another --save-path"
            )
        if list(target_cols) != list(there):
            notes.append(
                f"Warning: prepared with --target-cols {' '.join(there)}, now {' '.join(target_cols)}: "
                f"the key and the rows stay as they were prepared"
            )
    table = str(Path(dataset).absolute()) if isinstance(dataset, (str, Path)) else None
    states = facts.get("dataset_state"), _file_state(dataset)
    if facts.get("dataset") == table and None not in states and states[0] != states[1]:
        notes.append(
            f"Warning: {dataset} has another size or date than when it was prepared; what changed there has no effect "
            f"unless the table is prepared again"
        )
    compared = {
        "dataset": table,
        "share_val": None if share_val is None else float(share_val),
        "input_col": None if input_col == TEXT_COLUMN else input_col,
        "language": None if language == UNKNOWN_LANGUAGE else language,
        "language_col": language_col,
    }
    for name, now in compared.items():
        before = facts.get(name)
        # A folder prepared by an older version, or from a DataFrame, does not say; one without a language column does.
        if now is None or name not in facts or before == now or (before is None and name != "language_col"):
            continue
        flag = "--" + name.replace("_", "-")
        prepared = f"prepared with {flag} {before}" if before is not None else f"prepared without {flag}"
        notes.append(f"Warning: {prepared}; {flag} {dataset if name == 'dataset' else now} has no effect")
    if block_size is not None and facts.get("block_size", block_size) != block_size:
        notes.append(
            f"Warning: prepared with --block-size {facts['block_size']}, now {block_size}: the codes were looked at "
            f"for blocks of {facts['block_size']}"
        )
    return notes


def _file_state(dataset: Any) -> list[int] | None:
    """Size and time of the last change of a file, which tell whether it is another one; None for a DataFrame."""
    if not isinstance(dataset, (str, Path)):
        return None
    try:
        status = Path(dataset).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def setup_finetuning_datasets(
    target_cols: Sequence[str],
    save_path: str | Path,
    formatter: BlockyFormatter,
    tokenizer: Any,
    num_classes_flat: int,
    map_code_label: Mapping[str, int],
    *,
    max_input_len: int = 128,
    **options: Any,
) -> tuple[OccDatasetMixerInMemMultipleFiles, OccDatasetMixerInMemMultipleFiles]:
    """The data sets for training and validation of a prepared folder.

    Parameters
    ----------
    target_cols
        The code columns.
    save_path
        Folder with `data_train.csv` and `data_val.csv`.
    formatter
        Makes the targets of the decoder.
    tokenizer
        As for `OccDatasetMixerInMemMultipleFiles`.
    num_classes_flat
        C, number of classes.
    map_code_label
        Class index of each code.
    max_input_len
        L, ids of a row.
    options
        More arguments of the training data set, such as `seed` and the descriptions.

    Raises
    ------
    UsageError
        All that is wrong with the two files, which people may have edited.
    """
    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles

    common: dict[str, Any] = {
        "formatter": formatter,
        "tokenizer": tokenizer,
        "max_input_len": max_input_len,
        "num_classes_flat": num_classes_flat,
        "target_cols": list(target_cols),
        "map_code_label": dict(map_code_label),
    }
    folder = Path(save_path)
    problems = Problems()
    train = problems.run(
        OccDatasetMixerInMemMultipleFiles, [str(folder / TRAINING_ROWS)], training=True, **common, **options
    )
    val = problems.run(OccDatasetMixerInMemMultipleFiles, [str(folder / VALIDATION_ROWS)], training=False, **common)
    problems.raise_if_any()
    return train, val


def check_arguments(
    dataset: str | Path | pd.DataFrame | None,
    input_col: str,
    target_cols: Sequence[str],
    save_path: str | Path,
    share_val: float,
    language: str = UNKNOWN_LANGUAGE,
    language_col: str | None = None,
) -> None:
    """Look at arguments of `prepare` for a folder that is not prepared: everything that can be said without the table.

    Raises
    ------
    UsageError
        Naming all that is wrong with them.
    """
    problems = Problems()
    save_path = Path(save_path)
    if dataset is None:
        absent = [name for name in PREPARED_FILES if not (save_path / name).is_file()]
        problems.add(f"{save_path} lacks {', '.join(absent)}: name the table to prepare with --dataset")
    elif isinstance(dataset, (str, Path)):
        fault = file_fault(Path(dataset))
        if fault:
            problems.add(fault)
    for column in dict.fromkeys(target_cols):
        if list(target_cols).count(column) > 1:
            problems.add(f"The code column {column!r} is named {list(target_cols).count(column)} times: name it once")
        if column == input_col:
            problems.add(f"Column {column!r} cannot be both the text (--input-col) and a code column (--target-cols)")
        elif column in (TEXT_COLUMN, LANGUAGE_COLUMN):
            problems.add(f"A code column cannot be called {column!r}, the prepared files use that name: rename it")
    if language_col is not None and language != UNKNOWN_LANGUAGE:
        problems.add(
            f"Both --language {language} and --language-col {language_col} are given: the language is either one for "
            f"the whole table or in a column"
        )
    if language_col == input_col:
        problems.add(f"Column {input_col!r} cannot be both the text (--input-col) and the language (--language-col)")
    if not 0 < share_val < 1:
        problems.add(f"--share-val is {share_val}; it must lie in 0..1 without the ends (0.1 is a tenth of the rows)")
    problems.run(check_folder, save_path, "--save-path")
    problems.raise_if_any()


def _kept_rows(
    table: Table,
    labels: Labels,
    diagnosis: Diagnosis,
    formatter: BlockyFormatter,
    input_col: str,
    drop_bad_rows: bool,
    allow_short: bool,
) -> np.ndarray:
    """The rows to prepare, int64; a UsageError describes all rows that stand against it."""
    short = diagnosis.short.where(~diagnosis.bad_rows) if drop_bad_rows else diagnosis.short
    refused = [] if drop_bad_rows else list(diagnosis.findings)
    if not allow_short and len(short.rows):
        refused.append(short)

    if refused:
        bad_rows = np.unique(np.concatenate([finding.rows for finding in refused]))
        do = "does" if len(bad_rows) == 1 else "do"
        lines = [f"{len(bad_rows):,} of {count(len(table), 'row')} of {table.name} {do} not fit (the header is row 1):"]
        for finding in refused:
            text = describe(finding, table, diagnosis, labels, input_col, formatter.target_cols)
            lines += ["  " + line for line in text.splitlines()]
        if any(finding.reason != TOO_SHORT for finding in refused):
            lines.append("Correct these rows, or leave them out with --drop-bad-labels.")
        if refused[-1].reason == TOO_SHORT:
            lines.append(
                f"Codes shorter than the block size of {formatter.block_size} often come from lost leading zeros: "
                f"restore them, choose another --block-size, or accept short codes with "
                f"--allow-codes-shorter-than-block-size."
            )
        raise UsageError("\n".join(lines))

    kept = np.flatnonzero(~diagnosis.bad_rows)
    if not len(kept):
        reasons = ", ".join(f"{f.reason} {len(np.unique(f.rows)):,}" for f in diagnosis.findings)
        raise UsageError(f"No row of {table.name} would be left, all {len(table):,} do not fit: {reasons}")
    return kept


def _split(rows: np.ndarray, share_val: float) -> tuple[np.ndarray, np.ndarray]:
    """Training rows in order and validation rows as drawn, as `DataFrame.sample(n, random_state=42)` draws them."""
    n_val = int(len(rows) * share_val)
    if not n_val or n_val == len(rows):
        raise UsageError(
            f"{count(len(rows), 'row')} cannot be split: --share-val {share_val} gives {n_val} to validation and "
            f"{len(rows) - n_val} to training, and both need at least one; use more rows or another share"
        )
    drawn = np.random.RandomState(SPLIT_SEED).choice(len(rows), size=n_val, replace=False)
    in_train = np.ones(len(rows), dtype=bool)
    in_train[drawn] = False
    return rows[in_train], rows[drawn]


def _number_codes(labels: Labels, kept: np.ndarray) -> dict[str, int]:
    """Codes in order of first appearance, reading row by row, left to right."""
    ids = labels.ids[kept].ravel()
    # With repeated indices the last assignment stays: backwards, the first cell of each code. -1 fills the last entry.
    first = np.full(len(labels.codes) + 1, len(ids), dtype=np.int64)
    first[ids[::-1]] = np.arange(len(ids))[::-1]
    order = np.argsort(first[:-1], kind="stable")
    return {labels.codes[i]: rank for rank, i in enumerate(order[: (first[:-1] < len(ids)).sum()].tolist())}


def _add_codes(
    key: dict[str, int], path: str | Path, column: str | None, formatter: BlockyFormatter, keep_missing_spellings: bool
) -> list[str]:
    """Give the codes of a file that the key lacks the next classes; returns what to tell about it."""
    path = Path(path)
    if path.suffix.lower() == ".txt" and column is None:
        try:
            lines = path.read_text("utf-8-sig").splitlines()
            source, codes = "a code per line", list(dict.fromkeys(line.strip() for line in lines))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Cannot read --all-codes-file {path}: {error}") from None
    else:
        name, codes = read_column(path, column, ALL_CODES_COLUMNS)
        source = f"column {name!r}"
    # `?` is the class of rows without a first code, so a list of codes may name it.
    codes = [code for code in codes if code == UNKNOWN_CODE or not is_missing(code, keep_missing_spellings)]
    if not codes:
        raise UsageError(f"--all-codes-file {path} has no codes in {source}")
    floats = whole_floats(codes)
    codes = [floats.get(code, code) for code in codes]
    added = [code for code in dict.fromkeys(codes) if code not in key]
    key.update(zip(added, range(len(key), len(key) + len(added))))
    notes = [f"{count(len(added), 'code')} that the data lack added from {path} ({source})"]
    unfit = [code for code in added if (fault := judge(code, formatter)) is not None and fault.reason != TOO_SHORT]
    if unfit:
        notes.append(
            f"Warning: {count(len(unfit), 'code')} of {path} cannot be written in a block of {formatter.block_size}, "
            f"such as {unfit[0]!r}: is it the right column (--all-codes-col)?"
        )
    return notes


def _notes(
    table: Table, labels: Labels, short: Finding, report: PreparationReport, language: str, language_col: str | None
) -> list[str]:
    """What happened to the table that its owner should know."""
    notes = []
    for column, (cells, code, meant) in labels.float_columns.items():
        notes.append(f"Column {column!r} holds decimal numbers: {code} is taken as the code {meant} ({cells:,} cells)")
    if labels.spellings:
        spelt = ", ".join(f"{s!r} {n:,} times" if s else f"empty {n:,} times" for s, n in labels.spellings.items())
        kept = "" if all(not s.strip() for s in labels.spellings) else " (--keep-missing-spellings makes codes of them)"
        notes.append(f"Read as no code: {spelt}{kept}")
    if labels.rows_without_first_code:
        notes.append(
            f"{count(labels.rows_without_first_code, 'row')} without a first code: it becomes {UNKNOWN_CODE!r}"
        )
    if report.rows_short:
        notes.append(
            f"{count(report.rows_short, 'row')} with a code shorter than the block, accepted as asked: "
            f"{_most_frequent(short, table)}"
        )
    if report.rows_dropped:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in report.dropped.items())
        notes.append(f"{count(report.rows_dropped, 'row')} left out, listed in {REJECTED_ROWS}: {reasons}")
    if report.rows_empty:
        notes.append(f"{count(report.rows_empty, 'empty row')} passed over")
    if table.unticked_rows:
        notes.append(f"{count(table.unticked_rows, 'row')} of a review that nobody ticked passed over")
    if language_col is None and language == UNKNOWN_LANGUAGE and LANGUAGE_COLUMN in table.columns:
        notes.append(f"The table's column {LANGUAGE_COLUMN!r} is not used: --language-col {LANGUAGE_COLUMN} would")
    blank = [i for i, value in enumerate(table.language_values) if not value.strip()]
    rows_without_language = int(np.isin(table.languages, blank).sum()) if blank else 0
    if rows_without_language:
        notes.append(f"{count(rows_without_language, 'row')} without a language, left empty")
    broken = _with_line_breaks(table.texts)
    if broken:
        longest = max(broken, key=lambda row: table.texts[row].count("\n"))
        notes.append(
            f"Warning: {count(len(broken), 'row')} with a text of several lines, row {table.row_numbers[longest]} of "
            f"{table.texts[longest].count(chr(10)) + 1}: a quotation mark that is never closed makes one text of many "
            f"rows; where a mark belongs to a text, the text stands in marks and the mark is written twice"
        )
    return notes


def _most_frequent(finding: Finding, table: Table) -> str:
    """The values of a finding's cells with their numbers, the most frequent first, at most ten."""
    values, counts = np.unique(table.codes[finding.rows, finding.columns], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [f"{table.code_values[values[i]]!r} {counts[i]:,} times" for i in order[:EXAMPLES].tolist()]
    return ", ".join(shown) + (f" and {len(order) - EXAMPLES:,} others" if len(order) > EXAMPLES else "")


def _with_line_breaks(texts: Sequence[str]) -> list[int]:
    """Positions of the texts of several lines."""
    step = 10_000
    found: list[int] = []
    for start in range(0, len(texts), step):
        # One search in the joined texts costs a fraction of a search in each.
        if "\n" in "".join(texts[start : start + step]):
            found += [i for i in range(start, min(start + step, len(texts))) if "\n" in texts[i]]
    return found


def _write_rejected(path: Path, table: Table, diagnosis: Diagnosis, input_col: str, target_cols: Sequence[str]) -> None:
    """One line for each fault, ordered by row: where, what and why, then the row's text and codes as they were."""
    names = [*target_cols, input_col]  # the text is column -1
    faults = sorted(
        (row, column, finding.reason)
        for finding in diagnosis.findings
        for row, column in zip(finding.rows.tolist(), finding.columns.tolist())
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(["row", "reason", "column", "value", input_col, *target_cols]))
        for row, column, reason in faults:
            codes = [table.code_values[i] for i in table.codes[row].tolist()]
            value = table.texts[row] if column < 0 else codes[column]
            number = str(table.row_numbers[row])
            file.write(csv_line([number, reason, names[column], value, table.texts[row], *codes]))


def _read_facts(save_path: Path) -> dict[str, Any]:
    """What was noted when a folder was prepared; empty for folders of older versions."""
    try:
        facts = json.loads((save_path / PREPARATION_FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
