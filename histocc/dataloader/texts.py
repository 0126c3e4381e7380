"""What both data sets do alike: a row's description and language, with the noise of training, as CANINE's ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from histocc.dataloader.augmentation import BatchAugmenter
from histocc.dataloader.draws import Draws
from histocc.dataloader.encoding import LanguagePrefixes, concat_string_canine, encode_texts, texts_of
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
        Index of each row's language in `prefixes`, int64 [B].
    prefixes
        The languages.
    """

    codepoints: np.ndarray
    lengths: np.ndarray
    languages: np.ndarray
    prefixes: LanguagePrefixes

    def encode(self, max_len: int) -> tuple[np.ndarray, np.ndarray]:
        """`input_ids` and `attention_mask`, both int64 [B, L] of L = `max_len`."""
        return encode_texts(self.codepoints, self.lengths, self.languages, self.prefixes, max_len)

    def padded_lengths(self, multiple: int, max_len: int) -> np.ndarray:
        """Ids that each text needs, rounded up to a multiple and at most `max_len`, int64 [B]."""
        needed = self.prefixes.lengths[self.languages] + self.lengths + 1
        return np.minimum(-(-needed // multiple) * multiple, max_len)

    def descriptions(self) -> list[str]:
        """The descriptions as strings."""
        return texts_of(self.codepoints, self.lengths)

    def inputs(self) -> list[str]:
        """The texts as the model sees them, `language[SEP]description`."""
        names = self.prefixes.names
        return [
            concat_string_canine(description, names[language])
            for language, description in zip(self.languages.tolist(), self.descriptions())
        ]


class TextDataset(Dataset):
    """Descriptions with languages.

    In batches for an epoch the noise on a row is a function of (seed, epoch, place in the data set). Where no epoch is
    named, as by a plain `DataLoader`, each fetch draws noise of its own from torch's generator, which
    `torch.manual_seed` decides, and in which each worker and each pass over the data has a part of its own.

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
    """

    def __init__(
        self,
        text: TextColumn,
        languages: list[str],
        language_index: np.ndarray,
        max_input_len: int,
        augmenter: BatchAugmenter | None = None,
    ) -> None:
        self._text = text
        self._languages = languages
        self._language_index = language_index
        self.max_input_len = max_input_len
        self.augmenter = augmenter
        self._prefixes = LanguagePrefixes(languages)

    def __len__(self) -> int:
        return len(self._text)

    @property
    def text(self) -> TextColumn:
        """Descriptions of the table."""
        return self._text

    @property
    def languages(self) -> list[str]:
        """Distinct languages."""
        return self._languages

    @property
    def language_index(self) -> np.ndarray:
        """Index into `languages` of each row of the table, [n]."""
        return self._language_index

    def _read(self, places: np.ndarray) -> Texts:
        """The texts at some places of the data set, without noise."""
        return Texts(*self._text.take(places), self._language_index[places].astype(np.int64), self._prefixes)

    def _augments(self) -> bool:
        """Whether rows are changed at all."""
        return self.augmenter is not None

    def _needs_chance(self) -> bool:
        """Whether it is left to chance how."""
        return self.augmenter.has_effect

    def _draws(self, places: np.ndarray, epoch: int | None) -> Draws | None:
        """The random numbers of some places; None where rows stay as they are."""
        if not self._augments():
            return None
        if epoch is not None:
            # By place in the data set: a row of the table that stands at several places has its own noise at each.
            return self.augmenter.draws(places, epoch)
        return self._fresh_draws(places)

    def _fresh_draws(self, places: np.ndarray) -> Draws:
        # What needs no random numbers takes none from torch: order and dropout stay those of a script without noise.
        seed = _seed_from_torch() if self._needs_chance() else 0
        # By position in the fetch too, since a row may be fetched several times at once.
        return Draws(seed, 0, places + (np.arange(len(places)) << 40))

    def _describe(self, places: np.ndarray, texts: Texts, draws: Draws) -> Texts:
        """The texts as they are before the noise."""
        return texts

    def _attack(self, texts: Texts, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Code points and lengths of the texts with the noise."""
        return self.augmenter.attack(texts.codepoints, texts.lengths, draws)

    def _texts(self, places: np.ndarray, draws: Draws | None) -> Texts:
        """The texts at some places of the data set, with the noise that `draws` decide."""
        texts = self._read(places)
        if draws is None:
            return texts
        texts = self._describe(places, texts, draws)
        codepoints, lengths = self._attack(texts, draws)
        languages = texts.languages
        languages[self.augmenter.hides_language(draws)] = texts.prefixes.unknown
        return Texts(codepoints, lengths, languages, texts.prefixes)

    def _places(self, items: Sequence[int]) -> np.ndarray:
        """Places from indices that may count from the end, int64; raises IndexError for one outside."""
        places = np.asarray(items, dtype=np.int64)
        outside = (places < -len(self)) | (places >= len(self))
        if outside.any():
            raise IndexError(f"row {places[outside][0]} of {len(self)}")
        return places % len(self)


def _seed_from_torch() -> int:
    """A number that torch's generator draws; in a worker it is the worker's own, seeded for the pass."""
    return int(torch.empty((), dtype=torch.int64).random_())


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
