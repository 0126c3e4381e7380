"""The distinct pairs of text and language of a table, and which of them each row has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histocc.files.tables import Chunk, read_chunks
from histocc.prediction.languages import KnownLanguages

# The number of a row without a text.
NO_TEXT = -1


class Pairs:
    """Distinct pairs in order of first appearance.

    Attributes
    ----------
    texts, languages
        Of each pair.
    rows
        How many rows have each pair.

    Parameters
    ----------
    known
        Reads the languages of the table as the codes that a model knows; they stay as they are without.
    """

    def __init__(self, known: KnownLanguages | None = None) -> None:
        self._known = known
        self.texts: list[str] = []
        self.languages: list[str] = []
        self.rows: list[int] = []
        self._numbers: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def number(self, chunk: Chunk, text_column: str, language_column: str | None, language: str) -> np.ndarray:
        """The pair of each row of a chunk, int32 [rows]; `NO_TEXT` where the text is blank.

        Parameters
        ----------
        chunk
            Rows of the table.
        text_column, language_column
            Where text and language stand.
        language
            The language of every row where there is no such column, and of rows that have none.
        """
        texts, text_of_row = chunk[text_column].distinct()
        languages, language_of_row = [language], np.zeros(len(chunk), dtype=np.int64)
        if language_column is not None:
            languages, language_of_row = chunk[language_column].distinct()
        combined, combination_of_row, counts = np.unique(
            text_of_row * len(languages) + language_of_row, return_inverse=True, return_counts=True
        )
        numbers = np.empty(len(combined), dtype=np.int32)
        for i, (combination, count) in enumerate(zip(combined.tolist(), counts.tolist())):
            text = texts[combination // len(languages)]
            numbers[i] = NO_TEXT
            if text.strip():
                numbers[i] = self._add(text, languages[combination % len(languages)].strip() or language, count)
        return numbers[combination_of_row]

    def _add(self, text: str, language: str, rows: int) -> int:
        if self._known is not None:
            language = self._known.code(language, rows)
        known = self._numbers.setdefault(language, {})
        number = known.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
            self.languages.append(language)
            self.rows.append(0)
        self.rows[number] += rows
        return number

    def longest_first(self) -> np.ndarray:
        """The pairs' numbers, those with the longest texts first, so that too large a batch shows at once."""
        lengths = np.array([len(t) + len(lang) for t, lang in zip(self.texts, self.languages)], dtype=np.int64)
        return np.argsort(-lengths, kind="stable")


def collect_pairs(
    path: Path,
    text_column: str,
    language_column: str | None,
    language: str,
    rows_to: Path,
    known: KnownLanguages | None = None,
) -> tuple[Pairs, int]:
    """Read a table and number its pairs.

    Parameters
    ----------
    path, text_column, language_column, language
        The table; see `Pairs.number`.
    rows_to
        File that gets the pair of each row, int32, to be read with `numpy.memmap`.
    known
        See `Pairs`.

    Returns
    -------
    tuple[Pairs, int]
        The pairs, and how many rows the table has.

    Raises
    ------
    UsageError
        The table cannot be read, or lacks a column.
    """
    pairs = Pairs(known)
    rows = 0
    columns = list(dict.fromkeys([text_column, *([] if language_column is None else [language_column])]))
    with rows_to.open("wb") as file:
        for chunk in read_chunks(path, columns, keep_empty_rows=True):
            numbers = pairs.number(chunk, text_column, language_column, language)
            numbers.tofile(file)
            rows += len(numbers)
    return pairs, rows
