"""Batches on the device that computes, and their shapes where a model is compiled for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from histocc.dataloader.batch import Batch


def rows_of(batch: Batch) -> int:
    """Rows of a batch."""
    return int(batch["input_ids"].shape[0])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; copies from pinned memory do not wait."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def multi_hot(classes: Tensor, num_classes: int) -> Tensor:
    """Float32 [B, C] with 1 at the classes of each row, from class indices, int64 [B, K], -1 where there is none."""
    # -1 lands in a column of its own, which is cut off again.
    hot = torch.zeros(classes.shape[0], num_classes + 1, device=classes.device)
    return hot.scatter_(1, classes.masked_fill(classes < 0, num_classes), 1.0)[:, :num_classes]


def dense_classes(batch: Batch, num_classes: int) -> Tensor:
    """The classes of a batch's rows as a float32 multi-hot [B, C], whichever layout the batch has."""
    dense = batch.get("targets_linear")
    return multi_hot(batch["targets_classes"], num_classes) if dense is None else dense


class CompiledShapes:
    """Lets a compiled model run whole batches alone.

    An epoch's short last batch would be compiled for again; it runs as the code is written instead. The rows of a
    whole batch are those of the loader's sampler, or of the first batch where the loader has no such sampler.
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        self._rows: int | None = getattr(getattr(loader, "sampler", None), "batch_size", None)

    def guard(self, batch: Batch) -> contextlib.AbstractContextManager[Any]:
        """Context in which to run the forward pass of `batch`."""
        rows = rows_of(batch)
        if self._rows is None:
            self._rows = rows
        return contextlib.nullcontext() if rows == self._rows else torch.compiler.set_stance("force_eager")
