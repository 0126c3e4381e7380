"""What surrounds a run, and how long and how often: the two objects that engines and evaluation are handed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.training.precision import Precision


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a run.

    Parameters
    ----------
    processes
        This process among those of the run; its device is where batches are moved to.
    precision
        float32 or mixed precision.
    stop
        Asked before each step whether a signal wants the run to end.
    folder
        The save folder, which exists; None saves nothing.
    seed
        Random numbers of a step (dropout) are a function of seed, step and rank; None leaves torch's generator alone.
    """

    processes: Processes
    precision: Precision
    stop: StopSignals = field(default_factory=StopSignals)
    folder: Path | None = None
    seed: int | None = None

    @property
    def device(self) -> torch.device:
        """Where batches are moved to."""
        return self.processes.device

    @classmethod
    def on(
        cls,
        device: torch.device | str,
        folder: str | os.PathLike[str] | None = None,
        *,
        use_amp: bool = False,
        amp_dtype: str = "auto",
        seed: int | None = None,
        is_main_process: bool = True,
    ) -> RunContext:
        """The surroundings of a caller who has a device and a folder; arguments as in `Precision` and above."""
        device = torch.device(device)
        return cls(
            Processes(rank=0 if is_main_process else 1, device=device),
            Precision(device, use_amp, amp_dtype),
            folder=None if folder is None else Path(folder),
            seed=seed,
        )


@dataclass(frozen=True)
class Plan:
    """How long a run is and how often things happen in it, in optimizer steps; None is never.

    Parameters
    ----------
    total_steps
        Steps of the whole run; training stops exactly there.
    log_interval, eval_interval, save_interval
        Steps between figures of training, evaluations, checkpoints.
    eval_each_epoch, save_each_epoch
        Also at the end of each epoch.
    grad_accum_steps
        Batches per step.
    keep_checkpoints
        How many ``<step>.bin`` stay; None keeps all.
    """

    total_steps: int
    log_interval: int | None = 100
    eval_interval: int | None = None
    save_interval: int | None = None
    eval_each_epoch: bool = False
    save_each_epoch: bool = False
    grad_accum_steps: int = 1
    keep_checkpoints: int | None = None
