"""What a data set says of the task that a model learns from it: the coding system, and how text comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from histocc.dataloader.mixer_dataset import OccDatasetMixerInMemMultipleFiles
from histocc.dataloader.overridden import overrides
from histocc.dataloader.tokenizers import gives_canine_ids
from histocc.formatter import CodingSystem
from histocc.formatter.systems import system_of

# Past this many the column of languages is hardly one of languages.
_MOST_LANGUAGES = 64
# With one of its own in place of these, a data set has texts or classes that the model's files would not tell of.
_OF_TEXTS_AND_CLASSES = ("__getitem__", "_prepare_input", "_get_target_linear")


def known_languages(languages: Sequence[str]) -> list[str] | None:
    """The languages of the training data, to be told apart and noted; None where there are too many for that."""
    return list(languages) if len(languages) <= _MOST_LANGUAGES else None


def dataset_of(loader: Any) -> OccDatasetMixerInMemMultipleFiles | None:
    """Our data set behind a loader, which may be a part of it; None where there is none."""
    data = loader
    while not isinstance(data, OccDatasetMixerInMemMultipleFiles):
        if not hasattr(data, "dataset"):
            return None
        data = data.dataset
    return data


def coding_system_of(dataset: OccDatasetMixerInMemMultipleFiles) -> CodingSystem | None:
    """The coding system of a data set, with its codes.

    None where it cannot be told: texts, classes or labels are made by code of the user's own, classes are given to
    class indices, or the key is no list of the classes 0, 1, ..., n - 1.
    """
    if any(overrides(dataset, name) for name in _OF_TEXTS_AND_CLASSES):
        return None
    if not gives_canine_ids(dataset.tokenizer, dataset.max_input_len):
        return None
    system = system_of(dataset.formatter, dataset.target_cols)
    if system is None:
        return None
    key = dataset.map_code_label
    if key is not None:
        if system.holds_classes or not _numbers_classes(key):
            return None
        system = system.with_key(key)
    return system if system.codes is not None and system.num_classes == dataset.num_classes_flat else None


def _numbers_classes(key: Any) -> bool:
    return (
        isinstance(key, Mapping)
        and all(isinstance(code, str) for code in key)
        and sorted(key.values()) == list(range(len(key)))
    )
