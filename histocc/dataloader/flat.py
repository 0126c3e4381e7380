"""Data of the flat classifier: which rows are trained on, how often, their labels, and the loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.dataloader.augmentation import BatchAugmenter
from histocc.dataloader.codes import CodeTable
from histocc.dataloader.flat_dataset import WIDTH_STEP, FlatDataset
from histocc.dataloader.loader import Workers, make_loader
from histocc.dataloader.rows import TextColumn, as_paths, check_files, read_table, smallest
from histocc.dataloader.samplers import EvalBatchSampler, TrainBatchSampler, evaluation_rows
from histocc.dataloader.texts import multi_hot_rows
from histocc.dataloader.tokenizers import gives_canine_ids
from histocc.dataloader.words import Words
from histocc.datasets import CODE_COLUMNS, hisco_codes, sample_paths
from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.tables import by_blanks

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import DataLoader

TRAINING_FOLDER = "../Data/Training_data"
COLUMNS = ("occ1", "lang", *CODE_COLUMNS)
N_CLASSES = 1919
CANINE, NO_TOKENIZER = "Multilingual_CANINE", "No tokenizer"
UNK_LANG_PROB = 0.25
N_TRANS = 3

_SEED = 20  # of the sampling steps and the split: the original's, so that its rows are ours
_REFERENCE_ROWS = 10_000

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


# -- which rows ----------------------------------------------------------------------------------------------------


def _sample(population: np.ndarray, size: int, *, replace: bool = False) -> np.ndarray:
    """What `DataFrame.sample(size, random_state=20)` draws, on row numbers."""
    drawn = np.random.RandomState(_SEED).choice(len(population), size, replace=replace)
    return population[drawn]


def resample_rows(first_classes: np.ndarray, downsample_top1: bool = True, upsample_below: int = 0) -> np.ndarray:
    """Row numbers after evening out the classes, in the order in which the rows then stand.

    Parameters
    ----------
    first_classes
        First class of each row, [n].
    downsample_top1
        Sample the rows of the largest class down to the size of the second largest, and shuffle.
    upsample_below
        Give each class with fewer rows than this so many more of its rows, drawn with replacement, and shuffle; 0
        leaves them.

    Returns
    -------
    np.ndarray
        Row numbers, int64 [m].
    """
    rows = np.arange(len(first_classes))
    if downsample_top1:
        classes, counts = _by_appearance(first_classes)
        if len(classes) > 1:
            # Of classes of the same size argmax takes the one that appears first.
            top = first_classes == classes[counts.argmax()]
            kept = _sample(np.flatnonzero(top), int(np.sort(counts)[-2]))
            rows = np.concatenate([kept, np.flatnonzero(~top)])
        rows = _sample(rows, len(rows))
    if upsample_below > 0:
        own = first_classes[rows]
        classes, counts = _by_appearance(own)
        added = [_sample(rows[own == c], upsample_below, replace=True) for c in classes[counts < upsample_below]]
        rows = np.concatenate([rows, *added])
        rows = _sample(rows, len(rows))
    return rows


def _by_appearance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order of appearance, and how often each occurs."""
    distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(first)
    return distinct[order], counts[order]


def subset_rows(rows: np.ndarray, sample_size: int) -> np.ndarray:
    """10 ** `sample_size` of the rows, if there are more."""
    return _sample(rows, 10**sample_size) if 10**sample_size < len(rows) else rows


def split_rows(
    rows: np.ndarray, most_set_aside: int = 10**5, share_set_aside: float = 0.05, share_test: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows.

    Parameters
    ----------
    rows
        Row numbers, [n].
    most_set_aside
        Rows set aside for validation and test, at most.
    share_set_aside
        Share of the rows set aside, rounded up.
    share_test
        Share of those that goes to the test, rounded up.

    Raises
    ------
    UsageError
        A number makes no sense, or nothing is left for one of the three.
    """
    problems = Problems()
    for name, share in (("share set aside for validation and test", share_set_aside), ("share for test", share_test)):
        if not 0 < share < 1:
            problems.add(f"the {name} is {share}, but must lie between 0 and 1")
    problems.raise_if_any()
    train, aside = _split(rows, min(_ceil_share(share_set_aside, len(rows)), most_set_aside))
    val, test = _split(aside, _ceil_share(share_test, len(aside)))
    empty = [name for name, part in (("training", train), ("validation", val), ("test", test)) if not len(part)]
    if empty:
        raise UsageError(
            f"{len(rows):,} rows are too few: {share_set_aside:.3g} of them are set aside for validation and test, "
            f"which leaves none for {' and '.join(empty)} (--train-data, --sample-size)"
        )
    return train, val, test


def _ceil_share(share: float, n: int) -> int:
    return int(np.ceil(share * n))


def _split(rows: np.ndarray, n_test: int) -> tuple[np.ndarray, np.ndarray]:
    """The rest and the part set aside, as scikit-learn's `train_test_split(random_state=20)` finds them."""
    order = np.random.RandomState(_SEED).permutation(len(rows))
    return rows[order[n_test:]], rows[order[:n_test]]


# -- labels --------------------------------------------------------------------------------------------------------


def training_classes(classes: np.ndarray) -> np.ndarray:
    """Classes that are trained: class 0 is dropped (-1) where a class from 3 on is there too; [n, K] as given."""
    return np.where((classes == 0) & (classes >= 3).any(axis=1, keepdims=True), -1, classes)


def reference_classes(classes: np.ndarray) -> np.ndarray:
    """Classes as the reference loss counts them: class 0 is dropped only where class 2 and one from 3 on are there.

    It is a slip of the original that moves the reference loss, and with it the switch to augmented data; it is kept.
    """
    both = (classes == 2).any(axis=1, keepdims=True) & (classes >= 3).any(axis=1, keepdims=True)
    return np.where((classes == 0) & both, -1, classes)


def reference_loss_of(classes: np.ndarray) -> float:
    """Loss of always predicting how frequent each class is: what a model must beat.

    The mean over rows and classes of ``-(y ln p + (1 - y) ln(1 - p))`` with p the class's frequency, clipped to
    [1e-9, 1 - 1e-9], over ``max(first class) + 1`` classes; from 10,000 rows on, on a sample of 10,000.

    Parameters
    ----------
    classes
        Class indices, [n, K], -1 where there is none; the first is there.
    """
    if len(classes) >= _REFERENCE_ROWS:
        classes = _sample(classes, _REFERENCE_ROWS)
    num_classes = int(classes[:, 0].max()) + 1
    counted = reference_classes(classes)
    row, column = np.nonzero((counted >= 0) & (counted < num_classes))
    # A class that a row names twice counts once.
    pairs = np.unique(np.stack([row, counted[row, column]]), axis=1)
    frequency = np.bincount(pairs[1], minlength=num_classes) / len(classes)
    p = np.clip(frequency, 1e-9, 1 - 1e-9)
    return float(-(frequency * np.log(p) + (1 - frequency) * np.log(1 - p)).mean())


# -- the same on data frames, under the original's names ----------------------------------------------------------


def _frame_classes(frame: pd.DataFrame) -> np.ndarray:
    """Class indices of a frame's code columns, int64 [n, K], -1 where there is none."""
    columns = [column for column in CODE_COLUMNS if column in frame.columns]
    return frame[columns].to_numpy(dtype=np.float64, na_value=-1).astype(np.int64)


def resample(
    df: pd.DataFrame, downsample_top1: bool = True, upsample_below: int = 0, verbose: bool = False
) -> pd.DataFrame:
    """`resample_rows` on a frame with the columns `code1` .. `code5`; the index keeps the old row labels."""
    out = df.iloc[resample_rows(_frame_classes(df)[:, 0], downsample_top1, upsample_below)]
    if verbose:
        console.say(f"{len(df):,} rows became {len(out):,}")
    return out


def subset_to_smaller(df: pd.DataFrame, sample_size: int) -> pd.DataFrame:
    """10 ** `sample_size` rows of a frame, if it has more."""
    return df.iloc[subset_rows(np.arange(len(df)), sample_size)]


def train_test_val(
    df: pd.DataFrame,
    verbose: bool = False,
    max_testval: int = 10**5,
    testval_fraction: float = 0.05,
    test_size: float = 0.5,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training, validation and test part of a frame.

    Parameters
    ----------
    df
        The frame.
    verbose
        Print how many rows each part has.
    max_testval, testval_fraction, test_size
        As `most_set_aside`, `share_set_aside` and `share_test` of `split_rows`.

    Raises
    ------
    UsageError
        As for `split_rows`.
    """
    chosen = split_rows(np.arange(len(df)), max_testval, testval_fraction, test_size)
    parts = tuple(df.iloc[rows] for rows in chosen)
    if verbose:
        console.say("training, validation, test: " + ", ".join(f"{len(part):,}" for part in parts))
    return parts


def labels_to_bin(df: pd.DataFrame, max_value: int = N_CLASSES) -> np.ndarray:
    """Multi-hot labels, float32 [n, max_value], of a frame with the columns `code1` .. `code5`.

    One row gives the label that is trained, several rows those of the reference loss, see `training_classes` and
    `reference_classes`. A gap between codes is passed over.
    """
    classes = _frame_classes(df)
    return multi_hot_rows(training_classes(classes) if len(df) == 1 else reference_classes(classes), max_value)


def reference_loss(df: pd.DataFrame) -> float:
    """`reference_loss_of` a frame with the columns `code1` .. `code5`."""
    return reference_loss_of(_frame_classes(df))


# -- reading -------------------------------------------------------------------------------------------------------


def training_files(train_data: Paths, problems: Problems, flag: str = "--train-data") -> list[Path]:
    """The files that `train_data` names: a folder stands for its CSV files in order of name.

    Files that do not exist, are no tables, or lack a column that is read are noted in `problems`; what else they hold
    may differ.
    """
    files: list[Path] = []
    for path in as_paths(train_data):
        if os.path.isdir(path):
            found = sorted(path.glob("*.csv"), key=lambda file: file.name)
            if not found:
                problems.add(f"{path} has no CSV files to train on ({flag}).")
            files += found
        elif not os.path.lexists(path) and not os.path.exists(path):
            advice = by_blanks(path) or ": name a folder with CSV files, or the files themselves"
            problems.add(f"{path} does not exist{advice} ({flag}).")
        else:
            files.append(path)
    if files:
        check_files(files, COLUMNS, flag=flag, problems=problems)
    return files


def load_data(
    model_domain: str = CANINE,
    downsample_top1: bool = True,
    upsample_below: int = 1000,
    sample_size: int = 4,
    max_len: int = 50,
    alt_prob: float = 0.1,
    batch_size: int = 16,
    verbose: bool = False,
    toyload: bool = False,
    tokenizer: Any = NO_TOKENIZER,
    model_size: str = "",
    formatter: None = None,
    insert_words: bool = True,
    *,
    train_data: Paths = TRAINING_FOLDER,
    seed: int = 42,
    rank: int = 0,
    world_size: int = 1,
    workers: Workers | None = None,
    max_val_samples: int | None = None,
    dense_targets: bool = True,
    width_step: int = WIDTH_STEP,
) -> dict[str, Any]:
    """Read training data for the flat classifier, even out its classes, split it, and make loaders.

    Parameters
    ----------
    model_domain
        Whose tokenizer to return.
    downsample_top1
        Sample the largest class down to the size of the second largest, see `resample_rows`.
    upsample_below
        Give classes with fewer rows than this so many more, see `resample_rows`.
    sample_size
        10 to this power is the number of rows taken at most.
    max_len
        Ids of a row, at most.
    alt_prob
        Share of the descriptions that the augmented loader attacks, each with 3 transformations.
    batch_size
        Rows per batch and process.
    verbose
        Print how many rows each step leaves.
    toyload
        Read the sample that ships with the package.
    tokenizer
        A tokenizer that gives CANINE's ids, to be returned in place of the one of `model_domain`.
    model_size
        Accepted for callers of old: all CANINE models share a tokenizer.
    formatter
        None: the flat classifier learns classes alone. Labels of a formatter are what
        `OccDatasetMixerInMemMultipleFiles` gives.
    insert_words
        Let the noise insert words of the training rows.
    train_data
        A folder, whose CSV files are read in order of name, or files; columns occ1, lang, code1 .. code5.
    seed
        Of order and augmentation; sampling and split have a fixed seed of their own.
    rank
        This process.
    world_size
        Number of processes.
    workers
        Who prepares batches; this process by default.
    max_val_samples
        Rows of an evaluation, at most.
    dense_targets
        Give batches a multi-hot `targets`; without it they have class indices alone.
    width_step
        Widths of batches are multiples of this, itself a multiple of 4.

    Returns
    -------
    dict
        `data_loader_train` (no noise), `data_loader_train_attack`, `data_loader_val`, `data_loader_test` (see
        `FlatDataset.batch`; the training loaders hide the language of a quarter of the rows); `tokenizer`; `N_CLASSES`
        (1,919); `key`, the HISCO code of each class; `reference_loss`; `Languages`, the distinct ones; and
        `Occupations`, the description of each row that was read.

    Raises
    ------
    UsageError
        Names all that is wrong with the files, with file, column, row number and value; or there are too few rows; or
        a tokenizer or a formatter is given that cannot be honoured.
    """
    from histocc.formatter import hisco_blocky5
    from histocc.model_assets import load_tokenizer

    problems = Problems()
    if formatter is not None:
        problems.add(
            "load_data gives the flat classifier's classes and takes no formatter: leave it out, or train on an "
            "OccDatasetMixerInMemMultipleFiles, which takes one"
        )
    own_tokenizer = not (isinstance(tokenizer, str) and tokenizer == NO_TOKENIZER)
    if own_tokenizer and not gives_canine_ids(tokenizer, max_len):
        problems.add(
            f"load_data gives the ids of CANINE, and the tokenizer {type(tokenizer).__name__} gives others: leave it "
            "out, or pass that of load_tokenizer()"
        )
    files = training_files(sample_paths() if toyload else train_data, problems)
    problems.raise_if_any()
    codes = CodeTable(hisco_blocky5(), N_CLASSES, tokenise=False)
    table = read_table(files, CODE_COLUMNS, codes.lookup, gap_ends_row=False, flag="--train-data")
    text = space_for_empty(table.text)
    classes = smallest(codes.classes()[table.labels])

    resampled = resample_rows(classes[:, 0], downsample_top1, upsample_below)
    rows = subset_rows(resampled, sample_size)
    baseline = reference_loss_of(classes[rows])
    train, val, test = split_rows(rows)
    if verbose:
        console.say(
            f"{len(text):,} rows read, {len(resampled):,} after resampling, {len(rows):,} of them used: "
            f"{len(train):,} for training, {len(val):,} for validation, {len(test):,} for test"
        )

    trained = smallest(training_classes(classes))
    words = Words.from_column(text, train) if insert_words and alt_prob > 0 else None

    def dataset(part: np.ndarray, augmenter: BatchAugmenter | None = None) -> FlatDataset:
        return FlatDataset(
            text,
            table.languages,
            table.language_index,
            trained,
            part,
            N_CLASSES,
            max_len,
            augmenter=augmenter,
            dense_targets=dense_targets,
            width_step=width_step,
        )

    plain = dataset(train, BatchAugmenter(0.0, N_TRANS, UNK_LANG_PROB, seed=seed))
    attacked = dataset(train, BatchAugmenter(alt_prob, N_TRANS, UNK_LANG_PROB, words, seed))

    def train_loader(data: FlatDataset) -> DataLoader:
        return make_loader(data, TrainBatchSampler(len(data), batch_size, seed, rank, world_size), workers)

    def eval_loader(data: FlatDataset, max_samples: int | None = None) -> DataLoader:
        chosen = evaluation_rows(len(data), max_samples, seed)
        return make_loader(data, EvalBatchSampler(chosen, batch_size, rank, world_size), workers)

    return {
        "data_loader_train": train_loader(plain),
        "data_loader_train_attack": train_loader(attacked),
        "data_loader_val": eval_loader(dataset(val), max_val_samples),
        "data_loader_test": eval_loader(dataset(test)),
        "tokenizer": tokenizer if own_tokenizer else load_tokenizer(model_domain),
        "N_CLASSES": N_CLASSES,
        "key": dict(enumerate(hisco_codes())),
        "reference_loss": baseline,
        "Languages": table.languages,
        "Occupations": text,
    }


def space_for_empty(text: TextColumn) -> TextColumn:
    """The column with one space in place of every empty text."""
    empty = np.diff(text.offsets) == 0
    if not empty.any():
        return text
    data = np.insert(text.data, text.offsets[:-1][empty], np.uint8(ord(" ")))
    return TextColumn(data, text.offsets + np.concatenate(([0], np.cumsum(empty))))
