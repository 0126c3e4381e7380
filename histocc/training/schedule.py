"""Learning rate over a run: linear warm-up, then linear decay to zero."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def steps_per_epoch(batches: int, grad_accum_steps: int = 1) -> int:
    """Optimizer steps in one epoch of `batches` batches; the last, incomplete accumulation counts as a step."""
    return math.ceil(batches / grad_accum_steps)


def warmup_steps(total_steps: int, warmup_pct: float) -> int:
    """Number of warm-up steps: ``int(total_steps * warmup_pct)``."""
    return int(total_steps * warmup_pct)


def set_rate(scheduler: LRScheduler) -> None:
    """Give the optimizer the rate that `scheduler` has for its step: another than it was saved with, where the length
    of the run has changed.
    """
    if isinstance(scheduler, LambdaLR):
        step = scheduler.last_epoch
        factors = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas)
        for group, base_rate, factor in factors:
            group["lr"] = base_rate * factor(step)


def linear_schedule(optimizer: Optimizer, num_warmup_steps: int, total_steps: int) -> LambdaLR:
    """Scheduler whose factor rises from 0 to 1 over the warm-up and falls to 0 at `total_steps`.

    At step t the factor is ``t / num_warmup_steps`` during warm-up, then
    ``max(0, (total_steps - t) / (total_steps - num_warmup_steps))``: the same as
    ``transformers.get_linear_schedule_with_warmup``. No warm-up, and a warm-up as long as the run, are both fine.
    """

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return max(0.0, (total_steps - step) / max(1, total_steps - num_warmup_steps))

    return LambdaLR(optimizer, factor)
