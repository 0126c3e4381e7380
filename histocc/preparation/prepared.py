"""Folders that were prepared before: what they were made from, and whether that is what is asked for now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import UsageError, did_you_mean
from histocc.files import entries, run_folder
from histocc.files.entries import Entries
from histocc.files.ordinary import IS_MISSING, fault_of_file
from histocc.files.run_folder import PREPARATION_FACTS, PREPARED_FILES, TRAINING_ROWS
from histocc.files.tables import column_names

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMN, LANGUAGE_COLUMN = "occ1", "lang"
MOST_NAMED = 5
SWITCHES = (
    "pad_codes",
    "drop_uncoded",
    "drop_bad_labels",
    "keep_missing_spellings",
    "allow_codes_shorter_than_block_size",
)
# Flags that change nothing where they are not given; a folder that was prepared without one says so.
OPTIONAL = ("language_col", "language_map", *SWITCHES, "short_codes", "split_by", "val_data")
# Settings that name a file, which may be called otherwise now.
_FILES = ("dataset", "val_data", "language_map", "all_codes_file")
# What tells that a run was started on the prepared files.
RUN_FILES = {
    run_folder.LAST_CHECKPOINT,
    run_folder.BEST_CHECKPOINT,
    run_folder.LOG,
    run_folder.GROUP_LOG,
    run_folder.BAD_BATCH,
    run_folder.TEST_FIGURES,
    run_folder.WANDB_ID,
}


def is_prepared(save_path: str | Path) -> bool:
    """Whether `data_train.csv`, `data_val.csv` and `key.csv` all stand in a folder."""
    # Unlike pathlib's, this says no where one may not look.
    return all(os.path.isfile(Path(save_path) / name) for name in PREPARED_FILES)


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
    val_data: str | Path | pd.DataFrame | None = None,
    split_by: str | None = None,
    language_map: str | Path | None = None,
    pad_codes: bool = False,
    short_codes: Sequence[str] = (),
    drop_uncoded: bool = False,
    drop_bad_labels: bool = False,
    keep_missing_spellings: bool = False,
    allow_codes_shorter_than_block_size: bool = False,
    all_codes_file: str | Path | None = None,
    keep_prepared: bool = False,
) -> list[str]:
    """Lines about a prepared folder: that it is used as it is, and which arguments disagree with what is there.

    Arguments that are None, or at the default of `finetune.py` for a column or language, are not compared: who goes on
    with a prepared folder need not name the table. Folders prepared by older versions lack the facts for some
    comparisons.

    Raises
    ------
    UsageError
        If the prepared files lack a code column, or come from a table of other content and `keep_prepared`
        does not hold.
    """
    save_path = Path(save_path)
    notes = [
        f"{', '.join(PREPARED_FILES)} in {save_path} are used as they are, with any edits; "
        f"--overwrite prepares the table again"
    ]
    facts = read_facts(save_path)
    if target_cols is not None:
        present = column_names(save_path / TRAINING_ROWS)
        absent = [column for column in target_cols if column not in present]
        there = facts.get("target_cols") or [c for c in present if c not in (TEXT_COLUMN, LANGUAGE_COLUMN)]
        if absent:
            named = ", ".join(f"{column!r}{did_you_mean(column, there)}" for column in absent)
            raise UsageError(
                f"The prepared {save_path / TRAINING_ROWS} has no column {named}: it was "
                f"prepared with --target-cols {' '.join(there)}. Use these, or choose another --save-dir"
            )
        if list(target_cols) != list(there):
            notes.append(
                f"Warning: prepared with --target-cols {' '.join(there)}, now {' '.join(target_cols)}: "
                f"the key and the rows stay as they were prepared"
            )
    notes += _other_tables(save_path, facts, {"dataset": dataset, "val_data": val_data}, keep_prepared)
    compared = {
        "share_val": None if share_val is None else float(share_val),
        "input_col": None if input_col == TEXT_COLUMN else input_col,
        "language": None if language == UNKNOWN_LANGUAGE else language,
        "language_col": language_col,
        "language_map": None if language_map is None else str(Path(language_map).absolute()),
        "split_by": split_by,
        "val_data": val_data if isinstance(val_data, (str, Path)) and facts.get("val_data") is None else None,
        "pad_codes": pad_codes or None,
        "short_codes": " ".join(short_codes) or None,
        "drop_uncoded": drop_uncoded or None,
        "drop_bad_labels": drop_bad_labels or None,
        "keep_missing_spellings": keep_missing_spellings or None,
        "allow_codes_shorter_than_block_size": allow_codes_shorter_than_block_size or None,
    }
    for name, now in compared.items():
        before = facts.get(name)
        # A folder prepared by an older version, or from a DataFrame, does not say; one without an optional flag does.
        if now is None or name not in facts or before == now or (before is None and name not in OPTIONAL):
            continue
        flag = "--" + name.replace("_", "-")
        prepared = f"prepared with {flag} {before}" if before is not None else f"prepared without {flag}"
        given = flag if now is True else f"{flag} {now}"
        notes.append(f"Warning: {prepared}; {given} has no effect")
    if all_codes_file is not None and facts.get("all_codes_file") != str(Path(all_codes_file).absolute()):
        notes.append("Warning: --all-codes-file has no effect on a key that is there already")
    if block_size is not None and facts.get("block_size", block_size) != block_size:
        notes.append(
            f"Warning: prepared with --block-size {facts['block_size']}, now {block_size}: the codes were looked at "
            f"for blocks of {facts['block_size']}"
        )
    return notes


def made_with(save_path: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a prepared folder was made with, by the names of the flags of `finetune.py`.

    Parameters
    ----------
    save_path
        The folder.
    given
        The settings as they are given now. A file is called as it is there, if it is the same one.

    Returns
    -------
    dict[str, Any]
        Those that the folder knows: none where another program prepared it.

    Raises
    ------
    UsageError
        See `read_facts`.
    """
    facts = read_facts(Path(save_path))
    settings: dict[str, Any] = {}
    for name in (*OPTIONAL, "dataset", "all_codes_file", "all_codes_col", "input_col", "language", "share_val"):
        if name not in facts:
            continue
        before, now = facts[name], given.get(name)
        if name in SWITCHES:
            settings[name] = bool(before)
        elif name == "short_codes":
            settings[name] = before.split() if before else []
        elif name in _FILES and before is not None and now is not None and _is_same_file(facts, name, now):
            settings[name] = now
        elif before is not None or name != "dataset":  # of a DataFrame there is no name
            settings[name] = before
    return settings


def _is_same_file(facts: Mapping[str, Any], name: str, now: str | Path) -> bool:
    if facts[name] == str(Path(now).absolute()):
        return True
    content = facts.get(f"{name}_content")
    return content is not None and fault_of_file(now) is None and file_content(now) == content


def _other_tables(
    save_path: Path, facts: Mapping[str, Any], tables: Mapping[str, Any], keep_prepared: bool
) -> list[str]:
    """Warnings about tables that are not those of a prepared folder; a UsageError unless `keep_prepared` holds."""
    notes = []
    for name, table in tables.items():
        before = facts.get(name)
        if before is None or not isinstance(table, (str, Path)):
            continue
        same_name = before == str(Path(table).absolute())
        state, content = facts.get(f"{name}_state"), facts.get(f"{name}_content")
        now = file_state(table)
        if same_name and (now is None or now == state):
            continue
        if content is not None and now is not None and file_content(table) == content:
            continue
        if same_name:
            what = f"{table} is no longer the table that {save_path} was prepared from"
        else:
            what = f"{save_path} was prepared from {before}, and {table} has another content"
        # Folders of older versions do not know the content, and a copy of the same table has another date.
        if not keep_prepared and not (same_name and content is None):
            raise UsageError(
                f"{what}. Prepare it again with --overwrite, train on the files as they were prepared with "
                f"--keep-prepared, or choose another --save-dir"
            )
        notes.append(f"Warning: {what}; the files are used as they were prepared")
    return notes


def check_overwrite(save_path: str | Path) -> None:
    """Look whether a folder may be prepared again.

    Raises
    ------
    UsageError
        Naming the files of a training run in it, whose data must stay as they are.
    """
    folder = Path(save_path)
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = [name for name in names if name in RUN_FILES or run_folder.step_of(name) is not None]
    if found:
        shown = ", ".join(found[:MOST_NAMED]) + f" and {len(found) - MOST_NAMED} more" * (len(found) > MOST_NAMED)
        raise UsageError(
            f"--overwrite would take the data from under a training run: {folder} holds {shown}. Choose another "
            f"--save-dir, move these files away to begin again, or leave --overwrite out to go on with the run"
        )


def file_state(dataset: Any) -> list[int] | None:
    """Size and time of the last change of a file, which tell whether it is another one; None for a DataFrame."""
    # What is no ordinary file, such as a pipe, has no content that could be compared.
    if not isinstance(dataset, (str, Path)) or fault_of_file(dataset) is not None:
        return None
    try:
        status = Path(dataset).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def file_content(dataset: Any) -> str | None:
    """A digest of a file's bytes; None for a DataFrame."""
    if not isinstance(dataset, (str, Path)):
        return None
    digest = hashlib.sha256()
    with open(dataset, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


_TEXT = entries.optional(entries.text)
_STATE = entries.optional(entries.list_of(entries.whole(0, 2**63), 2))
# What may stand in the notes of a preparation, of those that are compared.
_FACTS: dict[str, entries.Check[Any]] = {
    **dict.fromkeys(("dataset", "dataset_content", "val_data", "val_data_content", "language_map", "split_by"), _TEXT),
    **dict.fromkeys(("input_col", "language", "language_col", "short_codes", "all_codes_file", "all_codes_col"), _TEXT),
    **dict.fromkeys(("dataset_state", "val_data_state"), _STATE),
    "target_cols": entries.list_of(entries.text),
    "share_val": entries.number(0, 1),
    "block_size": entries.whole(1),
    **dict.fromkeys(SWITCHES, entries.optional(entries.flag)),
}


def read_facts(save_path: Path) -> dict[str, Any]:
    """What was noted when a folder was prepared and is compared later; empty for folders of older versions.

    Raises
    ------
    UsageError
        The file cannot be read, or an entry of it holds what is none.
    """
    path = save_path / PREPARATION_FACTS
    fault = fault_of_file(path)
    if fault == IS_MISSING:
        return {}
    found = Entries(path, "Restore the file, or move it away: the prepared files are then used without comparing")
    facts: Any = None
    if fault is None:
        try:
            facts = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            fault = f"cannot be read: {error}"
    if fault is not None:
        found.note(fault)
    found.raise_if_any()
    facts = found.check("all of it", facts, entries.mapping) or {}
    checked = {name: found.check(name, facts[name], check) for name, check in _FACTS.items() if name in facts}
    found.raise_if_any()
    return checked
