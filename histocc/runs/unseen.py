"""The end of a demo: descriptions that training has not seen, coded by the model that it has just written."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from histocc.files import console
from histocc.prediction.coders import make_coder
from histocc.prediction.loading import load_model

if TYPE_CHECKING:
    import torch

    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles
    from histocc.dataloader.flat_dataset import FlatDataset

SHOWN = 10
# Of these, rows with more than one code: about as hard for the model as the rest is easy.
SHOWN_WITH_MORE_CODES = 4

_HEAD = ("description", "language", "predicted", "confidence", "true", "right")
_NOTHING = "-"


class CodedDescription(NamedTuple):
    """A description and what it should be coded as."""

    text: str
    language: str
    codes: tuple[str, ...]


def rows_of_mixer(dataset: OccDatasetMixerInMemMultipleFiles) -> list[CodedDescription]:
    """All rows of a data set of the mixer."""
    names, codes = dataset.languages, dataset.codes
    return [
        CodedDescription(text, names[language], tuple(codes[label] for label in labels if label >= 0))
        for text, language, labels in zip(
            dataset.text.to_list(), dataset.language_index.tolist(), dataset.labels.tolist()
        )
    ]


def rows_of_flat(dataset: FlatDataset, codes: Sequence[str]) -> list[CodedDescription]:
    """All rows of a data set of the flat classifier; `codes` has the code of each class."""
    texts, names = dataset.text.to_list(), dataset.languages
    languages, classes = dataset.language_index[dataset.rows].tolist(), dataset.classes[dataset.rows].tolist()
    return [
        CodedDescription(texts[row], names[language], tuple(codes[label] for label in labels if label >= 0))
        for row, language, labels in zip(dataset.rows.tolist(), languages, classes)
    ]


def choose_unseen(
    rows: Iterable[CodedDescription], trained: Iterable[CodedDescription], seed: int
) -> list[CodedDescription]:
    """At most ten rows whose description stands nowhere among those trained on, however it is capitalised.

    The choice depends on rows and seed alone. Where there are enough of both kinds, `SHOWN_WITH_MORE_CODES` of them
    have more than one code, and these come last.
    """
    seen = {_normalised(row.text) for row in trained}
    unseen = {_normalised(row.text): row for row in rows if row.codes and _normalised(row.text) not in seen}
    order = np.random.default_rng(seed).permutation(len(unseen)).tolist()
    shuffled = [list(unseen.values())[i] for i in order]
    single = [row for row in shuffled if len(row.codes) == 1]
    several = [row for row in shuffled if len(row.codes) > 1]
    number_of_several = min(len(several), max(SHOWN_WITH_MORE_CODES, SHOWN - len(single)))
    return single[: SHOWN - number_of_several] + several[:number_of_several]


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold()


def show_unseen(
    folder: Path,
    table: Path,
    rows: Iterable[CodedDescription],
    trained: Iterable[CodedDescription],
    seed: int,
    device: torch.device,
) -> None:
    """Code ten descriptions with the best model in a run's folder, as `histocc predict` does, and print a table.

    Parameters
    ----------
    folder
        The run's.
    table
        A file with the columns `occ1` and `lang`, to be named in the command to go on with.
    rows
        Rows that were not trained on.
    trained
        Rows that were.
    seed
        Of the choice among `rows`.
    device
        Where to compute.
    """
    chosen = choose_unseen(rows, trained, seed)
    if not chosen:
        return
    loaded = load_model(folder, device, hub=False)
    coder = make_coder(loaded)
    languages = [row.language for row in chosen]
    coded = coder.above_thresholds(coder([row.text for row in chosen], languages), languages)
    right = [set(found) == set(row.codes) for found, row in zip(coded.sets(), chosen)]
    source = "TABLE.csv" if table.is_dir() else shlex.quote(str(table))
    lines = [
        (
            row.text,
            row.language,
            " & ".join(found) or _NOTHING,
            f"{confidence:.0%}",
            " & ".join(row.codes),
            "yes" if is_right else "no",
        )
        for row, found, confidence, is_right in zip(chosen, coded.sets(), coded.confidence[:, 0].tolist(), right)
    ]
    table_lines = "\n".join(console.aligned([_HEAD, *lines]))
    console.say(
        f"\nDescriptions that are not in the training rows, coded by {loaded.source}:\n{table_lines}\n"
        f"{sum(right)} of {len(chosen)} have exactly the right codes. The next step codes a whole table:\n"
        f"  histocc predict --model {shlex.quote(str(folder))} --input {source} --language-col lang "
        "--output coded.csv\n"
    )
