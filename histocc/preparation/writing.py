"""Writing tables the way pandas does, and several files as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from histocc.errors import UsageError
from histocc.files.csv_lines import csv_text

CHUNK_ROWS = 10_000
# Fewer rows are written before a progress bar could be read.
PROGRESS_ROWS = 1_000_000
# Ending of files that would have been overwritten.
SET_ASIDE = ".before"


def write_table(
    path: Path,
    header: Sequence[str],
    texts: Sequence[str],
    columns: Sequence[tuple[Sequence[str], np.ndarray]],
    rows: np.ndarray,
    progress: bool | None = None,
) -> None:
    r"""Write some rows of a table.

    Parameters
    ----------
    path
        The file, written in UTF-8 with `\n` as the end of a line.
    header
        The names of the columns.
    texts
        The first value of each of N rows.
    columns
        Per further column its distinct values, and int [N] the number of each row's.
    rows
        int64 [n], the rows to write, in order.
    progress
        Show a progress bar; None: for many rows.
    """
    from tqdm import tqdm

    further = [(np.array(values, dtype=object), numbers) for values, numbers in columns]
    with (
        path.open("wb") as file,
        tqdm(
            total=len(rows),
            desc="Writing",
            unit=" rows",
            disable=len(rows) < PROGRESS_ROWS if progress is None else not progress,
        ) as bar,
    ):
        file.write(csv_text([header]).encode())
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            firsts = [texts[row] for row in chunk.tolist()]
            rest = [values[numbers[chunk]].tolist() for values, numbers in further]
            file.write(csv_text(zip(firsts, *rest)).encode())
            bar.update(len(chunk))


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
        raise UsageError(f"Cannot write to {folder}: {error.strerror or error}; choose another --save-dir") from None
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise UsageError(f"The table holds a text that UTF-8 cannot represent: {near!r}") from None
