"""What a checkpoint holds, as checked values: the file is input like any other, and is judged whole before it is used.

Files of the original and of older versions pass: they lack entries, and what there is has the same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from histocc.files import entries
from histocc.files.entries import Entries
from histocc.files.tensors import tensor

ADVICE = "Move the file away to resume from an older one, or give another save folder"

# The most that a flag allows too.
MOST_RATE = 1000
_LAST_SEED = 2**63 - 1
_MOST_PROCESSES = 2**20


@dataclass(frozen=True)
class SavedPosition:
    """Where a run stood in the data, and its means since the epoch began.

    Attributes
    ----------
    epoch, rows_done
        Epochs done, and rows of the next one, over all processes.
    seed
        Of the order of rows; None where the caller brought an order of its own.
    world_size
        Number of processes.
    loss_sum, rows, counts, batches, seconds, seconds_data
        See `histocc.training.loop.EpochMeans`.
    """

    epoch: int
    rows_done: int
    seed: int | None
    world_size: int
    loss_sum: float
    rows: int
    counts: Mapping[str, int]
    batches: int
    seconds: float
    seconds_data: float


@dataclass(frozen=True)
class SavedPrecision:
    """The precision of a run.

    Attributes
    ----------
    dtype
        Its name.
    skipped_steps
        Steps skipped because of an overflow.
    scaler
        The state of float16's scaler; None where there was none.
    """

    dtype: str
    skipped_steps: int
    scaler: Mapping[str, float] | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every entry has its type and lies in its range; whether it fits a model is another question.

    Attributes
    ----------
    source
        The file.
    step
        Optimizer steps done.
    model
        The weights: dense tensors on the CPU.
    optimizer
        'state', a mapping of mappings, and 'param_groups', a list of mappings with 'params' and 'lr'.
    scheduler
        Its state; None where there was none.
    key
        Class index of each code; None where the classes are those of a fixed system.
    settings
        What the run was made with, plain values.
    position, precision
        None for files of the original.
    best_val_loss
        The lowest so far; infinite before the first evaluation.
    augmented
        Whether the flat classifier's augmented loader had taken over.
    best_after
        The last step whose figures do not count in the search for the flat classifier's best weights; -1 for none.
    model_settings
        What the file says of its model, unchecked; None for files of the original.
    """

    source: Path
    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    key: Mapping[str, int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    position: SavedPosition | None = None
    precision: SavedPrecision | None = None
    best_val_loss: float = math.inf
    augmented: bool = False
    best_after: int = -1
    model_settings: Any = None

    @classmethod
    def of(cls, content: Mapping[str, Any], source: Path) -> Checkpoint:
        """The checked entries of what was read from a file.

        Raises
        ------
        UsageError
            Entries are missing, of another type or out of their range; the message names file, entry and value.
        """
        found = Entries(source, ADVICE)
        values: dict[str, Any] = {
            "step": found.take(content, "step", entries.whole()),
            "model": found.take(content, "model", entries.mapping_of(tensor(finite=False))),
            "optimizer": _optimizer(found, content),
            "scheduler": found.take(content, "scheduler", entries.optional(entries.mapping)),
            "key": found.check("key", content.get("key"), entries.optional(entries.key())),
            "settings": _settings(found, content.get("settings")),
        }
        if "position" in content:
            values["position"] = _position(found, content, values["settings"])
            values["precision"] = _precision(found, content)
            values["best_val_loss"] = found.take(content, "best_val_loss", entries.number(infinite=True))
        values["model_settings"] = content.get("model_settings")
        if "augmented" in content:
            values["augmented"] = found.take(content, "augmented", entries.flag)
        if "best_after" in content:
            values["best_after"] = found.take(content, "best_after", entries.whole(-1))
        found.raise_if_any()
        return cls(source, **values)

    @property
    def learning_rate(self) -> float:
        """The rate that the run was started with."""
        group = self.optimizer["param_groups"][0]
        return group.get("initial_lr", group["lr"])


def _optimizer(found: Entries, content: Mapping[str, Any]) -> dict[str, Any] | None:
    saved = found.take(content, "optimizer", entries.mapping)
    if saved is None:
        return None
    inside = "optimizer."
    state = found.take(saved, "state", _state, inside)
    groups = found.take(saved, "param_groups", entries.list_of(entries.mapping), inside)
    if groups is not None and not groups:
        found.refuse(f"{inside}param_groups", groups, "at least one group of parameters")
    rate = entries.number(0, MOST_RATE)
    checked = []
    for i, group in enumerate(groups or ()):
        within = f"{inside}param_groups[{i}]."
        own = {
            "params": found.take(group, "params", entries.list_of(entries.whole()), within),
            "lr": found.take(group, "lr", rate, within),
        }
        if "initial_lr" in group:
            own["initial_lr"] = found.take(group, "initial_lr", rate, within)
        checked.append({**group, **own})
    return {"state": state, "param_groups": checked}


def _state(value: Any) -> dict[int, dict[str, Any]]:
    """The state of an optimizer: a mapping for each number of a parameter."""
    if not isinstance(value, Mapping):
        raise entries.Unexpected("a mapping")
    checked = {}
    for index, state in value.items():
        if not isinstance(index, int) or isinstance(index, bool):
            raise entries.Unexpected("the number of a parameter", " (one of its names)", index)
        if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
            raise entries.Unexpected("a mapping of texts", f"[{index}]", state)
        checked[index] = dict(state)
    return checked


def _settings(found: Entries, value: Any) -> dict[str, Any]:
    settings = found.check("settings", value, entries.optional(entries.mapping_of(entries.plain))) or {}
    checks = {
        "training_rows": entries.whole(1),
        "training_data": entries.text,
        "validation_data": entries.text,
        "trim_padding": entries.flag,
    }
    for name, check in checks.items():
        if name in settings:
            found.take(settings, name, check, "settings.")
    return settings


def _position(found: Entries, content: Mapping[str, Any], settings: Mapping[str, Any]) -> SavedPosition | None:
    saved = found.take(content, "position", entries.mapping)
    if saved is None:
        return None
    rows = settings.get("training_rows")
    most_rows = rows if isinstance(rows, int) and 1 <= rows <= entries.MOST else entries.MOST
    seconds = entries.number(0)
    checks = {
        "epoch": entries.whole(),
        "rows_done": entries.whole(0, most_rows - 1),  # with its last row an epoch is done
        "seed": entries.optional(entries.whole(0, _LAST_SEED)),
        "world_size": entries.whole(1, _MOST_PROCESSES),
        "loss_sum": entries.figure,
        "rows": entries.count(),
        "counts": entries.mapping_of(entries.count()),
        "batches": entries.whole(),
        "seconds": seconds,
        "seconds_data": seconds,
    }
    return SavedPosition(**{name: found.take(saved, name, check, "position.") for name, check in checks.items()})


def _precision(found: Entries, content: Mapping[str, Any]) -> SavedPrecision | None:
    saved = found.take(content, "precision", entries.mapping)
    if saved is None:
        return None
    inside = "precision."
    scaler = found.take(saved, "scaler", entries.optional(entries.mapping), inside)
    if scaler is not None:
        checks = {
            "scale": entries.number(2.0**-126, 2.0**126),
            "growth_factor": entries.number(1.0, 2.0**16),
            "backoff_factor": entries.number(2.0**-16, 1.0),
            "growth_interval": entries.whole(1),
            "_growth_tracker": entries.whole(),
        }
        scaler = {name: found.take(scaler, name, check, f"{inside}scaler.") for name, check in checks.items()}
    return SavedPrecision(
        found.take(saved, "dtype", entries.text, inside),
        found.take(saved, "skipped_steps", entries.whole(), inside),
        scaler,
    )
