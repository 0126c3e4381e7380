"""Resuming a run where it was left, for callers who build model, optimizer and schedule themselves."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from torch.optim import Optimizer

from histocc.training.checkpoint import CheckpointFolder
from histocc.training.loop import load_optimizer_state, unwrap
from histocc.weights import load_initial_weights


def load_states(
    save_dir: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: Any,
    initial_checkpoint: str | None = None,
    only_encoder: bool = False,
) -> int:
    """Load the newest whole checkpoint of `save_dir`, or else initial weights; return the step to go on from.

    A ``last.bin`` in `save_dir` restores model, optimizer and scheduler and wins over `initial_checkpoint`. Otherwise
    `initial_checkpoint` (a file of the original or of this package, or 'occ-canine-v1') fills the model, or with
    `only_encoder` its encoder alone, and the step is 0.

    Raises
    ------
    UsageError
        A file is damaged, holds pickled objects, or does not fit.
    """
    found = CheckpointFolder(save_dir).load_newest()
    if found is not None:
        state, _ = found
        unwrap(model).load_state_dict(state["model"])
        load_optimizer_state(optimizer, state["optimizer"])
        if scheduler is not None:
            scheduler.load_state_dict(state["scheduler"])
        return int(state["step"])
    if initial_checkpoint is not None:
        print(load_initial_weights(unwrap(model), initial_checkpoint, only_encoder=only_encoder))
    return 0
