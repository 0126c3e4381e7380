"""Resuming a run where it was left, for callers who build model, optimizer and schedule themselves."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from torch.optim import Optimizer

from histocc.files import console
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.checkpoint_fit import fit
from histocc.training.checkpoint_schema import Checkpoint
from histocc.training.loop import unwrap
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
        A file is damaged, holds pickled objects or entries that cannot be used, or does not fit; nothing is changed.
    """
    found = CheckpointFolder(save_dir).load_newest()
    if found is not None:
        checkpoint = Checkpoint.of(*found)
        # Parameters of the caller's own model need not all be trained.
        state = fit(checkpoint, unwrap(model), optimizer, scheduler, complete=False)
        state.load(unwrap(model), optimizer, scheduler)
        return checkpoint.step
    if initial_checkpoint is not None:
        console.say(str(load_initial_weights(unwrap(model), initial_checkpoint, only_encoder=only_encoder)))
    return 0
