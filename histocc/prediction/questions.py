"""What a caller asks about: texts and languages as they come, missing ones among them, and each distinct pair once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from histocc.dataloader.encoding import LANGUAGE_SEPARATOR, UNKNOWN_LANGUAGE
from histocc.errors import UsageError
from histocc.files.tables import as_text

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
    clean
        Makes of a text what the model was trained with.

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

    def __init__(self, occ1: Any, lang: Any, clean: Callable[[str], str]) -> None:
        self.texts = [clean(as_text(text)) for text in _several(occ1, "occ1")]
        if lang is None or isinstance(lang, str):
            self.languages = [_language(lang)] * len(self.texts)
        else:
            self.languages = [_language(each) for each in _several(lang, "lang")]
        if len(self.languages) != len(self.texts):
            raise UsageError(
                f"lang has {len(self.languages):,} languages and occ1 {len(self.texts):,} texts: give one for all "
                f"(lang='en') or one for each"
            )
        self.inputs = [language + LANGUAGE_SEPARATOR + text for text, language in zip(self.texts, self.languages)]
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

    def longest_first(self) -> np.ndarray:
        """The pairs' numbers in order of length, so that too large a batch shows at once."""
        lengths = [len(text) + len(lang) for text, lang in zip(self.distinct_texts, self.distinct_languages)]
        return np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")

    def spread(self, values: np.ndarray, missing: Any = np.nan) -> np.ndarray:
        """An array [d, ...] of answers to the pairs as one [n, ...] of the rows; `missing` where there is no text."""
        filled = np.concatenate([values, np.full((1, *values.shape[1:]), missing, dtype=values.dtype)])
        return filled[self.place]

    def spread_list(self, values: list[T], missing: T) -> list[T]:
        """The same for a list."""
        return [values[place] if place != NOWHERE else missing for place in self.place.tolist()]


def _several(values: Any, name: str) -> Iterator[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        values = [values]
    elif getattr(values, "ndim", 1) != 1 or isinstance(values, dict):
        raise UsageError(f"{name} is a {type(values).__name__}: give a text or a list of texts, one column of a table")
    yield from values


def _language(value: Any) -> str:
    if not as_text(value):
        return UNKNOWN_LANGUAGE
    if not isinstance(value, str):
        raise UsageError(f"lang holds {value!r}, which is no text: give short codes of languages such as 'en'")
    return value
