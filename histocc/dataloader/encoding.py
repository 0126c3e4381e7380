"""Text to CANINE ids, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CLS = 0xE000
SEP = 0xE001
LANGUAGE_SEPARATOR = "[SEP]"  # five literal characters between language and description
UNKNOWN_LANGUAGE = "unk"


def concat_string_canine(occ1: str, lang: str) -> str:
    """The input text of a description and its language."""
    return lang + LANGUAGE_SEPARATOR + occ1


def codepoints_of(text: str) -> np.ndarray:
    """The code points of a string, uint32 [number of characters]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def text_of(codepoints: np.ndarray) -> str:
    """The string that code points spell; the inverse of `codepoints_of`."""
    return codepoints.astype("<u4", copy=False).tobytes().decode("utf-32-le")


def texts_of(codepoints: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Strings from the code points of many texts, joined end to end."""
    joined = text_of(codepoints)
    ends = np.cumsum(lengths)
    return [joined[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist())]


class LanguagePrefixes:
    """What stands in front of a description: [CLS], the language, and the five characters `[SEP]`.

    Attributes
    ----------
    ids
        int64 [number of languages + 1, P]; the last row is that of `unk`.
    lengths
        int64 [number of languages + 1].
    unknown
        Index of `unk` in both.
    names
        The languages and `unk`.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self.names = [*languages, UNKNOWN_LANGUAGE]
        self.unknown = len(languages)
        prefixes = [codepoints_of(language + LANGUAGE_SEPARATOR) for language in self.names]
        self.lengths = np.array([len(prefix) + 1 for prefix in prefixes], dtype=np.int64)
        self.ids = np.zeros((len(prefixes), int(self.lengths.max())), dtype=np.int64)
        self.ids[:, 0] = CLS
        for row, prefix in zip(self.ids, prefixes):
            row[1 : len(prefix) + 1] = prefix


def encode_texts(
    codepoints: np.ndarray, lengths: np.ndarray, language_index: np.ndarray, prefixes: LanguagePrefixes, max_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask as transformers' `CanineTokenizer` gives them for `language + '[SEP]' + text`.

    Ids are the code points themselves between [CLS] (U+E000) and [SEP] (U+E001), cut to `max_len` ids with the closing
    [SEP] kept, then padded with 0. U+0000 and the private-use characters U+E000..U+E004 that mean something to CANINE
    are no exception when they occur in a text: they keep their code point and are attended to. (The tokenizer does the
    same, but for transformers 4, which drops white space before U+E003.)

    Parameters
    ----------
    codepoints
        The texts' code points end to end, uint32 [sum of lengths].
    lengths
        Characters of each text, int64 [B].
    language_index
        Row of `prefixes` for each text, [B].
    prefixes
        The languages' prefixes.
    max_len
        L, at least 2.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        `input_ids` and `attention_mask`, both int64 [B, L].
    """
    rows = len(lengths)
    room = max_len - 1  # the closing [SEP] takes one
    before = np.minimum(prefixes.lengths[language_index], room)
    kept = np.minimum(lengths, room - before)
    starts = np.cumsum(lengths) - lengths

    ids = np.zeros((rows, max_len), dtype=np.int64)
    width = min(prefixes.ids.shape[1], room)
    ids[:, :width] = prefixes.ids[language_index, :width]

    first = np.arange(rows) * max_len + before
    kept_starts = np.cumsum(kept) - kept
    step = np.arange(int(kept.sum()))
    flat = ids.reshape(-1)
    flat[step + np.repeat(first - kept_starts, kept)] = codepoints[step + np.repeat(starts - kept_starts, kept)]
    flat[first + kept] = SEP

    mask = (np.arange(max_len) <= (before + kept)[:, None]).astype(np.int64)
    return ids, mask


def encode_input(text: str, max_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask, int64 [L], of one input text, language and `[SEP]` included; see `encode_texts`."""
    codepoints = codepoints_of(text)[: max_len - 2]
    ids = np.zeros(max_len, dtype=np.int64)
    ids[0], ids[len(codepoints) + 1] = CLS, SEP
    ids[1 : len(codepoints) + 1] = codepoints
    return ids, (np.arange(max_len) < len(codepoints) + 2).astype(np.int64)
