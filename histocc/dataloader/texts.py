"""What both data sets do alike: a row's description and language, with the noise of training, as CANINE's ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from histocc.dataloader.augmentation import BatchAugmenter
from histocc.dataloader.draws import Draws
from histocc.dataloader.encoding import (
    LANGUAGE_SEPARATOR,
    UNKNOWN_LANGUAGE,
    LanguagePrefixes,
    encode_texts,
    texts_of,
)
from histocc.dataloader.rows import TextColumn


class Texts(NamedTuple):
    """Descriptions of some rows and what stands in front of them.

    Attributes
    ----------
    codepoints
        The descriptions end to end, uint32.
    lengths
        Characters of each, int64 [B].
    languages
        Index of each row's language in the data set's prefixes, int64 [B].
    """

    codepoints: np.ndarray
    lengths: np.ndarray
    languages: np.ndarray


class TextDataset(Dataset):
    """Descriptions with languages.

    What the noise does to a row is a function of (seed, epoch, place in the data set).

    Parameters
    ----------
    text
        Descriptions of a table.
    languages
        Distinct languages.
    language_index
        Index into `languages` of each row of the table, [n].
    max_input_len
        L, ids of a row, at most.
    augmenter
        The noise; None leaves texts and languages as they are.

    Attributes
    ----------
    epoch
        The epoch whose noise `dataset[i]` shows; loaders carry their own.
    """

    def __init__(
        self,
        text: TextColumn,
        languages: list[str],
        language_index: np.ndarray,
        max_input_len: int,
        augmenter: BatchAugmenter | None = None,
    ) -> None:
        self.text = text
        self.languages = languages
        self.language_index = language_index
        self.max_input_len = max_input_len
        self.augmenter = augmenter
        self.epoch = 0
        self._prefixes = LanguagePrefixes(languages)

    def __len__(self) -> int:
        return len(self.text)

    def _table_rows(self, places: np.ndarray) -> np.ndarray:
        """Rows of the table that stand at some places of the data set."""
        return places

    def _describe(self, rows: np.ndarray, texts: Texts, draws: Draws) -> Texts:
        """The texts of some rows of the table, as they are before the noise."""
        return texts

    def _texts(self, places: np.ndarray, epoch: int) -> Texts:
        """The texts at some places of the data set, with the noise of an epoch."""
        rows = self._table_rows(places)
        texts = Texts(*self.text.take(rows), self.language_index[rows].astype(np.int64))
        if self.augmenter is None:
            return texts
        # Drawn by place in the data set: a row that occurs several times gets a different noise each time.
        draws = self.augmenter.draws(places, epoch)
        codepoints, lengths, languages = self._describe(rows, texts, draws)
        codepoints, lengths = self.augmenter.attack(codepoints, lengths, draws)
        languages[self.augmenter.hides_language(draws)] = self._prefixes.unknown
        return Texts(codepoints, lengths, languages)

    def _places(self, items: np.ndarray | list[int]) -> np.ndarray:
        """Places from indices that may count from the end, int64; raises IndexError for one outside."""
        places = np.asarray(items, dtype=np.int64)
        outside = (places < -len(self)) | (places >= len(self))
        if outside.any():
            raise IndexError(f"row {places[outside][0]} of {len(self)}")
        return places % len(self)

    def _encode(self, texts: Texts, max_len: int) -> tuple[np.ndarray, np.ndarray]:
        """`input_ids` and `attention_mask`, both int64 [B, L], of L = `max_len`."""
        return encode_texts(texts.codepoints, texts.lengths, texts.languages, self._prefixes, max_len)

    def _padded_lengths(self, texts: Texts, multiple: int) -> np.ndarray:
        """Ids that each text needs, rounded up to a multiple and at most `max_input_len`, int64 [B]."""
        needed = self._prefixes.lengths[texts.languages] + texts.lengths + 1
        return np.minimum(-(-needed // multiple) * multiple, self.max_input_len)

    def _input_texts(self, texts: Texts) -> list[str]:
        """The texts as the model sees them, `language[SEP]description`."""
        names = [*self.languages, UNKNOWN_LANGUAGE]
        descriptions = texts_of(texts.codepoints, texts.lengths)
        return [
            names[language] + LANGUAGE_SEPARATOR + description
            for language, description in zip(texts.languages.tolist(), descriptions)
        ]


def multi_hot_rows(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """The classes of each row as a multi-hot.

    Parameters
    ----------
    classes
        Class indices, [n, K]; those outside 0 .. C - 1 are left out.
    num_classes
        C.

    Returns
    -------
    np.ndarray
        Float32 [n, C], 1 at the classes of each row.
    """
    hot = np.zeros((len(classes), num_classes), dtype=np.float32)
    row, column = np.nonzero((classes >= 0) & (classes < num_classes))
    hot[row, classes[row, column]] = 1.0
    return hot
