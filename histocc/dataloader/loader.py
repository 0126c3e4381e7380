"""The loader: it fetches, augments and encodes a whole batch at once, in the order of a sampler."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from histocc.dataloader.batch import Batch
from histocc.dataloader.samplers import BatchIndex
from histocc.processes.signals import ignore_stop_signals


@dataclass(frozen=True)
class Workers:
    """Who prepares batches.

    Parameters
    ----------
    number
        Processes that prepare batches, which share the rows with this one; with 0 this one does it.
    pin_memory
        Put batches into pinned memory.
    prefetch_factor
        Batches that each process prepares ahead; None is torch's choice.
    persistent
        Keep the processes from one pass over the data to the next.
    """

    number: int = 0
    pin_memory: bool = False
    prefetch_factor: int | None = None
    persistent: bool = False


class BatchSource(Sized, Protocol):
    """A data set that makes batches; `trim_padding` is needed where the sampler asks for it alone."""

    def batch(self, rows: np.ndarray, epoch: int, *, trim_padding: bool = False) -> Batch:
        """The rows `rows` as one batch, with the noise of `epoch`."""


class _Batches(Dataset):
    """A data set whose items are batches."""

    def __init__(self, dataset: BatchSource) -> None:
        self.dataset = dataset

    def __getitem__(self, index: BatchIndex) -> Batch:
        options = {"trim_padding": True} if index.trim_padding else {}
        batch = self.dataset.batch(index.rows, index.epoch, **options)
        if index.filler:
            batch["filler"] = torch.tensor(True)
        return batch


def make_loader(dataset: BatchSource, sampler: Sampler[BatchIndex], workers: Workers | None = None) -> DataLoader:
    """Batches of one process.

    Parameters
    ----------
    dataset
        Where batches come from.
    sampler
        Which rows make a batch, and in which order the batches come: see `histocc.dataloader.samplers`. It is the
        loader's `sampler`: set epoch and position there.
    workers
        Who prepares them; this process by default.
    """
    workers = workers or Workers()
    options: dict[str, Any] = {}
    if workers.number > 0:
        # A forked worker sees the rows in the memory of its parent; any other start method copies them.
        fork = "fork" in multiprocessing.get_all_start_methods()
        options = {
            "multiprocessing_context": "fork" if fork else None,
            "worker_init_fn": ignore_stop_signals,
            "prefetch_factor": workers.prefetch_factor,
            "persistent_workers": workers.persistent,
        }
    return DataLoader(
        _Batches(dataset),
        batch_size=None,
        sampler=sampler,
        num_workers=workers.number,
        pin_memory=workers.pin_memory,
        **options,
    )
