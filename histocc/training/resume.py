"""Taking up a run: where it stands in the data, how long it still is, and what is not as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from histocc.dataloader.samplers import TrainBatchSampler
from histocc.errors import UsageError
from histocc.processes.distributed import Processes
from histocc.training.schedule import steps_per_epoch


class Position(NamedTuple):
    """Where a run stands: optimizer steps done, epoch, and rows of the epoch done, over all processes."""

    step: int
    epoch: int
    rows_done: int


def position_of(
    state: Mapping[str, Any], settings: Mapping[str, Any], processes: Processes, notes: list[str]
) -> Position | None:
    """Where the run of the checkpoint `state` goes on; None for a file that does not say, such as the original's.

    `settings` are those of this session, 'training_rows' among them. What is not as it was is added to `notes`; the
    epoch begins anew where its order of rows is no longer the same.
    """
    if "position" not in state:
        notes.append("the checkpoint holds no position in the data: the order of rows begins anew")
        return None
    saved = state.get("settings") or {}
    epoch, rows_done = int(state["position"]["epoch"]), int(state["position"]["rows_done"])
    rows = saved.get("training_rows", settings["training_rows"])
    if rows_done and rows != settings["training_rows"]:
        notes.append(
            f"the training data has {settings['training_rows']:,} rows now and had {rows:,}: epoch {epoch} begins anew"
        )
        rows_done = 0
    trims = saved.get("trim_padding", False) or settings.get("trim_padding", False)
    reorders = [name for name in ("trim_padding", "batch_size", "max_len") if saved.get(name) != settings.get(name)]
    if rows_done and trims and reorders:
        flags = ", ".join("--" + name.replace("_", "-") for name in reorders)
        notes.append(f"with --trim-padding the order of rows depends on {flags}: epoch {epoch} begins anew")
        rows_done = 0
    world_size = state["position"]["world_size"]
    if world_size != processes.world_size:
        notes.append(
            f"the run had {world_size} processes and has {processes.world_size} now: the rows of a step, the number of "
            "steps, and dropout change; each remaining row of the epoch is still seen once"
        )
    return Position(int(state["step"]), epoch, rows_done)


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


def restore(take_up: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any], source: Path) -> None:
    """Hand the checkpoint `state` to `take_up`; raises UsageError naming the file `source` if it does not fit."""
    try:
        take_up(state)
    except UsageError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{source} is from a run of another shape and cannot be continued here: {error}. "
            "Give another save folder, or the flags that the run was started with"
        ) from error
