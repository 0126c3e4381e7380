"""The data set of the mixer: descriptions with a label as tokens and as classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from histocc.dataloader.augmentation import ADD_DESCRIPTION, BatchAugmenter
from histocc.dataloader.batch import Batch
from histocc.dataloader.codes import CodeTable
from histocc.dataloader.descriptions import Descriptions
from histocc.dataloader.draws import Draws
from histocc.dataloader.encoding import codepoints_of, texts_of
from histocc.dataloader.rows import read_table
from histocc.dataloader.texts import TextDataset, Texts, multi_hot_rows
from histocc.dataloader.words import Words
from histocc.errors import UsageError
from histocc.formatter import BOS_IDX, EOS_IDX, PAD_IDX

if TYPE_CHECKING:
    import pandas as pd

TARGET_COLUMNS: dict[str, tuple[str, ...]] = {
    "hisco": ("code1", "code2", "code3", "code4", "code5"),
    "occ1950": ("OCC1950_1", "OCC1950_2"),
}

# Lengths that trimmed batches are padded to: multiples of this keep the number of shapes small, and kernels fast.
TRIM_MULTIPLE = 16


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
        if target_cols not in TARGET_COLUMNS:
            raise UsageError(
                f"target_cols is {target_cols!r}, but must be one of {', '.join(map(repr, TARGET_COLUMNS))} "
                "or a list of column names (--target-col-naming, --target-cols)."
            )
        return list(TARGET_COLUMNS[target_cols][:room])
    if not 0 < len(target_cols) <= room:
        raise UsageError(
            f"{len(target_cols)} target columns are named ({', '.join(target_cols)}), "
            f"but a row has room for 1 to {room} codes (--target-cols)."
        )
    return list(target_cols)


class OccDatasetMixerInMemMultipleFiles(TextDataset):
    """Rows of one or more CSV or Parquet files, held in memory without a Python object per row.

    The files have the columns `occ1`, `lang` and the target columns; others are not read. Text is text, also when it is
    spelt `nan`, `NA` or `null`; an empty cell of a target column is a missing code, and the first one ends the row.

    In training, a row may first be joined by a description of its first code; then it is attacked, stripped of `'`, `[`
    and `]` at both ends, and its language may be replaced by `unk`. All of this is a function of (seed, epoch, row).

    Parameters
    ----------
    fnames_data
        The files.
    formatter
        A formatter of `histocc.formatter`.
    tokenizer
        Not used, ids are CANINE's code points; kept so that existing calls work. May be None.
    max_input_len
        L, ids of a row.
    num_classes_flat
        C.
    training
        Augment.
    alt_prob
        Probability that a row is attacked.
    n_trans
        Transformations of an attacked row.
    unk_lang_prob
        Probability that the language is replaced by `unk`.
    target_cols
        `'hisco'` (`code1` .. `code5`), `'occ1950'` (`OCC1950_1`, `OCC1950_2`) or column names.
    map_code_label
        Class of each code; without it codes are their own classes.
    word_freq_table
        Columns `word` and `freq`; words to insert, in place of those of the data itself.
    seed
        Of the augmentation.
    descriptions
        Descriptions to join in training.

    Attributes
    ----------
    languages
        Distinct languages, in order of appearance.
    language_index
        Index of each row's language, [n].
    map_code_label
        As given.
    notes
        What the owner of the files should know, a line each.
    epoch
        The epoch whose augmentation `dataset[i]` shows; loaders carry their own.

    Raises
    ------
    UsageError
        Names all that is wrong with the files, with file, column, row number and value.
    """

    def __init__(
        self,
        fnames_data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        formatter: Any,
        tokenizer: Any,
        max_input_len: int,
        num_classes_flat: int,
        training: bool = True,
        alt_prob: float = 0.3,
        n_trans: int = 3,
        unk_lang_prob: float = 0.25,
        target_cols: str | Sequence[str] = "hisco",
        map_code_label: Mapping[str, int] | None = None,
        word_freq_table: pd.DataFrame | None = None,
        *,
        seed: int = 42,
        descriptions: Descriptions | None = None,
    ) -> None:
        del tokenizer
        if max_input_len < 2:
            raise UsageError(f"max_input_len is {max_input_len}, but [CLS] and [SEP] alone take 2 (--max-len).")
        self.target_cols = target_columns(target_cols, formatter)
        codes = CodeTable(formatter, num_classes_flat, map_code_label)
        table = read_table(fnames_data, self.target_cols, codes.lookup)
        super().__init__(table.text, table.languages, table.language_index, max_input_len)
        self.map_code_label = map_code_label
        self.formatter = formatter
        self.num_classes_flat = num_classes_flat
        self.training = training
        self.labels = table.labels
        self.notes = table.notes()
        self.codes = codes.codes
        self._code_cells = np.array([*map(int, codes.cells), -1]) if codes.holds_classes else None
        self._classes = codes.classes()
        self._tokens = codes.tokens(PAD_IDX)

        self.descriptions: Descriptions | None = None
        if training:
            words = None
            if alt_prob > 0 and n_trans > 0:
                words = (
                    Words.from_column(self.text) if word_freq_table is None else Words.from_frequencies(word_freq_table)
                )
            self.augmenter = BatchAugmenter(alt_prob, n_trans, unk_lang_prob, words, seed)
            self.descriptions = descriptions

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row, augmented as in epoch `self.epoch`.

        Returns
        -------
        dict
            `occ1`, the input text; `input_ids` and `attention_mask`, int64 [L]; `targets_seq2seq`, int64 [T];
            `targets_linear`, float32 [C], 1 at the row's classes.

        Raises
        ------
        IndexError
            There is no such row.
        """
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The items of several rows, made at once (torch's `DataLoader` asks for them so)."""
        places = self._places(rows)
        texts = self._texts(places, self.epoch)
        batch = self._batch(places, texts, self.max_input_len)
        linear = torch.from_numpy(multi_hot_rows(batch["targets_classes"].numpy(), self.num_classes_flat))
        return [
            {
                "occ1": text,
                "input_ids": batch["input_ids"][i],
                "attention_mask": batch["attention_mask"][i],
                "targets_seq2seq": batch["targets_seq2seq"][i],
                "targets_linear": linear[i],
            }
            for i, text in enumerate(self._input_texts(texts))
        ]

    def batch(self, rows: np.ndarray, epoch: int | None = None, trim_padding: bool = False) -> Batch:
        """Several rows as one batch, ready for the engine.

        Parameters
        ----------
        rows
            Row numbers, 0 .. n - 1, [B].
        epoch
            Whose augmentation to apply; `self.epoch` by default.
        trim_padding
            Pad to the longest row, rounded up to a multiple of 16, instead of to `max_input_len`.

        Returns
        -------
        Batch
            `input_ids`, `attention_mask`, `targets_seq2seq`, `targets_classes`, `rows`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        texts = self._texts(rows, self.epoch if epoch is None else epoch)
        max_len = int(self._padded_lengths(texts, TRIM_MULTIPLE).max()) if trim_padding else self.max_input_len
        return self._batch(rows, texts, max_len)

    def padded_lengths(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Ids of each row with the epoch's augmentation, rounded up to a multiple of 16, int64 [B]."""
        return self._padded_lengths(self._texts(rows, epoch), TRIM_MULTIPLE)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table, built anew: `occ1`, `lang` and the target columns.

        Codes are text, None where they are missing; class indices (HISCO) are whole numbers, missing ones `<NA>`.
        """
        import pandas as pd

        languages = np.array(self.languages, dtype=object)
        columns: dict[str, Any] = {"occ1": self.text.to_list(), "lang": languages[self.language_index]}
        cells = np.array([*self.codes, None], dtype=object)
        for name, labels in zip(self.target_cols, self.labels.T):
            if self._code_cells is not None:
                columns[name] = pd.arrays.IntegerArray(self._code_cells[labels], labels < 0)
            else:
                columns[name] = cells[labels]
        return pd.DataFrame(columns)

    def _describe(self, rows: np.ndarray, texts: Texts, draws: Draws) -> Texts:
        """Join descriptions to some of the texts."""
        if self.descriptions is None:
            return texts
        described = texts_of(texts.codepoints, texts.lengths)
        first_codes = self.labels[rows, 0]
        for i in np.flatnonzero(draws.uniform(ADD_DESCRIPTION) < self.descriptions.prob).tolist():
            language = self.languages[texts.languages[i]]
            described[i] = self.descriptions.join(described[i], self.codes[first_codes[i]], language)
        lengths = np.array([len(text) for text in described], dtype=np.int64)
        return Texts(codepoints_of("".join(described)), lengths, texts.languages)

    def _batch(self, rows: np.ndarray, texts: Texts, max_len: int) -> Batch:
        ids, mask = self._encode(texts, max_len)
        labels = self.labels[rows]
        tokens = self._tokens[labels].reshape(len(rows), -1)
        targets = np.full((len(rows), self.formatter.max_seq_len), PAD_IDX, dtype=np.int64)
        targets[:, 0] = BOS_IDX
        targets[:, 1 : 1 + tokens.shape[1]] = tokens
        targets[:, -1] = EOS_IDX
        classes = np.full((len(rows), self.formatter.max_num_codes), -1, dtype=np.int64)
        classes[:, : labels.shape[1]] = self._classes[labels]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "targets_seq2seq": torch.from_numpy(targets),
            "targets_classes": torch.from_numpy(classes),
            "rows": torch.from_numpy(rows),
        }
