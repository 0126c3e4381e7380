"""Where a run starts: at a checkpoint in its folder, whose values are then in force, or at the beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from histocc.errors import UsageError
from histocc.files import entries
from histocc.files.entries import Entries
from histocc.processes.distributed import Processes
from histocc.runs.options import RunOptions
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.checkpoint_schema import ADVICE, Checkpoint
from histocc.weights import kind_of_model, num_classes_of

Options = TypeVar("Options", bound=RunOptions)

# What train.py called its settings in older checkpoints.
_NAMES_NOW = {"epochs": "num_epochs", "alt_prob": "augmentation_prob"}
_MADE_BY = {
    "mixer": "train_mixer.py or finetune.py (decoder and flat head)",
    "flat": "train.py (the flat classifier)",
    "seq2seq": "a run that trained a decoder alone",
}


@dataclass
class Start(Generic[Options]):
    """Where a run starts.

    Attributes
    ----------
    options
        The flags, with the checkpoint's values in place of those that a resumed run cannot change.
    checkpoint
        The checkpoint, whose entries are checked; None at the beginning, and once the run has what it needs.
    source
        Its file; None at the beginning.
    notes
        What people should know, a line each.
    """

    options: Options
    checkpoint: Checkpoint | None
    source: Path | None
    notes: list[str] = field(default_factory=list)


def find_start(options: Options, processes: Processes) -> Start[Options]:
    """Look for a checkpoint in the save folder, before anything else is read or made.

    Parameters
    ----------
    options
        The flags.
    processes
        The processes of the run, which must all see the same checkpoint.

    Raises
    ------
    UsageError
        No checkpoint is whole; one holds pickled objects, or entries that cannot be used; it is of another kind of
        model; or the processes see different ones.
    """
    notes: list[str] = []
    found = CheckpointFolder(options.folder).load_newest(warn=notes.append)
    checkpoint = None if found is None else Checkpoint.of(*found)
    _check_same_file_system(processes, checkpoint)
    if checkpoint is None:
        return Start(options, None, None, notes)
    source = checkpoint.source
    there = kind_of_model(checkpoint.model)
    if there != options.kind:
        made_by = f"is from {_MADE_BY[there]}" if there in _MADE_BY else "holds none of this package's models"
        raise UsageError(
            f"{source} {made_by}, and cannot be resumed by {_MADE_BY[options.kind]}. Give another "
            "--save-dir; to start from its weights, name it with --initial-checkpoint there"
        )
    found = Entries(source, ADVICE)
    found.check("key", checkpoint.key, entries.optional(entries.key(num_classes_of(checkpoint.model))))
    found.raise_if_any()
    notes += _disagreements(checkpoint.settings, options.compared())
    rate, seed = checkpoint.learning_rate, options.seed
    if checkpoint.position is not None and checkpoint.position.seed is not None:
        seed = checkpoint.position.seed
    if seed != options.seed:
        notes.append(
            f"--seed {options.seed} differs from the checkpoint's {seed}; the checkpoint's is used, to keep the order "
            "of rows"
        )
    if rate != options.learning_rate:
        notes.append(
            f"--learning-rate {options.learning_rate} differs from the checkpoint's {rate}; the checkpoint's is used. "
            f"To train at another rate, give another --save-dir, with --initial-checkpoint {source}"
        )
    return Start(options.in_force(seed=seed, learning_rate=rate), checkpoint, source, notes)


def _disagreements(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """A line for every setting in which the flag wins over the checkpoint."""
    saved = {_NAMES_NOW.get(name, name): value for name, value in saved.items()}
    return [
        f"--{name.replace('_', '-')} {value} differs from the checkpoint's {saved[name]}; the flag's is used"
        for name, value in current.items()
        if name != "learning_rate" and name in saved and saved[name] != value
    ]


def _check_same_file_system(processes: Processes, checkpoint: Checkpoint | None) -> None:
    steps = processes.gather(None if checkpoint is None else checkpoint.step)
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes see different checkpoints in the save folder (steps {', '.join(map(str, steps))}); it must "
            "be on a file system that all machines share"
        )
