"""The data set of the mixer: descriptions with a label as tokens and as classes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import default_collate

from histocc.attacker import AttackerClass
from histocc.dataloader.augmentation import ADD_DESCRIPTION, ATTACKER, OWN_PART, BatchAugmenter, check_noise, strip
from histocc.dataloader.batch import Batch
from histocc.dataloader.coded_rows import CodedRows
from histocc.dataloader.descriptions import DEFAULT_TEMPLATE, Descriptions
from histocc.dataloader.draws import Draws
from histocc.dataloader.encoding import (
    UNKNOWN_LANGUAGE,
    codepoints_of,
    concat_string_canine,
    encode_input,
    texts_of,
)
from histocc.dataloader.frame_rows import cell_text
from histocc.dataloader.overridden import (
    Fetch,
    ReadyParts,
    Uses,
    makes_blocks,
    may_be_overridden,
    overrides,
    seeded_random,
)
from histocc.dataloader.rows import BadValueError
from histocc.dataloader.texts import Texts, multi_hot_rows
from histocc.dataloader.tokenizers import encode_with, gives_canine_ids
from histocc.dataloader.words import Words
from histocc.errors import UsageError
from histocc.formatter import BOS_IDX, EOS_IDX, PAD_IDX

if TYPE_CHECKING:
    import pandas as pd

# Lengths that trimmed batches are padded to: multiples of this keep the number of shapes small, and kernels fast.
TRIM_MULTIPLE = 16
# What an item is made of; a subclass may override any of it.
_PARTS = (
    "_get_record",
    "_get_primary_description",
    "_augment_occ_descr_lang",
    "_prepare_input",
    "_get_target_linear",
)


def _noise_setting(name: str, of_attacker: bool) -> property:
    """A setting of the noise; the attacker has it once it has been handed out."""

    def owner(self: OccDatasetMixerInMemMultipleFiles) -> Any:
        return self.augmenter if self._attacker is None or not of_attacker else self._attacker

    def get(self: OccDatasetMixerInMemMultipleFiles) -> Any:
        return getattr(owner(self), name)

    def set_(self: OccDatasetMixerInMemMultipleFiles, value: Any) -> None:
        check_noise(name, value)
        if not hasattr(owner(self), name):
            raise UsageError(f"{name} is for the attacker to heed, and {type(self._attacker).__name__} has none")
        setattr(owner(self), name, value)

    return property(get, set_, doc=f"`{name}` of the noise.")


class OccDatasetMixerInMemMultipleFiles(CodedRows):
    """Rows of one or more CSV or Parquet files, held in memory without a Python object per row.

    The files have the columns `occ1`, `lang` and the target columns; others are not read. Text is text, also when it is
    spelt `nan`, `NA` or `null`; an empty cell of a target column is a missing code, and the first one ends the row.

    In training, a row may first be joined by a description of its first code; then it is attacked, stripped of `'`, `[`
    and `]` at both ends, and its language may be replaced by `unk`. In the batches of `make_loader` all of this is a
    function of (seed, epoch, row). `dataset[i]`, and so a `DataLoader` of one's own, draws anew each time from torch's
    generator. Code of one's own may draw from Python's `random`: it is seeded for each row in the same way.

    Rows are made a batch at a time. They are made one by one, in the batches of `make_loader` too, where a subclass
    overrides `__getitem__` or a part of an item (`_get_record`, `_get_primary_description`, `_augment_occ_descr_lang`,
    `_prepare_input`, `_get_target_linear`), where the formatter has its own `transform_label` or `sanitize`, and with a
    tokenizer that is not CANINE's.

    Attributes may be set later; they count from the next fetch on.

    Parameters
    ----------
    fnames_data
        The files.
    formatter
        A formatter of `histocc.formatter`, or any object with `transform_label`, `max_num_codes`, `block_size`,
        `max_seq_len` and `num_classes`.
    tokenizer
        CANINE's, or None for it; another one is called for each text, as those of transformers are.
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
        Class of each code; without it codes are their own classes. To change a class later, set another mapping.
    word_freq_table
        Columns `word` and `freq`; words to insert, in place of those of the data itself.
    include_descriptions
        Join descriptions in training; without any there is a warning, and training goes on.
    description_prob
        Probability that a row gets the description of its first code.
    description_template
        How text and description are joined; `{occ}` and `{desc}` stand for them.
    descriptions
        Descriptions by code: text, or texts by language; or a DataFrame with the columns named below. `Descriptions`
        brings its own probability and template, and needs no `include_descriptions`.
    descriptions_file
        A CSV or Parquet file of them.
    descriptions_code_col, descriptions_text_col, descriptions_lang_col
        Its columns; the last may be None.
    seed
        Of the augmentation in batches for an epoch.

    Attributes
    ----------
    frame
        The rows as a DataFrame, built when it is first asked for. From then on rows are read from it, so that changes
        of it count; another one may be set.
    attacker
        The `AttackerClass` of the noise, built when it is first asked for. From then on it attacks the texts; any
        object with a method `attack` may be set.
    languages
        Distinct languages, in order of appearance.
    language_index
        Index of each row's language, [n].
    notes
        What the owner of the files should know, a line each.

    Raises
    ------
    UsageError
        Names all that is wrong with the files, with file, column, row number and value.
    """

    alt_prob = _noise_setting("alt_prob", of_attacker=True)
    n_trans = _noise_setting("n_trans", of_attacker=True)
    unk_lang_prob = _noise_setting("unk_lang_prob", of_attacker=False)
    seed = _noise_setting("seed", of_attacker=False)

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
        include_descriptions: bool = False,
        description_prob: float = 0.5,
        description_template: str = DEFAULT_TEMPLATE,
        descriptions: Descriptions | Mapping[str, str | Mapping[str, str]] | pd.DataFrame | None = None,
        descriptions_file: str | os.PathLike[str] | None = None,
        descriptions_code_col: str | None = None,
        descriptions_text_col: str | None = None,
        descriptions_lang_col: str | None = None,
        *,
        seed: int = 42,
    ) -> None:
        super().__init__(fnames_data, formatter, max_input_len, num_classes_flat, target_cols, map_code_label)
        self.tokenizer = tokenizer
        self.training = training
        # Tokenizer and length that were last looked at, and whether the ids are CANINE's.
        self._looked_at: tuple[Any, int, bool] | None = None
        self._attacker: Any = None
        # The rows that an overridden `__getitem__` is making, and the random numbers of the item that is being made.
        self._fetch: Fetch | None = None
        self._noise_of_item: Uses | None = None

        self._word_freq_table = word_freq_table
        self._words_are_there = False
        self.augmenter = BatchAugmenter(alt_prob, n_trans, unk_lang_prob, seed=seed)
        if training:
            self._find_words()
        self._descriptions = Descriptions({}, description_prob, description_template)
        loaded = self._load_descriptions(
            descriptions, descriptions_file, descriptions_code_col, descriptions_text_col, descriptions_lang_col
        )
        if loaded is not None:
            self.descriptions = loaded
        self.include_descriptions = include_descriptions or isinstance(descriptions, Descriptions)

    # -- descriptions ----------------------------------------------------------------------------------------------

    @property
    def descriptions(self) -> Descriptions | None:
        """The descriptions by code, None where there are none; a mapping may be set."""
        return self._descriptions if len(self._descriptions) else None

    @descriptions.setter
    def descriptions(self, descriptions: Descriptions | Mapping[str, str | Mapping[str, str]] | None) -> None:
        if not isinstance(descriptions, Descriptions):
            descriptions = Descriptions(descriptions or {}, self.description_prob, self.description_template)
        self._descriptions = descriptions
        if len(descriptions) and descriptions.texts.keys().isdisjoint(self.codes):
            warnings.warn(
                f"None of the codes that have a description, such as {next(iter(descriptions))!r}, occurs in the data, "
                f"which has codes such as {', '.join(map(repr, self.codes[:3]))}: spell them alike",
                stacklevel=2,
            )

    @property
    def description_prob(self) -> float:
        """Probability that a row gets the description of its first code."""
        return self._descriptions.prob

    @description_prob.setter
    def description_prob(self, prob: float) -> None:
        self._descriptions = Descriptions(self._descriptions.texts, prob, self.description_template)

    @property
    def description_template(self) -> str:
        """How text and description are joined."""
        return self._descriptions.template

    @description_template.setter
    def description_template(self, template: str) -> None:
        self._descriptions = Descriptions(self._descriptions.texts, self.description_prob, template)

    @property
    def descriptions_multilingual(self) -> bool:
        """Whether the descriptions say their language."""
        return self._descriptions.multilingual

    @property
    def include_descriptions(self) -> bool:
        """Whether descriptions are joined in training."""
        return self._include_descriptions

    @include_descriptions.setter
    def include_descriptions(self, include: bool) -> None:
        self._include_descriptions = bool(include)
        if include and not len(self._descriptions):
            warnings.warn(
                "include_descriptions is on, but there are no descriptions, so none are joined: give descriptions or "
                "descriptions_file",
                stacklevel=2,
            )

    def _load_descriptions(
        self,
        descriptions: Descriptions | Mapping[str, str | Mapping[str, str]] | pd.DataFrame | None = None,
        descriptions_file: str | os.PathLike[str] | None = None,
        descriptions_code_col: str | None = None,
        descriptions_text_col: str | None = None,
        descriptions_lang_col: str | None = None,
    ) -> Descriptions | None:
        """Descriptions from what the data set is given, in the order of its arguments; None where that is nothing.

        Raises
        ------
        UsageError
            A column is not named or missing, or there is no description.
        """
        columns = descriptions_code_col, descriptions_text_col, descriptions_lang_col
        settings = self.description_prob, self.description_template
        if descriptions is None:
            return None if descriptions_file is None else Descriptions.read(descriptions_file, *columns, *settings)
        if isinstance(descriptions, Descriptions):
            return descriptions
        if hasattr(descriptions, "columns"):
            return Descriptions.of_frame(descriptions, *columns, *settings)
        return Descriptions(descriptions, *settings)

    def _joins_descriptions(self) -> bool:
        return self._include_descriptions and len(self._descriptions) > 0 and self.description_prob > 0

    @may_be_overridden
    def _get_primary_description(self, record: Any) -> str | None:
        """The description of a record's first code, in its language; None where there is none."""
        coding, cell = self._coding(), cell_text(record, self.target_cols[0])
        try:
            label = coding.lookup(cell)
        except BadValueError:
            return None
        return None if label < 0 else self._descriptions.find(coding.codes[label], cell_text(record, "lang"))

    def _describe(self, places: np.ndarray, texts: Texts, draws: Draws) -> Texts:
        if not self._joins_descriptions():
            return texts
        described = texts.descriptions()
        first_labels, codes, names = self._labels(places)[:, 0], self._codes.codes, texts.prefixes.names
        chosen = (draws.uniform(ADD_DESCRIPTION) < self.description_prob) & (first_labels >= 0)
        for i in np.flatnonzero(chosen).tolist():
            language = names[texts.languages[i]]
            described[i] = self._descriptions.join(described[i], codes[first_labels[i]], language)
        lengths = np.array([len(text) for text in described], dtype=np.int64)
        return texts._replace(codepoints=codepoints_of("".join(described)), lengths=lengths)

    # -- noise -----------------------------------------------------------------------------------------------------

    @property
    def attacker(self) -> Any:
        """What attacks the texts; its settings may be changed, and another object with a method `attack` be set."""
        if self._attacker is None:
            import pandas as pd

            texts = pd.DataFrame({"occ1": self.text.to_list()})
            self._attacker = AttackerClass(self.alt_prob, self.n_trans, texts, self._word_freq_table)
        return self._attacker

    @attacker.setter
    def attacker(self, attacker: Any) -> None:
        if not callable(getattr(attacker, "attack", None)):
            raise UsageError(
                f"An attacker has a method attack(text), but {attacker!r:.80} has none; set alt_prob to 0 to attack "
                "nothing"
            )
        self._attacker = attacker

    def _augments(self) -> bool:
        return self.training

    def _needs_chance(self) -> bool:
        attacker = self._attacker
        if attacker is not None and type(attacker) is not AttackerClass:
            return True
        return (
            (self.alt_prob > 0 and self.n_trans > 0)
            or self.unk_lang_prob > 0
            or self._joins_descriptions()
            or overrides(self, "_augment_occ_descr_lang")
        )

    def _find_words(self) -> None:
        """Find the words to insert, where that has not been done and they are needed."""
        attacks = self._attacker is None and self.alt_prob > 0 and self.n_trans > 0
        if attacks and not self._words_are_there:
            table = self._word_freq_table
            words = Words.from_column(self.text) if table is None else Words.from_frequencies(table)
            self.augmenter.words = words if len(words) else None
            self._words_are_there = True

    def _attack(self, texts: Texts, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        if self._attacker is None:
            self._find_words()
            return super()._attack(texts, draws)
        attacked = []
        # Without chance there is nothing to seed, and what the attacker draws all the same is its own affair.
        seeds = draws.bits(ATTACKER).tolist() if self._needs_chance() else [None] * len(texts.lengths)
        for text, seed in zip(texts.descriptions(), seeds):
            with seeded_random(seed):
                attacked.append(self._attacker.attack(text))
        if not all(isinstance(text, str) for text in attacked):
            raise UsageError(f"{type(self._attacker).__name__}.attack must return the text, and did not")
        return strip(codepoints_of("".join(attacked)), np.array([len(text) for text in attacked], dtype=np.int64))

    @may_be_overridden
    def _augment_occ_descr_lang(self, occ_descr: str, lang: str) -> tuple[str, str]:
        """Text and language with the noise of training."""
        noise = self._noise_of_item
        draws = self._fresh_draws(np.zeros(1, dtype=np.int64)) if noise is None else noise.next()
        lengths = np.array([len(occ_descr)], dtype=np.int64)
        one = Texts(codepoints_of(occ_descr), lengths, np.zeros(1, dtype=np.int64), self._prefixes)
        (attacked,) = texts_of(*self._attack(one, draws))
        return attacked, UNKNOWN_LANGUAGE if self.augmenter.hides_language(draws)[0] else lang

    # -- items and batches -----------------------------------------------------------------------------------------

    @may_be_overridden
    def __getitem__(self, item: int) -> dict[str, Any]:
        """One row; in training, noise is drawn anew each time.

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
        places = self._places([item])
        fetch = self._fetch
        if fetch is None:
            return self._items(places, self._draws(places, None), self._needs_chance())[0]
        draws = fetch.next_draws()
        if fetch.uses > 1 or places[0] != fetch.places[fetch.position] or self._own_parts():
            return self._items(places, draws, fetch.seeded)[0]
        if fetch.items is None:
            fetch.items = self._items(fetch.places, fetch.draws, fetch.seeded)
        return fetch.items[fetch.position]

    def __getitems__(self, items: Sequence[int]) -> list[dict[str, Any]]:
        """The items of several rows, made at once where that can be (torch's `DataLoader` asks for them so)."""
        places = self._places(items)
        draws = self._draws(places, None)
        if overrides(self, "__getitem__"):
            return self._own_items(items, Fetch(places, draws, self._needs_chance()))
        return self._items(places, draws, self._needs_chance())

    def batch(self, rows: np.ndarray, epoch: int | None = None, trim_padding: bool = False) -> Batch:
        """Several rows as one batch, ready for the engine.

        Parameters
        ----------
        rows
            Row numbers, 0 .. n - 1, [B].
        epoch
            Whose augmentation to apply; without one it is drawn anew.
        trim_padding
            Pad to the longest row, rounded up to a multiple of 16, instead of to `max_input_len`.

        Returns
        -------
        Batch
            `input_ids`, `attention_mask`, `targets_seq2seq`, `targets_classes`, `rows`. Where rows are made one by one,
            all that their items have, so `targets_linear` and `occ1`, and `rows`.

        Raises
        ------
        UsageError
            Padding is to be trimmed where rows are made one by one.
        """
        rows = np.asarray(rows, dtype=np.int64)
        draws = self._draws(rows, epoch)
        if not self._is_made_row_by_row():
            texts = self._texts(rows, draws)
            max_len = self.max_input_len
            if trim_padding:
                max_len = int(texts.padded_lengths(TRIM_MULTIPLE, max_len).max())
            return self._batch(rows, texts, max_len)
        if trim_padding:
            self._refuse_to_trim()
        seeded = epoch is not None or self._needs_chance()
        if overrides(self, "__getitem__"):
            items = self._own_items(rows.tolist(), Fetch(rows, draws, seeded))
        else:
            items = self._from_parts(rows, draws, seeded)
        if not isinstance(items[0], Mapping):
            raise UsageError(
                f"__getitem__ must return a dict to make batches of, and returned {type(items[0]).__name__}"
            )
        return {**default_collate(items), "rows": torch.from_numpy(rows)}

    def padded_lengths(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Ids of each row with the epoch's augmentation, rounded up to a multiple of 16, int64 [B].

        Raises
        ------
        UsageError
            Rows are made one by one.
        """
        if self._is_made_row_by_row():
            self._refuse_to_trim()
        return self._texts(rows, self._draws(rows, epoch)).padded_lengths(TRIM_MULTIPLE, self.max_input_len)

    @may_be_overridden
    def _prepare_input(self, occ_descr: str, lang: str) -> str:
        """The text as the model sees it."""
        return concat_string_canine(occ_descr, lang)

    def _has_canine_ids(self) -> bool:
        seen = self._looked_at
        if seen is None or seen[0] is not self.tokenizer or seen[1] != self.max_input_len:
            canine = gives_canine_ids(self.tokenizer, self.max_input_len)
            seen = self._looked_at = self.tokenizer, self.max_input_len, canine
        return seen[2]

    def _own_parts(self) -> set[str]:
        """The parts of an item that the user gives."""
        return {part for part in _PARTS if overrides(self, part)}

    def _is_made_of_parts(self) -> bool:
        """Whether an item is put together from its parts, since one of them is the user's own."""
        return (
            any(overrides(self, part) for part in _PARTS)
            or not makes_blocks(self.formatter)
            or not self._has_canine_ids()
            or not self._coding().complete
        )

    def _is_made_row_by_row(self) -> bool:
        return overrides(self, "__getitem__") or self._is_made_of_parts()

    def _refuse_to_trim(self) -> None:
        raise UsageError(
            "Padding cannot be trimmed (--trim-padding) where rows are made one by one, since data set, formatter or "
            "tokenizer are of the user's own: leave it out"
        )

    def _own_items(self, items: Sequence[int], fetch: Fetch) -> list[dict[str, Any]]:
        """What a `__getitem__` of the user's own makes of some rows."""
        made = []
        self._fetch, before = fetch, self._fetch
        try:
            for item in items:
                with seeded_random(fetch.begin_row()):
                    made.append(self[item])
        finally:
            self._fetch = before
        return made

    def _items(self, places: np.ndarray, draws: Draws | None, seeded: bool) -> list[dict[str, Any]]:
        return self._from_parts(places, draws, seeded) if self._is_made_of_parts() else self._together(places, draws)

    def _from_parts(self, places: np.ndarray, draws: Draws | None, seeded: bool) -> list[dict[str, Any]]:
        """Items row by row, but for parts that no code of the user's own has a say in."""
        ready = self._ready_parts(places, draws)
        made = []
        for i, place in enumerate(places.tolist()):
            row_draws = None if draws is None else draws.at(np.array([i]))
            with seeded_random(row_draws.seed(OWN_PART) if seeded and row_draws is not None else None):
                made.append(self._item(place, i, ready, row_draws))
        return made

    def _ready_parts(self, places: np.ndarray, draws: Draws | None) -> ReadyParts:
        """What can be made for all of the rows at once."""
        own, coding = self._own_parts(), self._coding()
        own_record = "_get_record" in own
        texts = encoded = tokens = linear = None
        if not own & {"_get_record", "_get_primary_description", "_augment_occ_descr_lang"}:
            found = self._texts(places, draws)
            texts = list(zip(found.descriptions(), (found.prefixes.names[i] for i in found.languages.tolist())))
            if "_prepare_input" not in own and self._has_canine_ids():
                encoded = tuple(map(torch.from_numpy, found.encode(self.max_input_len)))
        if not own_record and coding.classifies and "_get_target_linear" not in own:
            classes = self._classes(self._labels(places))
            linear = torch.from_numpy(multi_hot_rows(classes, self.num_classes_flat))
        if not own_record and coding.complete and makes_blocks(self.formatter):
            tokens = torch.from_numpy(self._tokens(self._labels(places)))
        ready = ReadyParts(own_record, texts, encoded, tokens, linear)
        if ready.need_records:
            self._keep_at_hand(places)
        return ready

    def _item(self, place: int, i: int, ready: ReadyParts, draws: Draws | None) -> dict[str, Any]:
        """The item at a place, of which some parts may be the i-th of those that are ready."""
        record = self._get_record(place) if ready.need_records else None
        occ_descr, lang = self._noisy_record(record, draws) if ready.texts is None else ready.texts[i]
        text = self._prepare_input(occ_descr, lang)
        if not isinstance(text, str):
            raise UsageError(f"_prepare_input must return the input text, and returned {type(text).__name__}")
        if ready.encoded is not None:
            ids, mask = (tensor[i] for tensor in ready.encoded)
        elif self._has_canine_ids():
            ids, mask = map(torch.from_numpy, encode_input(text, self.max_input_len))
        else:
            ids, mask = encode_with(self.tokenizer, text, self.max_input_len)
        tokens = self.formatter.transform_label(record) if ready.tokens is None else ready.tokens[i]
        linear = self._get_target_linear(record) if ready.linear is None else ready.linear[i]
        return {
            "occ1": text,
            "input_ids": ids,
            "attention_mask": mask,
            "targets_seq2seq": torch.as_tensor(tokens).to(torch.int64),
            "targets_linear": torch.as_tensor(linear),
        }

    def _noisy_record(self, record: Any, draws: Draws | None) -> tuple[str, str]:
        """Text and language of a record, with the noise of training where there are `draws`."""
        occ_descr, lang = cell_text(record, "occ1"), cell_text(record, "lang")
        if not lang.strip():
            lang = UNKNOWN_LANGUAGE
        if draws is None:
            return occ_descr, lang
        if self._joins_descriptions() and draws.uniform(ADD_DESCRIPTION)[0] < self.description_prob:
            description = self._get_primary_description(record)
            if description is not None:
                occ_descr = self._descriptions.fill_in(occ_descr, description)
        self._noise_of_item = Uses(draws)
        try:
            return self._augment_occ_descr_lang(occ_descr, lang)
        finally:
            self._noise_of_item = None

    def _together(self, places: np.ndarray, draws: Draws | None) -> list[dict[str, Any]]:
        texts = self._texts(places, draws)
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
            for i, text in enumerate(texts.inputs())
        ]

    def _tokens(self, labels: np.ndarray) -> np.ndarray:
        """`targets_seq2seq` of some rows, int64 [B, T]."""
        tokens = self._codes.arrays()[1][labels].reshape(len(labels), -1)
        targets = np.full((len(labels), self.formatter.max_seq_len), PAD_IDX, dtype=np.int64)
        targets[:, 0] = BOS_IDX
        targets[:, 1 : 1 + tokens.shape[1]] = tokens
        targets[:, -1] = EOS_IDX
        return targets

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        """`targets_classes` of some rows, int64 [B, K]."""
        classes = np.full((len(labels), self.formatter.max_num_codes), -1, dtype=np.int64)
        classes[:, : labels.shape[1]] = self._codes.arrays()[0][labels]
        return classes

    def _batch(self, places: np.ndarray, texts: Texts, max_len: int) -> Batch:
        ids, mask = texts.encode(max_len)
        labels = self._labels(places)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "targets_seq2seq": torch.from_numpy(self._tokens(labels)),
            "targets_classes": torch.from_numpy(self._classes(labels)),
            "rows": torch.from_numpy(places),
        }
