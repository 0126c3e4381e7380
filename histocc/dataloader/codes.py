"""The distinct codes of a data set: each is looked up and tokenised once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from histocc.dataloader.rows import BadValueError, as_paths, smallest
from histocc.files.missing import MISSING_SPELLINGS
from histocc.files.tables import read_chunks
from histocc.formatter import PAD_IDX
from histocc.formatter.base import whole_number


class CodeTable:
    """Numbers the codes of a table in order of appearance.

    Cells hold class indices (HISCO) or the codes themselves. The class of a code is `map_code_label[code]`, or the code
    as a whole number where there is no map.

    Parameters
    ----------
    formatter
        Gives the tokens.
    num_classes
        C; classes are 0 .. C - 1.
    map_code_label
        Class of each code.
    tokenise
        False where tokens are not needed, or are not those of `formatter.encode_block`.
    classify
        False where classes are not needed: then a code may lack one.
    holds_classes
        Whether cells hold class indices; by default what the formatter says (any with `code_from_class` does).

    Attributes
    ----------
    codes
        Text of each code.
    cells
        A spelling of each code as the table has it (for HISCO the class index).
    """

    def __init__(
        self,
        formatter: Any,
        num_classes: int,
        map_code_label: Mapping[str, int] | None = None,
        *,
        tokenise: bool = True,
        classify: bool = True,
        holds_classes: bool | None = None,
    ) -> None:
        self.codes: list[str] = []
        self.cells: list[str] = []
        self._formatter = formatter
        self._num_classes = num_classes
        self._map = map_code_label
        self._tokenise = tokenise
        self._classify = classify
        self.holds_classes = hasattr(formatter, "code_from_class") if holds_classes is None else holds_classes
        self._ids: dict[str, int] = {}
        self._classes: list[int] = []
        self._blocks: list[np.ndarray] = []
        self._arrays: tuple[np.ndarray, np.ndarray] | None = None
        self._cell_values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def lookup(self, cell: str) -> int:
        """Number of the code in a cell; -1 for a blank one.

        Raises
        ------
        BadValueError
            The cell holds no code, or none that the key and the formatter know.
        """
        text = cell.strip() if self.holds_classes else cell
        if not text.strip() or (self.holds_classes and text.lower() in MISSING_SPELLINGS):
            return -1
        if self.holds_classes:
            number = whole_number(text)
            if number is None:
                raise BadValueError(f"no class index, that is a whole number from 0 to {self._num_classes - 1}")
            text = str(number)
        if text not in self._ids:
            self._add(cell, text)
        return self._ids[text]

    @property
    def classifies(self) -> bool:
        """Whether each code has a class."""
        return self._classify

    @property
    def complete(self) -> bool:
        """Whether each code has tokens and a class."""
        return self._tokenise and self._classify

    def classes(self) -> np.ndarray:
        """Class of each code, int64 [number of codes + 1]; the last is -1, so that label -1 gives -1."""
        return np.array([*self._classes, -1], dtype=np.int64)

    def tokens(self) -> np.ndarray:
        """Tokens of each code, the narrowest integers [number of codes + 1, S]; the last row is PAD."""
        return smallest(np.stack([*self._blocks, np.full(self._formatter.block_size, PAD_IDX, dtype=np.int64)]))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """`classes()` and `tokens()`, made again only where a code has been added since."""
        if self._arrays is None or len(self._arrays[0]) != len(self) + 1:
            self._arrays = self.classes(), self.tokens()
        return self._arrays

    def cell_values(self) -> np.ndarray:
        """What a table holds for each code, [number of codes + 1]: class indices, float64, or text; the last is NaN."""
        if self._cell_values is None or len(self._cell_values) != len(self) + 1:
            values = [*map(int, self.cells), np.nan] if self.holds_classes else [*self.codes, np.nan]
            self._cell_values = np.array(values, dtype=np.float64 if self.holds_classes else object)
        return self._cell_values

    def class_of(self, label: int) -> int:
        """Class of the code with the number `label`; -1 where it has none, as label -1 does."""
        return self._classes[label] if label >= 0 else -1

    def _add(self, cell: str, text: str) -> None:
        # What cannot be written is told first, where it is not the class that says what the code is.
        class_index = self._class_of(cell, text) if self.holds_classes and self._classify else -1
        try:
            names = self.holds_classes and hasattr(self._formatter, "code_from_class")
            code = self._formatter.code_from_class(int(text)) if names else text
            block = self._formatter.encode_block(code) if self._tokenise else None
        except ValueError as error:
            raise BadValueError("a code that the formatter cannot write", str(error)) from error
        if not self.holds_classes and self._classify:
            class_index = self._class_of(cell, text)
        self._ids[text] = len(self.codes)
        self.codes.append(code)
        self.cells.append(text)
        self._classes.append(class_index)
        if block is not None:
            self._blocks.append(block)

    def _class_of(self, cell: str, text: str) -> int:
        if self._map is None:
            class_index = whole_number(text)
            if class_index is None:
                raise BadValueError("no number, and there is no key that gives the code a class")
        else:
            class_index = self._map.get(cell, self._map.get(text))
            if class_index is None:
                if self.holds_classes:
                    raise BadValueError("a class index that is not in the key; class indices need map_code_label=None")
                raise BadValueError("a code that is not in the key; correct it, or add it to the key")
        if not 0 <= class_index < self._num_classes:
            advice = "; where these are the codes themselves, finetune.py takes the table" if self.holds_classes else ""
            raise BadValueError(f"a class outside 0..{self._num_classes - 1}{advice}")
        return int(class_index)


def codes_in_order(paths: Sequence[str | os.PathLike[str]], columns: Sequence[str], formatter: Any) -> dict[str, int]:
    """Class of each distinct code of some files, numbered by first appearance: row by row, left to right.

    A row's codes end at its first empty cell. Codes that `formatter` cannot write get no class.

    Raises
    ------
    UsageError
        A file cannot be read as a table.
    """
    codes: dict[str, int] = {}
    bad: set[str] = set()
    for path in as_paths(paths):
        for chunk in read_chunks(path, columns):
            for row in dict.fromkeys(zip(*(chunk[column].tolist() for column in columns))):
                for code in takewhile(str.strip, row):
                    if code in codes or code in bad:
                        continue
                    try:
                        formatter.encode_block(code)
                    except ValueError:
                        bad.add(code)
                    else:
                        codes[code] = len(codes)
    return codes
