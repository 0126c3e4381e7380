"""Resuming a run: where it stands in the data, how long it still is, and what is not as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import nn

from histocc.dataloader.samplers import TrainBatchSampler
from histocc.errors import UsageError
from histocc.processes.distributed import Processes
from histocc.training.loop import TrainingLoop, unwrap
from histocc.training.schedule import steps_per_epoch

# Settings without which two values of val_loss cannot be compared.
_DECIDE_VAL_LOSS = {
    "seq2seq_weight": "--seq2seq-weight",
    "max_val_samples": "--max-val-samples",
    "validation_data": "the validation data",
}
_MOST_DIFFERENCES = 3


class Position(NamedTuple):
    """Where a run stands: optimizer steps done, epoch, and rows of the epoch done, over all processes."""

    step: int
    epoch: int
    rows_done: int


def position_of(
    state: Mapping[str, Any], settings: Mapping[str, Any], processes: Processes, notes: list[str]
) -> Position | None:
    """Where the run of the checkpoint `state` goes on; None for a file that does not say, such as the original's.

    Parameters
    ----------
    state
        The checkpoint.
    settings
        Those of this session; 'training_rows' and 'training_data', a fingerprint, among them.
    processes
        The processes of this session.
    notes
        What is not as it was is added here. The epoch begins again where its order of rows is no longer the same.
    """
    if "position" not in state:
        notes.append("the checkpoint holds no position in the data: the order of rows begins again")
        return None
    saved = state.get("settings") or {}
    epoch, rows_done = int(state["position"]["epoch"]), int(state["position"]["rows_done"])
    changed = _changed_data(saved, settings)
    if changed:
        again = f": epoch {epoch} begins again" if rows_done else ""
        notes.append(f"Warning: {changed}{again}")
        rows_done = 0
    trims = saved.get("trim_padding", False) or settings.get("trim_padding", False)
    reorders = [name for name in ("trim_padding", "batch_size", "max_len") if saved.get(name) != settings.get(name)]
    if rows_done and trims and reorders:
        flags = ", ".join("--" + name.replace("_", "-") for name in reorders)
        notes.append(f"with --trim-padding the order of rows depends on {flags}: epoch {epoch} begins again")
        rows_done = 0
    world_size = state["position"]["world_size"]
    if world_size != processes.world_size:
        notes.append(
            f"the run had {world_size} processes and has {processes.world_size} now: the rows of a step, the number of "
            "steps, and dropout change; each remaining row of the epoch is still seen once"
        )
    return Position(int(state["step"]), epoch, rows_done)


def _changed_data(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """How the training data differs from that of the checkpoint; '' if it does not."""
    rows, now = saved.get("training_rows", settings["training_rows"]), settings["training_rows"]
    if rows != now:
        return f"the training data has {now:,} rows now and had {rows:,}"
    # Older checkpoints note the number of rows alone.
    if saved.get("training_data", settings["training_data"]) != settings["training_data"]:
        return f"the training data is not what it was (still {now:,} rows, with other contents or in another order)"
    return ""


def steps_of_run(
    sampler: TrainBatchSampler, num_epochs: int, grad_accum_steps: int, position: Position | None = None
) -> int:
    """Optimizer steps of a run of `num_epochs`, those done included.

    After a resume these are the steps done and those that the rows still ahead take, which is another number than at
    first where batch size, accumulation, data or the number of processes have changed.
    """
    an_epoch = steps_per_epoch(len(sampler), grad_accum_steps)
    if position is None:
        return an_epoch * num_epochs
    epochs_after = num_epochs - position.epoch - 1
    if epochs_after < 0:
        return position.step
    rest = steps_per_epoch(sampler.batches_from(position.rows_done), grad_accum_steps)
    return position.step + rest + an_epoch * epochs_after


class Restorable(Protocol):
    """A `TrainingLoop`, or what has one and restores more."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume the run of a checkpoint."""


def restore(
    target: Restorable,
    loop: TrainingLoop,
    state: Mapping[str, Any],
    source: Path,
    position: Position | None,
    settings: Mapping[str, Any],
    notes: list[str],
) -> None:
    """Hand the checkpoint `state` to `target`, whose loop is `loop`.

    Where the settings no longer give comparable values of ``val_loss``, the search for the best state starts again, and
    `notes` says so.

    Raises
    ------
    UsageError
        The checkpoint does not fit; the message names the file `source` and at most three differences.
    """
    differences = weight_differences(unwrap(loop.model), state["model"])
    if differences:
        shown = "; ".join(differences[:_MOST_DIFFERENCES])
        more = len(differences) - _MOST_DIFFERENCES
        raise UsageError(_of_another_shape(source, shown + (f"; and {more:,} more differences" if more > 0 else "")))
    try:
        target.restore(state)
    except UsageError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(_of_another_shape(source, str(error))) from error
    if position is not None:
        loop.rows_done = position.rows_done
    saved = state.get("settings") or {}
    changed = [what for name, what in _DECIDE_VAL_LOSS.items() if name in saved and saved[name] != settings.get(name)]
    if changed:
        loop.forget_best()
        notes.append(
            f"{' and '.join(changed)} changed, and with it what val_loss measures: the best state is looked for again "
            "from here on, and the first evaluation replaces the best one of before"
        )


def weight_differences(model: nn.Module, weights: Any) -> list[str]:
    """How the entries of a state dict differ from those of a model in name or shape, in words; empty if they do not."""
    if not isinstance(weights, Mapping):
        return [f"its weights are no state dict but a {type(weights).__name__}"]
    wanted = model.state_dict()
    lines = []
    for name, tensor in wanted.items():
        shape = getattr(weights.get(name), "shape", None)
        if shape is None:
            lines.append(f"it lacks {name}")
        elif shape != tensor.shape:
            lines.append(f"{name} is {list(shape)} there and {list(tensor.shape)} here")
    return lines + [f"it has {name}, which is not here" for name in weights if name not in wanted]


def _of_another_shape(source: Path, reason: str) -> str:
    return (
        f"{source} is from a run of another shape and cannot be resumed here: {reason}. "
        "Give another save folder, or the flags that the run was started with"
    )
