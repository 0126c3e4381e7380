"""From a user's table to `data_train.csv`, `data_val.csv` and `key.csv`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.entries import shown
from histocc.files.folders import check_folder
from histocc.files.json_files import write_json
from histocc.files.key import read_key, write_key
from histocc.files.languages import LanguageNames, read_language_map
from histocc.files.run_folder import (
    CODE_FREQUENCIES,
    KEY,
    PREPARATION_FACTS,
    PREPARED_FILES,
    REJECTED_ROWS,
    TRAINING_ROWS,
    VALIDATION_ROWS,
)
from histocc.files.spreadsheet_text import unmarked_text
from histocc.files.tables import file_fault
from histocc.formatter import BlockyFormatter
from histocc.preparation.diagnosis import (
    EXAMPLES,
    TOO_SHORT,
    UNCODED,
    UNKNOWN_CODE,
    Finding,
    Labels,
    Repair,
    Spelling,
    count,
    diagnose,
    judge,
    understand,
    whole_floats,
)
from histocc.preparation.frequencies import Frequencies
from histocc.preparation.languages import with_known_languages
from histocc.preparation.prepared import (
    LANGUAGE_COLUMN,
    TEXT_COLUMN,
    check_overwrite,
    file_content,
    file_state,
    is_prepared,
    prepared_notes,
)
from histocc.preparation.rejected import duplicates_notes, nothing_left, refuse, write_rejected
from histocc.preparation.report import PreparationReport
from histocc.preparation.split import DESCRIPTION, group_split, judge_split, random_split
from histocc.preparation.table import Table, check_columns, join_tables, read_column, read_table
from histocc.preparation.writing import SET_ASIDE, write_table, write_together

if TYPE_CHECKING:
    import pandas as pd

    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles

ALL_CODES_COLUMNS = ("pst2_1", "system_code", "code")
# With more rows than this without a first code a model is likely to answer that there is none.
MANY_UNCODED = 0.1


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
    short_codes: Sequence[str] = (),
    pad_codes: bool = False,
    drop_uncoded: bool = False,
    all_codes_file: str | Path | None = None,
    all_codes_col: str | None = None,
    language_map: str | Path | None = None,
    split_by: str | None = None,
    val_data: str | Path | pd.DataFrame | None = None,
    overwrite: bool = False,
    keep_prepared: bool = False,
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
    short_codes
        Codes that are shorter than the block on purpose, such as `-1`.
    pad_codes
        Fill codes of digits up to the block with leading zeros, but for those of `short_codes`.
    drop_uncoded
        Leave rows without a first code out and list them in `rejected_rows.csv`.
    all_codes_file
        A table (or a `.txt` file with a code per line) of codes that get a class although the data may
        lack them.
    all_codes_col
        Their column; by default `pst2_1`, `system_code`, `code` or the first.
    language_map
        A table of two columns, how a language is spelt and the code that it means; it goes before the
        package's own, which knows ISO 639 codes and English names.
    split_by
        `description` keeps all rows of a text on one side, the name of a column all rows of each of its
        values.
    val_data
        A table whose rows validate, with the same columns, so that all of `dataset` trains.
    overwrite
        Prepare the table although the files stand already; these get the ending `.before`.
    keep_prepared
        Use files that stand already although they come from a table of other content.
    progress
        Show progress bars; None: for large tables.

    Returns
    -------
    tuple[dict[str, int], PreparationReport]
        The class index of each code, in order of first appearance in the table, and a report.

    Raises
    ------
    UsageError
        Naming all that is wrong with the arguments, or else with the table. Then `save_path` is as before,
        but for `rejected_rows.csv`, which lists every row that does not fit.
    """
    import pandas as pd

    save_path = Path(save_path)
    target_cols = list(formatter.target_cols)
    if is_prepared(save_path) and not overwrite:
        notes = prepared_notes(
            save_path,
            dataset=dataset,
            target_cols=target_cols,
            share_val=share_val,
            input_col=input_col,
            language=language,
            language_col=language_col,
            block_size=formatter.block_size,
            language_map=language_map,
            pad_codes=pad_codes,
            short_codes=short_codes,
            drop_uncoded=drop_uncoded,
            drop_bad_labels=drop_bad_rows,
            keep_missing_spellings=keep_missing_spellings,
            allow_codes_shorter_than_block_size=allow_codes_shorter_than_block_size,
            all_codes_file=all_codes_file,
            split_by=split_by,
            val_data=val_data,
            keep_prepared=keep_prepared,
        )
        key = read_key(save_path / KEY)
        return key, PreparationReport(str(save_path), reused=True, classes=len(key), notes=notes)

    problems = Problems()
    problems.run(
        check_arguments,
        dataset,
        input_col,
        target_cols,
        save_path,
        share_val,
        language,
        language_col,
        split_by=split_by,
        val_data=val_data,
    )
    problems.run(check_codes, formatter, short_codes, pad_codes)
    by_text = split_by is not None and split_by in (DESCRIPTION, input_col)
    group_col = None if by_text else split_by
    problems.run(check_columns, all_codes_file, [all_codes_col] if all_codes_col is not None else [])
    own_languages = problems.run(read_language_map, language_map) if language_map is not None else None
    if overwrite:
        problems.run(check_overwrite, save_path)
    problems.raise_if_any()
    spelling = Spelling(keep_missing_spellings, frozenset(short_codes), formatter.block_size if pad_codes else None)
    table = read_table(dataset, input_col, target_cols, language_col, language, progress, group_col)
    if val_data is not None:
        second = read_table(val_data, input_col, target_cols, language_col, language, progress)
        if second.name == table.name:
            # Files of one name in two folders, or two frames.
            is_file = isinstance(dataset, (str, Path))
            table = replace(table, name=str(dataset) if is_file else "the table to train on")
            second = replace(second, name=str(val_data) if is_file else "the table to validate on")
        table = join_tables(table, second)
    labels = understand(table, target_cols, spelling)
    report = PreparationReport(
        save_path=str(save_path),
        rows_read=len(table),
        rows_empty=table.empty_rows,
        missing_spellings=labels.spellings,
        rows_without_first_code=len(labels.uncoded),
        rows_first_gap=len(labels.first_gaps),
        float_cells=sum(repair.cells for repair in labels.float_columns.values()),
        stripped_cells=labels.stripped.cells if labels.stripped is not None else 0,
        unmarked_cells=labels.unmarked.cells if labels.unmarked is not None else 0,
        padded_cells=labels.padded.cells if labels.padded is not None else 0,
    )
    table = with_known_languages(table, LanguageNames(own_languages), report)
    if labels.rows_without_code == len(table):
        columns = ", ".join(map(repr, target_cols))
        raise UsageError(f"No row of {table.title} has a code in {columns}: name the code columns with --target-cols")
    diagnosis = diagnose(table, labels, formatter, short_codes, drop_uncoded)
    refused = [] if drop_bad_rows else [finding for finding in diagnosis.findings if finding.reason != UNCODED]
    short = diagnosis.short.where(~diagnosis.bad_rows) if drop_bad_rows else diagnosis.short
    if len(short.rows) and not allow_codes_shorter_than_block_size:
        refused.append(short)
    if refused:
        raise refuse(table, labels, diagnosis, refused, formatter, input_col, save_path)
    kept = np.flatnonzero(~diagnosis.bad_rows)
    if not len(kept):
        raise nothing_left(table, diagnosis, input_col, target_cols, save_path)
    text_ids = pd.factorize(np.array(table.texts, dtype=object))[0]
    if table.second is not None:
        train, val = _split_by_table(table, kept)
    elif split_by is not None:
        train, val = group_split(kept, text_ids if by_text else table.groups, share_val, split_by)
    else:
        train, val = random_split(kept, share_val)
    short = diagnosis.short.where(~diagnosis.bad_rows)

    key = _number_codes(labels, kept)
    n_from_data = len(key)
    report.rows_train, report.rows_val = len(train), len(val)
    report.rows_dropped = len(table) - len(kept)
    report.dropped = {finding.reason: len(np.unique(finding.rows)) for finding in diagnosis.findings}
    report.rows_short = len(np.unique(short.rows))
    header = [TEXT_COLUMN, *target_cols, LANGUAGE_COLUMN]
    # The empty string stands behind the codes, where the number -1 of a missing code finds it.
    codes = [*labels.codes, ""]
    columns = [*((codes, labels.ids[:, j]) for j in range(len(target_cols))), (table.language_values, table.languages)]
    frequencies = Frequencies.of(labels, kept)
    report.notes += frequencies.notes()
    judge_split(table, labels, train, val, text_ids, report)
    if group_col is not None:
        report.notes += _group_notes(table, val, group_col)
    if all_codes_file is not None:
        report.notes += _add_codes(key, all_codes_file, all_codes_col, formatter, spelling)
    report.classes, report.codes_added = len(key), len(key) - n_from_data
    report.notes = [
        *_notes(table, labels, short, report, language, language_col, target_cols),
        *duplicates_notes(labels, formatter),
        *_unused_short_codes(short_codes, labels),
        *report.notes,
    ]
    replaced = [name for name in PREPARED_FILES if (save_path / name).exists()]
    why = "" if overwrite else f", for not all of {', '.join(PREPARED_FILES)} were there"
    report.notes += [f"{name} from before is now {name}{SET_ASIDE}{why}" for name in replaced]

    facts = {
        "dataset": str(Path(dataset).absolute()) if isinstance(dataset, (str, Path)) else None,
        "dataset_state": file_state(dataset),
        "dataset_content": file_content(dataset),
        "input_col": input_col,
        "target_cols": target_cols,
        "language": language,
        "language_col": language_col,
        "language_map": str(Path(language_map).absolute()) if language_map is not None else None,
        "split_by": split_by,
        "val_data": str(Path(val_data).absolute()) if isinstance(val_data, (str, Path)) else None,
        "val_data_state": file_state(val_data),
        "val_data_content": file_content(val_data),
        "pad_codes": pad_codes or None,
        "short_codes": " ".join(short_codes) or None,
        "drop_uncoded": drop_uncoded or None,
        "drop_bad_labels": drop_bad_rows or None,
        "keep_missing_spellings": keep_missing_spellings or None,
        "allow_codes_shorter_than_block_size": allow_codes_shorter_than_block_size or None,
        "all_codes_file": str(Path(all_codes_file).absolute()) if all_codes_file is not None else None,
        "all_codes_col": all_codes_col,
        "share_val": share_val,
        "block_size": formatter.block_size,
        "rows_read": report.rows_read,
        "rows_train": report.rows_train,
        "rows_val": report.rows_val,
        "rows_dropped": report.rows_dropped,
        "classes": report.classes,
    }
    files = {
        TRAINING_ROWS: lambda path: write_table(path, header, table.texts, columns, train, progress),
        VALIDATION_ROWS: lambda path: write_table(path, header, table.texts, columns, val, progress),
        PREPARATION_FACTS: lambda path: write_json(path, facts),
    }
    files[CODE_FREQUENCIES] = lambda path: frequencies.write(path, table, labels, key, len(kept))
    if report.rows_dropped:
        files[REJECTED_ROWS] = lambda path: write_rejected(path, table, diagnosis.findings, input_col, target_cols)
    files[KEY] = lambda path: write_key(key, path)
    write_together(save_path, files, obsolete=[] if report.rows_dropped else [REJECTED_ROWS], kept=replaced)
    return key, report


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
    *,
    split_by: str | None = None,
    val_data: str | Path | pd.DataFrame | None = None,
) -> None:
    """Look at arguments of `prepare` for a folder that is not prepared: all that can be said without the rows.

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
    else:
        fault = file_fault(Path(dataset)) if isinstance(dataset, (str, Path)) else None
        if fault:
            problems.add(fault)
        named = [input_col, *target_cols, *([language_col] if language_col is not None else [])]
        by_column = split_by is not None and split_by not in (DESCRIPTION, input_col)
        problems.run(check_columns, dataset, [*named, *([split_by] if by_column else [])])
        problems.run(_check_split, dataset, split_by, val_data)
        problems.run(check_columns, val_data, named)
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
    elif language_col in target_cols:
        problems.add(
            f"Column {language_col!r} cannot be both a code column (--target-cols) and the language (--language-col)"
        )
    if not 0 < share_val < 1:
        problems.add(f"--share-val is {share_val}; it must lie in 0..1 without the ends (0.1 is a tenth of the rows)")
    problems.run(check_folder, save_path, "--save-dir")
    problems.raise_if_any()


def _check_split(
    dataset: str | Path | pd.DataFrame | None, split_by: str | None, val_data: str | Path | pd.DataFrame | None
) -> None:
    """Raise a UsageError with all that is wrong with how the rows are to be split."""
    problems = Problems()
    if val_data is not None and split_by is not None:
        problems.add(f"--val-data names the validation rows, and --split-by {split_by} draws them: give one of them")
    if isinstance(val_data, (str, Path)):
        fault = file_fault(Path(val_data))
        if fault:
            problems.add(f"--val-data: {fault}")
        elif isinstance(dataset, (str, Path)) and os.path.exists(dataset) and os.path.samefile(dataset, val_data):
            problems.add("--val-data is the table of --dataset itself: leave it out to validate on a part of that")
    problems.raise_if_any()


def _split_by_table(table: Table, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the first table and those of the second."""
    name, first = table.second
    train, val = kept[kept < first], kept[kept >= first]
    for rows, source in ((train, table.name), (val, name)):
        if not len(rows):
            raise UsageError(f"No row of {source} would be left: training and validation need at least one each")
    return train, val


def _group_notes(table: Table, val: np.ndarray, column: str) -> list[str]:
    """What came of a split by the values of a column."""
    there = len(np.unique(table.groups[val]))
    notes = [f"Split by {column!r}: {there:,} of {count(len(table.group_values), 'value')} went to validation"]
    blank = [i for i, value in enumerate(table.group_values) if not value.strip()]
    without = int(np.isin(table.groups, blank).sum())
    if without:
        notes.append(f"{count(without, 'row')} without a value in {column!r}, kept together")
    return notes


def check_codes(formatter: BlockyFormatter, short_codes: Sequence[str], pad_codes: bool) -> None:
    """Raise a UsageError with all that is wrong with what is said about the codes."""
    problems = Problems()
    for code in short_codes:
        fault = judge(code, formatter)
        if fault is None or fault.reason != TOO_SHORT:
            why = "it fills the block" if fault is None else f"{fault.reason}: {fault.detail}"
            problems.add(
                f"--short-codes names {code!r}, which is no code shorter than the block of {formatter.block_size} "
                f"({why}): leave it out"
            )
    if pad_codes and formatter.within_block_sep:
        problems.add("--pad-codes is for codes of single characters; --use-within-block-sep makes lists of them")
    problems.raise_if_any()


def _number_codes(labels: Labels, kept: np.ndarray) -> dict[str, int]:
    """Codes in order of first appearance, reading row by row, left to right."""
    ids = labels.ids[kept].ravel()
    # With repeated indices the last assignment stays: backwards, the first cell of each code. -1 fills the last entry.
    first = np.full(len(labels.codes) + 1, len(ids), dtype=np.int64)
    first[ids[::-1]] = np.arange(len(ids))[::-1]
    order = np.argsort(first[:-1], kind="stable")
    return {labels.codes[i]: rank for rank, i in enumerate(order[: (first[:-1] < len(ids)).sum()].tolist())}


def _add_codes(
    key: dict[str, int], path: str | Path, column: str | None, formatter: BlockyFormatter, spelling: Spelling
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
        source = f"column {shown(name)}"
    # `?` is the class of rows without a first code, so a list of codes may name it.
    codes = [unmarked_text(code.strip()).strip() for code in codes]
    codes = [code for code in codes if code == UNKNOWN_CODE or not spelling.is_missing(code)]
    if not codes:
        raise UsageError(f"--all-codes-file {path} has no codes in {source}")
    floats = whole_floats(codes)
    codes = [spelling.padded(floats.get(code, code)) for code in codes]
    added = [code for code in dict.fromkeys(codes) if code not in key]
    key.update(zip(added, range(len(key), len(key) + len(added))))
    notes = [f"{count(len(added), 'code')} that the data lack added from {path} ({source})"]
    unfit = [code for code in added if (fault := judge(code, formatter)) is not None and fault.reason != TOO_SHORT]
    if unfit:
        notes.append(
            f"Warning: {count(len(unfit), 'code')} of {path} cannot be written in a block of {formatter.block_size}, "
            f"such as {shown(unfit[0])}: is it the right column (--all-codes-col)?"
        )
    return notes


def _notes(
    table: Table,
    labels: Labels,
    short: Finding,
    report: PreparationReport,
    language: str,
    language_col: str | None,
    target_cols: Sequence[str],
) -> list[str]:
    """What happened to the table that its owner should know."""
    notes = []
    if labels.stripped is not None:
        notes.append(f"Blanks around codes taken away in {_repaired(labels.stripped)}")
    if labels.unmarked is not None:
        notes.append(f"Codes taken out of the marks that keep spreadsheets off them in {_repaired(labels.unmarked)}")
    for column, repair in labels.float_columns.items():
        notes.append(
            f"Column {column!r} holds decimal numbers: {repair.before} is taken as the code {repair.after} "
            f"({count(repair.cells, 'cell')})"
        )
    if labels.padded is not None:
        notes.append(f"Codes filled up with leading zeros in {_repaired(labels.padded)}")
    if labels.spellings:
        spelt = ", ".join(f"{s!r} {n:,} times" if s else f"empty {n:,} times" for s, n in labels.spellings.items())
        kept = "" if all(not s.strip() for s in labels.spellings) else " (--keep-missing-spellings makes codes of them)"
        notes.append(f"Read as no code: {spelt}{kept}")
    uncoded = len(labels.uncoded)
    if uncoded > MANY_UNCODED * len(table) and not report.dropped.get(UNCODED):
        notes.append(
            f"Warning: {uncoded:,} of {count(len(table), 'row')} without a first code: it becomes {UNKNOWN_CODE!r}, "
            f"and the model learns to answer {UNKNOWN_CODE!r} to descriptions like these. If they are only not coded "
            f"yet, leave them out with --drop-uncoded"
        )
    elif uncoded and not report.dropped.get(UNCODED):
        notes.append(f"{count(uncoded, 'row')} without a first code: it becomes {UNKNOWN_CODE!r}")
    if report.rows_first_gap:
        row = int(labels.first_gaps[0])
        later = int(np.argmax(labels.ids[row, 1:] >= 0)) + 1
        code = labels.codes[labels.ids[row, later]]
        notes.append(
            f"Warning: {count(report.rows_first_gap, 'row')} with a code in a later column and none in "
            f"{target_cols[0]!r}, such as {table.place(row)} with {code!r} in "
            f"{target_cols[later]!r}: if nothing is missing, move the code to the left"
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
    broken = _with_line_breaks(table.texts)
    if broken:
        longest = max(broken, key=lambda row: table.texts[row].count("\n"))
        notes.append(
            f"Warning: {count(len(broken), 'row')} with a text of several lines, such as {table.place(longest)}, "
            f"which spans {table.texts[longest].count(chr(10)) + 1} lines: a quotation mark that is never closed makes "
            f"one text of many rows; where a mark belongs to a text, the text stands in marks and the mark is written "
            f"twice"
        )
    return notes


def _repaired(repair: Repair) -> str:
    return f"{count(repair.cells, 'cell')}, such as {repair.before!r} to {repair.after!r}"


def _unused_short_codes(short_codes: Sequence[str], labels: Labels) -> list[str]:
    there = set(labels.codes)
    absent = [code for code in dict.fromkeys(short_codes) if code not in there]
    return [f"Warning: --short-codes names {', '.join(map(repr, absent))}, which no row has"] if absent else []


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
