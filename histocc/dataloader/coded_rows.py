"""Rows of files with their codes: read once, and numbered again where formatter, key or classes are changed later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from histocc.dataloader.codes import CodeTable
from histocc.dataloader.encoding import texts_of
from histocc.dataloader.frame_rows import FrameRows, cell_text
from histocc.dataloader.overridden import makes_blocks, may_be_overridden, overrides
from histocc.dataloader.rows import BadValueError, Table, TextColumn, read_table, smallest
from histocc.dataloader.texts import TextDataset, Texts
from histocc.datasets import CODE_COLUMNS
from histocc.errors import Problems, UsageError
from histocc.formatter.systems import SYSTEMS

if TYPE_CHECKING:
    import pandas as pd

# Naming a system by a word means its columns.
NAMED_COLUMNS = ("hisco", "occ1950")
_MOST_LISTED = 10


def target_columns(target_cols: str | Sequence[str], formatter: Any) -> list[str]:
    """Names of the code columns that `target_cols` means.

    Parameters
    ----------
    target_cols
        `'hisco'`, `'occ1950'`, or the names themselves.
    formatter
        Limits their number to its `max_num_codes`.

    Raises
    ------
    UsageError
        It is another word, or there are more columns than the formatter has blocks.
    """
    room = formatter.max_num_codes
    if isinstance(target_cols, str):
        if target_cols not in NAMED_COLUMNS:
            raise UsageError(
                f"target_cols is {target_cols!r}, but must be one of {', '.join(map(repr, NAMED_COLUMNS))} "
                "or a list of column names (--target-col-naming, --target-cols)."
            )
        return list(SYSTEMS[target_cols]().columns[:room])
    if not 0 < len(target_cols) <= room:
        raise UsageError(
            f"{len(target_cols)} target columns are named ({', '.join(target_cols)}), "
            f"but a row has room for 1 to {room} codes (--target-cols)."
        )
    return list(target_cols)


def _fixed(name: str, get: Any, advice: str) -> property:
    """An attribute that can only be read."""

    def refuse(self: CodedRows, value: Any) -> None:
        raise UsageError(f"{name} says how the files were read and cannot be changed afterwards: {advice}")

    return property(get, refuse, doc=f"`{name}`, which says how the files were read.")


class CodedRows(TextDataset):
    """Rows of one or more CSV or Parquet files with their codes, held in memory without a Python object per row.

    Parameters
    ----------
    fnames_data
        The files.
    formatter
        Writes codes as tokens.
    max_input_len
        L, ids of a row.
    num_classes_flat
        C.
    target_cols
        Columns of the codes, see `target_columns`.
    map_code_label
        Class of each code; without it codes are their own classes.

    Attributes
    ----------
    notes
        What the owner of the files should know, a line each.

    Raises
    ------
    UsageError
        Names all that is wrong with the files, with file, column, row number and value.
    """

    fname_data = _fixed("fname_data", lambda self: self._fname_data, "make a data set of the other files")
    colnames = _fixed(
        "colnames",
        lambda self: ["occ1", "lang", *self.target_cols],
        "set a frame with other columns and then target_cols, or make another data set",
    )
    map_item_byte_index = _fixed(
        "map_item_byte_index",
        lambda self: self._map_item_byte_index,
        "rows are in memory, and there is no index of bytes",
    )

    def __init__(
        self,
        fnames_data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        formatter: Any,
        max_input_len: int,
        num_classes_flat: int,
        target_cols: str | Sequence[str],
        map_code_label: Mapping[str, int] | None,
    ) -> None:
        self._fname_data = fnames_data
        self._map_item_byte_index = self._setup_mapping(None)
        self.formatter = formatter
        self.num_classes_flat = num_classes_flat
        self.target_cols = target_columns(target_cols, formatter)
        self.map_code_label = map_code_label
        self._frame_rows: FrameRows | None = None
        # Whether the files hold codes that only the user's own code can make sense of.
        self._raw = False
        self._classifier: CodeTable | None = None
        # Rows that were last asked for, as a frame, and where each stands in it.
        self._at_hand: tuple[dict[int, int], Any] = {}, None
        # A length that makes no sense is told before the files are read.
        self.max_input_len = max_input_len
        table = self._read_files()
        super().__init__(table.text, table.languages, table.language_index, max_input_len)
        self._stored_labels = table.labels
        self.notes = table.notes()

    def __len__(self) -> int:
        return len(self._text if self._frame_rows is None else self._frame_rows)

    @property
    def max_input_len(self) -> int:
        """L, ids of a row."""
        return self._max_input_len

    @max_input_len.setter
    def max_input_len(self, value: int) -> None:
        if value < 2:
            raise UsageError(f"max_input_len is {value}, but [CLS] and [SEP] alone take 2 (--max-len).")
        self._max_input_len = value

    @property
    def text(self) -> TextColumn:
        """The descriptions."""
        return self._text if self._frame_rows is None else self._frame_rows.text()

    @property
    def languages(self) -> list[str]:
        """Distinct languages, in order of appearance."""
        return self._languages if self._frame_rows is None else self._all_texts().prefixes.names[:-1]

    @property
    def language_index(self) -> np.ndarray:
        """Index of each row's language, [n]."""
        return self._language_index if self._frame_rows is None else self._all_texts().languages

    @property
    def codes(self) -> list[str]:
        """The distinct codes, as text; `labels` refers to them."""
        return self._coding().codes

    @property
    def labels(self) -> np.ndarray:
        """Number in `codes` of each code of a row, [n, code columns], -1 from the first missing one on."""
        return self._labels(np.arange(len(self)))

    def _all_texts(self) -> Texts:
        return self._frame_rows.texts(np.arange(len(self)))

    @property
    def map_type_target_cols_default(self) -> dict[str, list[str]]:
        """Columns that `target_cols` means by a word."""
        return {name: list(SYSTEMS[name]().columns) for name in NAMED_COLUMNS}

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table: `occ1`, `lang` and the target columns; it may be changed, and another one be set.

        Codes are text, NaN where they are missing; class indices (HISCO) are numbers, as pandas reads them.
        """
        if self._frame_rows is None:
            self._frame_rows = FrameRows(self._as_frame(np.arange(len(self))))
        return self._frame_rows.frame

    @frame.setter
    def frame(self, frame: pd.DataFrame) -> None:
        self._frame_rows = FrameRows(frame)

    def _setup_mapping(self, fname_index: Any) -> dict[int, int]:
        """Where each row begins in a file: nowhere, since rows are in memory."""
        return {}

    @may_be_overridden
    def _get_record(self, item: int) -> pd.DataFrame:
        """A row as a frame of its own, with the columns of `frame`."""
        row = range(len(self))[item]
        if self._frame_rows is not None:
            return self._frame_rows.record(row)
        if row not in self._at_hand[0]:
            self._keep_at_hand(np.array([row]))
        positions, frame = self._at_hand
        return frame.iloc[positions[row] : positions[row] + 1].copy()

    def _keep_at_hand(self, rows: np.ndarray) -> None:
        """Make a frame of some rows, since a frame for each of them would cost much more."""
        if self._frame_rows is None:
            self._at_hand = {row: i for i, row in enumerate(rows.tolist())}, self._as_frame(rows)

    def _as_frame(self, rows: np.ndarray) -> pd.DataFrame:
        import pandas as pd

        values = self._coding().cell_values()
        names = np.array(self._languages, dtype=object)
        columns: dict[str, Any] = {
            "occ1": texts_of(*self._text.take(rows)),
            "lang": names[self._language_index[rows]],
        }
        for name, labels in zip(self._columns_read, self._stored_labels[rows].T):
            complete_numbers = values.dtype != object and (labels >= 0).all()
            columns[name] = values[labels].astype(np.int64) if complete_numbers else values[labels]
        return pd.DataFrame(columns, index=rows)

    def _read(self, places: np.ndarray) -> Texts:
        return super()._read(places) if self._frame_rows is None else self._frame_rows.texts(places)

    # -- codes -----------------------------------------------------------------------------------------------------

    def _read_files(self) -> Table:
        """Read the files and number their codes; without a look at the codes where only code of the user's own can."""
        self._columns_read = list(self.target_cols)
        self._codes = self._new_code_table()
        # What a record holds is the subclass's own affair, and what a label is that of a formatter of the user's own.
        own_records = overrides(self, "_get_record")
        require_code = not own_records and makes_blocks(self.formatter)
        try:
            table = read_table(self._fname_data, self.target_cols, self._codes.lookup, require_code=require_code)
        except UsageError:
            if not own_records and not overrides(self, "__getitem__"):
                raise
            self._raw = True
            self._codes = self._new_code_table()
            table = read_table(self._fname_data, self.target_cols, self._codes.lookup, require_code=False)
        self._coded_for = self._coding_settings()
        return table

    def _coding_settings(self) -> tuple[Any, ...]:
        return self.formatter, self.map_code_label, self.num_classes_flat, list(self.target_cols)

    def _new_code_table(self) -> CodeTable:
        """A table for the codes, without tokens or classes where code of the user's own gives them."""
        if self._raw:
            return CodeTable(self.formatter, self.num_classes_flat, tokenise=False, classify=False, holds_classes=False)
        return CodeTable(
            self.formatter,
            self.num_classes_flat,
            self.map_code_label,
            tokenise=makes_blocks(self.formatter),
            classify=not overrides(self, "_get_target_linear"),
            holds_classes=self._holds_classes(),
        )

    def _holds_classes(self) -> bool:
        if makes_blocks(self.formatter) or hasattr(self.formatter, "code_from_class"):
            return hasattr(self.formatter, "code_from_class")
        # In the columns of HISCO there are class indices, whoever writes the labels.
        return tuple(self.target_cols) == CODE_COLUMNS[: len(self.target_cols)]

    def _coding(self) -> CodeTable:
        """The codes with tokens and classes for formatter, key, classes and columns as they are now."""
        formatter, key, num_classes, columns = self._coded_for
        if (
            self.formatter is not formatter
            or self.map_code_label is not key
            or self.num_classes_flat != num_classes
            or self.target_cols != columns
        ):
            self._number_again()
        return self._codes

    def _number_again(self) -> None:
        target_columns(self.target_cols, self.formatter)
        if self.target_cols != self._columns_read and self._frame_rows is None:
            raise UsageError(
                f"target_cols is {self.target_cols} now, but {self._columns_read} were read: make another data set, or "
                "set a frame that has the columns"
            )
        old, new = self._codes, self._new_code_table()
        numbers, problems = [], Problems()
        # Rows of a frame are looked up when they are read.
        for cell in old.cells if self._frame_rows is None else ():
            try:
                numbers.append(new.lookup(cell))
            except BadValueError as error:
                numbers.append(-1)
                if len(problems.messages) < _MOST_LISTED:
                    problems.add(f"{cell!r}: {error.kind}" + (f" ({error})" if str(error) else ""))
        if problems:
            listed = "\n".join(f"  {message}" for message in problems.messages)
            raise UsageError(
                "The data set has codes that do not fit the formatter, the key (map_code_label) or the number of "
                f"classes (num_classes_flat) that were set after it was made, such as\n{listed}"
            )
        if self._frame_rows is None:
            self._stored_labels = smallest(np.array([*numbers, -1])[self._stored_labels])
        self._codes, self._classifier, self._at_hand = new, None, ({}, None)
        self._coded_for = self._coding_settings()

    def _labels(self, places: np.ndarray) -> np.ndarray:
        """Numbers of the codes of some rows, [B, code columns], -1 from the first missing one on."""
        coding = self._coding()
        if self._frame_rows is None:
            return self._stored_labels[places]
        return self._frame_rows.labels(places, self.target_cols, coding.lookup, makes_blocks(self.formatter))

    @may_be_overridden
    def _get_target_linear(self, record: Any) -> torch.Tensor:
        """The classes of a record as a multi-hot, float32 [C]; the first missing code ends the row."""
        coding = self._coding()
        if not coding.classifies:
            if self._classifier is None:
                self._classifier = CodeTable(
                    self.formatter,
                    self.num_classes_flat,
                    self.map_code_label,
                    tokenise=False,
                    holds_classes=self._holds_classes(),
                )
            coding = self._classifier
        linear = torch.zeros(self.num_classes_flat)
        for column in self.target_cols:
            cell = cell_text(record, column)
            try:
                label = coding.lookup(cell)
            except BadValueError as error:
                raise UsageError(f"Column {column!r} of a record: {cell!r} is {error.kind}") from error
            if label < 0:
                break
            linear[coding.class_of(label)] = 1
        return linear
