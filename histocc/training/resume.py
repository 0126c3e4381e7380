"""Resuming a run: where it stands in the data, how long it still is, and what is not as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from histocc.dataloader.samplers import TrainBatchSampler
from histocc.files.entries import Entries
from histocc.processes.distributed import Processes
from histocc.training.checkpoint_schema import ADVICE, Checkpoint
from histocc.training.loop import TrainingLoop
from histocc.training.schedule import steps_per_epoch

# Settings without which two values of val_loss cannot be compared.
_DECIDE_VAL_LOSS = {
    "seq2seq_weight": "--seq2seq-weight",
    "max_val_samples": "--max-val-samples",
    "validation_data": "the validation data",
}


class Position(NamedTuple):
    """Where a run stands: optimizer steps done, epoch, and rows of the epoch done, over all processes."""

    step: int
    epoch: int
    rows_done: int


def position_of(
    checkpoint: Checkpoint, settings: Mapping[str, Any], processes: Processes, notes: list[str]
) -> Position | None:
    """Where the run of a checkpoint goes on; None for a file that does not say, such as the original's.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    settings
        Those of this session; 'training_rows' and 'training_data', a fingerprint, among them.
    processes
        The processes of this session.
    notes
        What is not as it was is added here. The epoch begins again where its order of rows is no longer the same.
    """
    position = checkpoint.position
    if position is None:
        notes.append("the checkpoint holds no position in the data: the order of rows begins again")
        return None
    saved = checkpoint.settings
    epoch, rows_done = position.epoch, position.rows_done
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
    if position.world_size != processes.world_size:
        notes.append(
            f"the run had {position.world_size:,} processes and has {processes.world_size} now: the rows of a step, "
            "the number of steps, and dropout change; each remaining row of the epoch is still seen once"
        )
    if rows_done >= settings["training_rows"]:
        found = Entries(checkpoint.source, ADVICE)
        rows = settings["training_rows"]
        found.refuse("position.rows_done", rows_done, f"less than {rows:,}, the number of training rows,")
        found.raise_if_any()
    return Position(checkpoint.step, epoch, rows_done)


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

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume the run of a checkpoint."""

    def forget_best(self) -> None:
        """Take the next evaluation for the best so far, whatever there was before."""


def restore(
    target: Restorable,
    loop: TrainingLoop,
    checkpoint: Checkpoint,
    position: Position | None,
    settings: Mapping[str, Any],
    notes: list[str],
) -> None:
    """Hand a checkpoint to `target`, whose loop is `loop`.

    Where the settings no longer give comparable values of ``val_loss``, the search for the best state starts again, and
    `notes` says so.

    Raises
    ------
    UsageError
        See `TrainingLoop.restore`.
    """
    target.restore(checkpoint)
    if position is not None:
        loop.rows_done = position.rows_done
    saved = checkpoint.settings
    changed = [what for name, what in _DECIDE_VAL_LOSS.items() if name in saved and saved[name] != settings.get(name)]
    if changed:
        target.forget_best()
        notes.append(
            f"{' and '.join(changed)} changed, and with it what val_loss measures: the best state is looked for again "
            "from here on, and the first evaluation replaces the best one of before"
        )
