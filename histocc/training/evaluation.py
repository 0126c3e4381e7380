"""An evaluation: what a model's engine computes of each batch, added up over batches and processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.training.loop import Batch, CompiledShapes, to_device
from histocc.training.precision import Precision
from histocc.training.reporting import evaluation_progress


class Totals(NamedTuple):
    """Sums over all rows of all processes.

    Attributes:
        sums: what was added up, by name.
        rows: how many rows there were, at least one.
        seconds: what the evaluation took, to be rounded for people.
    """

    sums: dict[str, float]
    rows: int
    seconds: float


@torch.inference_mode()
def add_up_batches(
    model: nn.Module,
    data_loader: Iterable[Batch],
    device: torch.device,
    names: Sequence[str],
    sums_of_batch: Callable[[Batch], Sequence[Tensor]],
    *,
    precision: Precision | None = None,
    processes: Processes | None = None,
    stop: StopSignals | None = None,
) -> Totals | None:
    """Add up figures of all rows of a data loader, equal on all processes; None where a stop was requested on any.

    Each process takes its own batches. Sums stay on the device and are added up over the processes once, after the last
    batch, so that no batch waits for the host or for another process.

    Args:
        model: set to evaluation; `sums_of_batch` runs it.
        data_loader: batches as the training loop has them.
        device: where batches are moved to.
        names: what is added up.
        sums_of_batch: gives the sums over a batch's rows, a 0-dim tensor for each of `names`.
        precision: context in which `sums_of_batch` is called.
        processes: the processes of the run.
        stop: asked before each batch.

    Raises:
        ValueError: if there were no batches on any process.
    """
    precision = precision or Precision(device)
    processes = processes or Processes(device=device)
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
            if stop is not None and stop.requested:
                interrupted = True
                break
            moved = to_device(batch, device)
            with shapes.guard(moved), precision.autocast():
                sums += torch.stack([figure.to(dtype) for figure in sums_of_batch(moved)])
            rows += moved["input_ids"].shape[0]
    total = processes.sum({**dict(zip(names, sums.tolist())), "rows": rows, "interrupted": interrupted})
    rows, interrupted = int(total.pop("rows")), bool(total.pop("interrupted"))
    if interrupted:
        return None
    if not rows:
        raise ValueError("there is nothing to evaluate: the data loader gave no batches")
    return Totals(total, rows, time.perf_counter() - started)
