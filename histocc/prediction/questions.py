"""What a caller asks about: texts and languages as they come, missing ones among them, and each distinct pair once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import UsageError
from histocc.files.tables import as_text
from histocc.prediction.texts import clean_text, model_input

T = TypeVar("T")

# The place of a row without a text.
NOWHERE = -1


class Questions:
    """Rows of texts, cleaned, and their distinct pairs of text and language.

    Parameters
    ----------
    occ1
        A text or several; whatever is no text is written as one.
    lang
        A language for all or one for each; a missing one is 'unk'.
    lowercase, ascii_only
        See `clean_text`.

    Attributes
    ----------
    texts, languages, inputs
        Of each row: the cleaned text, the language, and both as the model reads them; n of them.
    distinct_texts, distinct_languages
        The pairs to run, d of them, without those that have no text.
    place
        Int64 [n], which pair each row is; `NOWHERE` where the text is missing or blank.

    Raises
    ------
    UsageError
        There are not as many languages as texts, or one is no text.
    """

    def __init__(self, occ1: Any, lang: Any, *, lowercase: bool, ascii_only: bool) -> None:
        self.texts = [
            clean_text(as_text(text), lowercase=lowercase, ascii_only=ascii_only) for text in _several(occ1, "occ1")
        ]
        if lang is None or isinstance(lang, str):
            self.languages = [_language(lang)] * len(self.texts)
        else:
            self.languages = [_language(each) for each in _several(lang, "lang")]
        if len(self.languages) != len(self.texts):
            raise UsageError(
                f"lang has {len(self.languages):,} languages and occ1 {len(self.texts):,} texts: give one for all "
                f"(lang='en') or one for each"
            )
        self.inputs = [model_input(text, language) for text, language in zip(self.texts, self.languages)]
        places: dict[tuple[str, str], int] = {}
        self.place = np.array(
            [
                places.setdefault((text, language), len(places)) if text.strip() else NOWHERE
                for text, language in zip(self.texts, self.languages)
            ],
            dtype=np.int64,
        )
        self.distinct_texts = [text for text, _ in places]
        self.distinct_languages = [language for _, language in places]

    def __len__(self) -> int:
        return len(self.texts)

    def spread(self, values: np.ndarray, missing: Any = np.nan) -> np.ndarray:
        """An array [d, ...] of answers to the pairs as one [n, ...] of the rows; `missing` where there is no text."""
        filled = np.concatenate([values, np.full((1, *values.shape[1:]), missing, dtype=values.dtype)])
        return filled[self.place]

    def spread_list(self, values: list[T], missing: T) -> list[T]:
        """The same for a list."""
        return [values[place] if place != NOWHERE else missing for place in self.place.tolist()]


def gather(number: int, batches: Iterable[tuple[np.ndarray, np.ndarray]], like: np.ndarray) -> np.ndarray:
    """The answers of all batches in one array [number, ...]; of the shape of `like`, [0, ...], where there are none."""
    whole: np.ndarray | None = None
    for rows, answers in batches:
        if whole is None:
            whole = np.empty((number, *answers.shape[1:]), dtype=answers.dtype)
        whole[rows] = answers
    return like if whole is None else whole


def _several(values: Any, name: str) -> Iterator[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        values = [values]
    elif getattr(values, "ndim", 1) != 1 or isinstance(values, dict):
        raise UsageError(f"{name} is a {type(values).__name__}: give a text or a list of texts, one column of a table")
    yield from values


def _language(value: Any) -> str:
    if value is None or value != value or value == "":
        return UNKNOWN_LANGUAGE
    if not isinstance(value, str):
        raise UsageError(f"lang holds {value!r}, which is no text: give short codes of languages such as 'en'")
    return value
