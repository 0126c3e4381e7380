"""Where a run starts: at a checkpoint in its folder, whose values are then in force, or at the beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from histocc.errors import UsageError
from histocc.processes.distributed import Processes
from histocc.runs.options import RunOptions
from histocc.training.checkpoint import CheckpointFolder
from histocc.weights import kind_of_model

Options = TypeVar("Options", bound=RunOptions)

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
    state, source
        The checkpoint and its file; None at the beginning.
    notes
        What people should know, a line each.
    """

    options: Options
    state: dict[str, Any] | None
    source: Path | None
    notes: list[str] = field(default_factory=list)

    @property
    def saved_settings(self) -> Mapping[str, Any]:
        """What the checkpoint notes of the flags it was made with; empty where there is none."""
        return {} if self.state is None else self.state.get("settings") or {}


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
        No checkpoint is whole, one holds pickled objects, is of another kind of model, or differs between processes.
    """
    notes: list[str] = []
    found = CheckpointFolder(options.folder).load_newest(warn=notes.append)
    state, source = found or (None, None)
    _check_same_file_system(processes, state)
    if state is None:
        return Start(options, None, None, notes)
    there = kind_of_model(state["model"] if isinstance(state["model"], Mapping) else ())
    if there != options.kind:
        made_by = f"is from {_MADE_BY[there]}" if there in _MADE_BY else "holds none of this package's models"
        raise UsageError(
            f"{source} {made_by}, and cannot be resumed by {_MADE_BY[options.kind]}. Give another "
            f"{options.folder_flag}; to start from its weights, name it with {options.weights_flag} there"
        )
    notes += _disagreements(state.get("settings") or {}, options.compared())
    values = _values_in_force(state)
    if values.get("seed", options.seed) != options.seed:
        notes.append(
            f"--seed {options.seed} differs from the checkpoint's {values['seed']}; the checkpoint's is used, to keep "
            "the order of rows"
        )
    if values.get("learning_rate", options.learning_rate) != options.learning_rate:
        notes.append(
            f"--learning-rate {options.learning_rate} differs from the checkpoint's {values['learning_rate']}; the "
            f"checkpoint's is used. To train at another rate, give another {options.folder_flag}, with "
            f"{options.weights_flag} {source}"
        )
    return Start(options.in_force(**values), state, source, notes)


def _values_in_force(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint decides: the seed, and the rate that its optimizer and schedule carry."""
    values = {}
    groups = state.get("optimizer", {}).get("param_groups") or [{}]
    rate = groups[0].get("initial_lr", groups[0].get("lr"))
    if rate is not None:
        values["learning_rate"] = float(rate)
    seed = state.get("position", {}).get("seed")
    if seed is not None:
        values["seed"] = int(seed)
    return values


def _disagreements(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """A line for every setting in which the flag wins over the checkpoint."""
    return [
        f"--{name.replace('_', '-')} {value} differs from the checkpoint's {saved[name]}; the flag's is used"
        for name, value in current.items()
        if name != "learning_rate" and name in saved and saved[name] != value
    ]


def _check_same_file_system(processes: Processes, state: Mapping[str, Any] | None) -> None:
    steps = processes.gather(None if state is None else int(state["step"]))
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes see different checkpoints in the save folder (steps {', '.join(map(str, steps))}); it must "
            "be on a file system that all machines share"
        )
