"""Writing tables the way pandas does, and several files as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from histocc.errors import UsageError
from histocc.files.csv_lines import csv_field, csv_line

CHUNK_ROWS = 10_000
# Fewer rows are written before a progress bar could be read.
PROGRESS_ROWS = 1_000_000
# Ending of files that would have been overwritten.
SET_ASIDE = ".before"


def write_table(
    path: Path,
    header: Sequence[str],
    texts: Sequence[str],
    rows: np.ndarray,
    ends: np.ndarray,
    end_ids: np.ndarray,
    progress: bool | None = None,
) -> None:
    r"""Write some rows of a table whose rows have few distinct ends.

    Parameters
    ----------
    path
        The file, written in UTF-8 with `\n` as the end of a line.
    header
        The names of the columns.
    texts
        The first value of each of N rows.
    rows
        int64 [n], the rows to write, in order.
    ends
        object array of the distinct ends as they stand in the file, from the comma after the text to the `\n`.
    end_ids
        int64 [N], the end of each row.
    progress
        Show a progress bar; None: for many rows.
    """
    from tqdm import tqdm

    with (
        path.open("wb") as file,
        tqdm(
            total=len(rows),
            desc="Writing",
            unit=" rows",
            disable=len(rows) < PROGRESS_ROWS if progress is None else not progress,
        ) as bar,
    ):
        file.write(csv_line(header).encode())
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            parts: list[str] = [""] * (2 * len(chunk))
            firsts = [texts[row] for row in chunk.tolist()]
            joined = "".join(firsts)
            # A search for one character each costs a quarter of one for several.
            if "\n" in joined or "\r" in joined:
                parts[0::2] = map(csv_field, firsts)
            elif '"' in joined:
                parts[0::2] = [text if "," not in text and '"' not in text else csv_field(text) for text in firsts]
            else:
                parts[0::2] = [text if "," not in text else f'"{text}"' for text in firsts]
            parts[1::2] = ends[end_ids[chunk]].tolist()
            file.write("".join(parts).encode())
            bar.update(len(chunk))


def distinct_ends(columns: Sequence[tuple[Sequence[str], np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct combinations of the last columns of a table, as `write_table` takes them.

    Parameters
    ----------
    columns
        Per column its distinct values, and int [N] the number of each row's.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        object [m] the ends, and int64 [N] the end of each row.
    """
    import pandas as pd

    end_ids = np.zeros(len(columns[0][1]), dtype=np.int64)
    combinations = 1
    for values, numbers in columns:
        if combinations * len(values) >= 2**63:
            end_ids = pd.factorize(end_ids)[0].astype(np.int64)
            combinations = len(end_ids)
        end_ids = end_ids * len(values) + numbers
        combinations *= len(values)
    end_ids = pd.factorize(end_ids)[0]
    # With repeated indices the last assignment stays: backwards, the first row of each end.
    first = np.empty(end_ids.max() + 1, dtype=np.int64)
    first[end_ids[::-1]] = np.arange(len(end_ids))[::-1]
    parts = [
        np.array([csv_field(value) for value in values], dtype=object)[numbers[first]] for values, numbers in columns
    ]
    ends = np.empty(len(first), dtype=object)
    ends[:] = ["," + ",".join(row) + "\n" for row in zip(*(part.tolist() for part in parts))]
    return ends, end_ids


def write_together(
    folder: Path, files: Mapping[str, Callable[[Path], None]], obsolete: Sequence[str] = (), kept: Sequence[str] = ()
) -> None:
    """Write several files or none.

    All are written under temporary names first. Then the file named last is removed and the others take their places,
    it itself at the end: a reader who waits for it never sees old and new files side by side.

    Parameters
    ----------
    folder
        Made if it does not exist.
    files
        Per name a function that writes the content to the path it is given.
    obsolete
        Names of files to remove, if present, once all are written.
    kept
        Names of files that are there; they get the ending `SET_ASIDE` instead of being overwritten.

    Raises
    ------
    UsageError
        If the folder cannot be written to, or a text is none (a lone surrogate).
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    temporary = {name: folder / f".{name}.partial" for name in files}
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, write in files.items():
                write(temporary[name])
            for name in kept:
                os.replace(folder / name, folder / (name + SET_ASIDE))
            last = list(files)[-1]
            for name in (*obsolete, last):
                (folder / name).unlink(missing_ok=True)
            for name, path in temporary.items():
                os.replace(path, folder / name)
        except BaseException:
            for path in temporary.values():
                with suppress(OSError):
                    path.unlink()
            for path in made:
                with suppress(OSError):
                    path.rmdir()
            raise
    except OSError as error:
        raise UsageError(f"Cannot write to {folder}: {error.strerror or error}; choose another --save-path") from None
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise UsageError(f"The table holds a text that UTF-8 cannot represent: {near!r}") from None
