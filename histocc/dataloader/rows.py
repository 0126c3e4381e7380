"""Tables on disk to rows in memory, without a Python object per row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.datasets import CODE_COLUMNS
from histocc.errors import Problems, UsageError
from histocc.files.entries import shown
from histocc.files.tables import Chunk, columns_fault, peek, read_chunks, values_too_many

MAX_EXAMPLES = 10
_NOT_PREPARED = "It looks like a table that is not prepared for this script: finetune.py takes it, codes as they are"


def smallest(values: np.ndarray) -> np.ndarray:
    """The same integers in the narrowest of int8, int16, int32, int64 that holds them."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype, copy=False)
    return values.astype(np.int64, copy=False)


def take_text(data: np.ndarray, starts: np.ndarray, byte_lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code points of many pieces of a UTF-8 buffer.

    Parameters
    ----------
    data
        uint8, the buffer.
    starts
        First byte of each piece, int64 [B].
    byte_lengths
        Bytes of each piece, int64 [B].

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        The pieces' code points end to end, uint32, and the number of characters of each, int64 [B].
    """
    ends = np.cumsum(byte_lengths)
    total = int(ends[-1]) if len(ends) else 0
    piece = data[np.arange(total) + np.repeat(starts - (ends - byte_lengths), byte_lengths)]
    codepoints = np.frombuffer(piece.tobytes().decode("utf-8").encode("utf-32-le"), dtype="<u4")
    if len(codepoints) == total:  # ASCII
        return codepoints, byte_lengths
    characters = np.concatenate(([0], np.cumsum((piece & 0xC0) != 0x80)))
    return codepoints, characters[ends] - characters[ends - byte_lengths]


class TextColumn:
    """Many strings in one UTF-8 buffer.

    Attributes
    ----------
    data
        uint8, all strings end to end.
    offsets
        int64 [n + 1]; string i is `data[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> TextColumn:
        """A column of the given strings."""
        builder = TextColumnBuilder()
        builder.extend(strings)
        return builder.build()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode("utf-8")

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts of some rows: code points end to end, uint32, and characters of each, int64 [len(rows)]."""
        starts = self.offsets[rows]
        return take_text(self.data, starts, self.offsets[rows + 1] - starts)

    def to_list(self) -> list[str]:
        """All strings as Python objects."""
        return [self[row] for row in range(len(self))]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.data.nbytes + self.offsets.nbytes


class TextColumnBuilder:
    """Collects strings chunk by chunk for a `TextColumn`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lengths: list[np.ndarray] = []

    def extend(self, strings: Iterable[str]) -> None:
        """Append strings."""
        encoded = [string.encode("utf-8") for string in strings]
        self._lengths.append(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)))
        self._data += b"".join(encoded)

    def build(self) -> TextColumn:
        """The column; it takes over the buffer, so nothing is copied."""
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths])
        return TextColumn(np.frombuffer(self._data, dtype=np.uint8), np.cumsum(lengths, out=lengths))


@dataclass
class Table:
    """Rows in memory.

    Attributes
    ----------
    text
        The descriptions.
    languages
        Distinct languages in order of appearance.
    language_index
        Index into `languages`, the narrowest integers, [n].
    labels
        What `lookup` gave for each code column, the narrowest integers, [n, code columns]; -1 = no code.
    hidden_codes
        Cells with a code behind a row's first missing one, which are not in `labels`.
    blank_texts
        Rows without a description.
    blank_languages
        Rows without a language, which are taken for `unk`.
    """

    text: TextColumn
    languages: list[str]
    language_index: np.ndarray
    labels: np.ndarray
    hidden_codes: int = 0
    blank_texts: int = 0
    blank_languages: int = 0

    def notes(self) -> list[str]:
        """What the owner of the files should know, a line each."""
        lines = []
        if self.hidden_codes:
            lines.append(f"codes behind a row's first empty code column, which are not read: {self.hidden_codes:,}")
        if self.blank_texts:
            lines.append(f"rows without a description: {self.blank_texts:,}")
        if self.blank_languages:
            lines.append(f"rows without a language, taken for {UNKNOWN_LANGUAGE}: {self.blank_languages:,}")
        return lines


class BadValueError(ValueError):
    """A cell that holds no code; `kind` is the heading it is reported under, the message what is wrong with it."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass
class _BadCells:
    """Cells that cannot be used, by kind: how many, and the first few of them."""

    counts: dict[str, int] = field(default_factory=dict)
    # Per kind the first cells, as (number of the file, row, text).
    examples: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def add(self, kind: str, path: Path, column: str, rows: np.ndarray, cells: Sequence[tuple[str, str]]) -> None:
        """Note cells of a column.

        Parameters
        ----------
        kind
            What is wrong with them.
        path, column
            File and column.
        rows
            Their row numbers in the file, ascending.
        cells
            Of the first `MAX_EXAMPLES` of them, the text and what is wrong with it in particular.
        """
        self.counts[kind] = self.counts.get(kind, 0) + len(rows)
        if not self.files or self.files[-1] != path:
            self.files.append(path)
        examples = self.examples.setdefault(kind, [])
        for row, (value, detail) in zip(rows[:MAX_EXAMPLES].tolist(), cells):
            text = f"{path}, row {row}, column {column!r}: {shown(value)}" + (f" ({detail})" if detail else "")
            examples.append((len(self.files), row, text))
        examples.sort(key=lambda example: example[:2])
        del examples[MAX_EXAMPLES:]

    def report(self, problems: Problems) -> None:
        listed_rows = {(number, row) for listed in self.examples.values() for number, row, _ in listed}
        too_long = [
            values_too_many(path, {row for of_file, row in listed_rows if of_file == number})
            for number, path in enumerate(self.files, start=1)
        ]
        for kind, count in self.counts.items():
            listed = [
                f"{text}; {hint}" if (hint := too_long[number - 1].get(row)) else text
                for number, row, text in self.examples[kind]
            ]
            more = [f"... and {count - len(listed):,} more"] if count > len(listed) else []
            cells = "1 cell" if count == 1 else f"{count:,} cells"
            lines = "\n".join(f"  {line}" for line in (*listed, *more))
            problems.add(f"{cells}: {kind} (row numbers count the header as row 1):\n{lines}")


def as_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """One path or several, as a list."""
    return [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]


def check_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: Sequence[str],
    *,
    flag: str = "",
    problems: Problems | None = None,
    advice: str = "Rename columns in the table",
) -> Problems:
    """Look at files before anything expensive happens: do they exist, and have they the columns and any rows?

    Parameters
    ----------
    paths
        CSV or Parquet files.
    columns
        Names that each file must have.
    flag
        The command-line flag that named the files, for the messages.
    problems
        A collector to add to; a new one by default.
    advice
        What to do about columns that are missing.

    Returns
    -------
    Problems
        The collector with what is wrong; nothing is raised.
    """
    return check_lots({flag: paths}, columns, problems=problems, advice=advice)


def check_lots(
    lots: Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]],
    columns: Sequence[str],
    *,
    problems: Problems | None = None,
    advice: str = "Rename columns in the table",
) -> Problems:
    """As `check_files`, for the files of several flags; those that lack the same columns are told together."""
    problems = Problems() if problems is None else problems
    # Files and their columns by what they lack.
    lacking: dict[tuple[str, ...], list[tuple[Path, str, list[str]]]] = {}
    for flag, paths in lots.items():
        hint = f" (see {flag})" if flag else ""
        listed = as_paths(paths)
        if not listed:
            problems.add(f"No data file is given{hint}")
        for path in listed:
            try:
                names, has_rows = peek(path)
            except UsageError as error:
                problems.add(f"{error}{hint}")
                continue
            missing = tuple(column for column in columns if column not in names)
            if missing:
                lacking.setdefault(missing, []).append((path, flag, names))
            fault = columns_fault(str(path), names, [column for column in columns if column in names])
            if fault:
                problems.add(f"{fault}{hint}")
            if not has_rows:
                problems.add(f"{path} has no rows: there is nothing below its header{hint}")
    raw_told = False
    for missing, files in lacking.items():
        first, *others = (str(path) for path, _, _ in files)
        flags = ", ".join(dict.fromkeys(flag for _, flag, _ in files if flag))
        raw = not raw_told and set(CODE_COLUMNS) <= set(missing)
        raw_told = raw_told or raw
        hint = f". {_NOT_PREPARED}" if raw else ""
        fault = columns_fault(first, list(dict.fromkeys(files[0][2])), columns, advice + hint, like_it=others)
        problems.add(fault + (f" (see {flags})" if flags else ""))
    return problems


def read_table(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    code_columns: Sequence[str],
    lookup: Callable[[str], int],
    *,
    text_column: str = "occ1",
    language_column: str = "lang",
    gap_ends_row: bool = True,
    require_code: bool = True,
    flag: str = "",
) -> Table:
    """Read CSV or Parquet files, one after the other, in chunks.

    Text is text: `nan`, `NA` or `42` stay what they are; only an empty cell is empty. A blank language is `unk`. Other
    columns are not kept.

    Parameters
    ----------
    paths
        The files, UTF-8.
    code_columns
        Columns that hold codes.
    lookup
        From the text of a code cell to a number >= 0, or -1 for a missing code; called once for each distinct text of a
        chunk; raises `BadValueError`.
    text_column
        Column of the descriptions.
    language_column
        Column of the languages.
    gap_ends_row
        Drop the codes of a row behind its first missing one.
    require_code
        A row without a first code is an error.
    flag
        The command-line flag that named the files, for the messages.

    Raises
    ------
    UsageError
        All that is wrong with the files, with file, column, row number and value.
    """
    columns = list(dict.fromkeys([text_column, language_column, *code_columns]))
    problems = check_files(paths, columns, flag=flag)
    problems.raise_if_any()

    bad = _BadCells()
    text = TextColumnBuilder()
    language_ids: dict[str, int] = {}
    language_parts: list[np.ndarray] = []
    label_parts: list[np.ndarray] = []
    hidden_codes = blank_texts = blank_languages = 0
    for path in as_paths(paths):
        try:
            for chunk in read_chunks(path, columns):
                texts = chunk[text_column].tolist()
                text.extend(texts)
                if not all(map(str.strip, texts)):
                    blank_texts += sum(not text.strip() for text in texts)
                names, index = chunk[language_column].distinct()
                blank = np.array([not name.strip() for name in names], dtype=bool)
                blank_languages += int(blank[index].sum())
                names = [name if name.strip() else UNKNOWN_LANGUAGE for name in names]
                ids = np.array([language_ids.setdefault(name, len(language_ids)) for name in names], dtype=np.int32)
                language_parts.append(smallest(ids[index]))
                labels, hidden = _labels(chunk, code_columns, lookup, gap_ends_row, require_code, bad, path)
                hidden_codes += hidden
                label_parts.append(smallest(labels))
        except UsageError as error:
            problems.add(str(error))
    bad.report(problems)
    problems.raise_if_any()
    return Table(
        text.build(),
        list(language_ids),
        smallest(np.concatenate(language_parts)),
        smallest(np.concatenate(label_parts)),
        hidden_codes,
        blank_texts,
        blank_languages,
    )


def _labels(
    chunk: Chunk,
    code_columns: Sequence[str],
    lookup: Callable[[str], int],
    gap_ends_row: bool,
    require_code: bool,
    bad: _BadCells,
    path: Path,
) -> tuple[np.ndarray, int]:
    """Labels of a chunk, int32 [rows, code columns], and how many codes stand behind a gap.

    What is wrong with its cells goes to `bad`.
    """
    labels = np.full((len(chunk), len(code_columns)), -1, dtype=np.int32)
    open_rows = np.ones(len(chunk), dtype=bool)  # no gap so far
    hidden = 0
    for j, column in enumerate(code_columns):
        texts, index = chunk[column].distinct()
        ids = np.empty(len(texts), dtype=np.int32)
        refused: dict[int, BadValueError] = {}
        for i, text in enumerate(texts):
            try:
                ids[i] = lookup(text)
            except BadValueError as error:
                ids[i] = -2
                refused[i] = error
        labels[:, j] = np.where(open_rows, ids[index], -1)
        hidden += int(((ids[index] != -1) & ~open_rows).sum())
        # All of a kind at once: in the wrong column every row has a value of its own.
        for kind in dict.fromkeys(error.kind for error in refused.values()):
            of_kind = np.zeros(len(texts), dtype=bool)
            of_kind[[i for i, error in refused.items() if error.kind == kind]] = True
            rows = np.flatnonzero(of_kind[index] & open_rows)
            if len(rows):
                numbers = index[rows[:MAX_EXAMPLES]].tolist()
                cells = [(texts[i], str(refused[i])) for i in numbers]
                bad.add(kind, path, column, chunk.row_numbers[rows], cells)
        if j == 0 and require_code:
            rows = np.flatnonzero(labels[:, 0] == -1)
            if len(rows):
                missing = "the first code is missing; give the row one, or leave it out"
                bad.add(missing, path, column, chunk.row_numbers[rows], [("", "")] * MAX_EXAMPLES)
        if gap_ends_row:
            open_rows &= labels[:, j] != -1
    return labels, hidden
