"""Texts on their way into a model: cleaned, and encoded a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from histocc.dataloader.encoding import LANGUAGE_SEPARATOR, LanguagePrefixes, codepoints_of, encode_texts
from histocc.prediction.transliteration import to_ascii


def clean_text(text: str, *, lowercase: bool, ascii_only: bool) -> str:
    """The text as the model was trained with it."""
    if lowercase:
        text = text.lower()
    return to_ascii(text) if ascii_only else text


def model_input(text: str, language: str) -> str:
    """What the model reads: the language and the cleaned text."""
    return f"{language}{LANGUAGE_SEPARATOR}{text}"


class Texts:
    """Cleaned texts and their languages, ready to be encoded.

    Parameters
    ----------
    texts, languages
        One of each for every row, n of them.
    max_len
        L, the ids of a text at most.

    Attributes
    ----------
    lengths
        The ids of each text, int64 [n].
    """

    def __init__(self, texts: Sequence[str], languages: Sequence[str], max_len: int) -> None:
        self.max_len = max_len
        self._texts = list(texts)
        distinct = {language: i for i, language in enumerate(dict.fromkeys(languages))}
        self._prefixes = LanguagePrefixes(list(distinct))
        self._language_index = np.array([distinct[language] for language in languages], dtype=np.int64)
        self._text_lengths = np.array([len(text) for text in self._texts], dtype=np.int64)
        self.lengths = np.minimum(self._prefixes.lengths[self._language_index] + self._text_lengths + 1, max_len)

    def __len__(self) -> int:
        return len(self._texts)

    def encode(self, rows: np.ndarray, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and attention mask of some rows, int64 [b, width]; the width is L by default and holds all texts."""
        codepoints = codepoints_of("".join([self._texts[row] for row in rows.tolist()]))
        return encode_texts(
            codepoints,
            self._text_lengths[rows],
            self._language_index[rows],
            self._prefixes,
            self.max_len if width is None else width,
        )
