"""An evaluation: what a model's engine computes of each batch, added up over batches and processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from histocc.training.batches import Batch, CompiledShapes, rows_of, to_device
from histocc.training.context import RunContext
from histocc.training.reporting import evaluation_progress


class Totals(NamedTuple):
    """Sums over all rows of all processes.

    Attributes
    ----------
    sums
        What was added up, by name.
    rows
        How many rows there were, at least one.
    seconds
        What the evaluation took, to be rounded for people.
    """

    sums: dict[str, float]
    rows: int
    seconds: float


@torch.no_grad()
def add_up_batches(
    model: nn.Module,
    data_loader: Iterable[Batch],
    names: Sequence[str],
    sums_of_batch: Callable[[Batch], Sequence[Tensor]],
    context: RunContext,
) -> Totals | None:
    """Add up figures of all rows of a data loader, equal on all processes; None where a stop was requested on any.

    Parameters
    ----------
    model
        Put into evaluation mode.
    data_loader
        Gives the batches of this process.
    names
        What is added up.
    sums_of_batch
        Gives the sums over a batch's rows, a 0-dim tensor for each of `names`; called in the run's precision.
    context
        Where batches are moved to, who else evaluates, and what is asked before each batch whether to stop.

    Raises
    ------
    ValueError
        There were no batches on any process.
    """
    device, processes = context.device, context.processes
    model.eval()
    # Sums of millions of float32 terms lose digits; this device type has no float64.
    dtype = torch.float64 if device.type != "mps" else torch.float32
    sums = torch.zeros(len(names), dtype=dtype, device=device)
    rows = 0
    interrupted = False
    shapes = CompiledShapes(data_loader)
    started = time.perf_counter()
    with evaluation_progress(data_loader, enabled=processes.is_main) as batches:
        for batch in batches:
            if context.stop.requested:
                interrupted = True
                break
            moved = to_device(batch, device)
            with shapes.guard(moved), context.precision.autocast():
                sums += torch.stack([figure.to(dtype) for figure in sums_of_batch(moved)])
            rows += rows_of(moved)
    total = processes.sum({**dict(zip(names, sums.tolist())), "rows": rows, "interrupted": interrupted})
    rows, interrupted = int(total.pop("rows")), bool(total.pop("interrupted"))
    if interrupted:
        return None
    if not rows:
        raise ValueError("there is nothing to evaluate: the data loader gave no batches")
    return Totals(total, rows, time.perf_counter() - started)
