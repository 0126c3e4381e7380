"""Loaders that fetch, augment and encode a whole batch at once."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from histocc.processes.signals import ignore_stop_signals

from .samplers import BatchIndex, EvalBatchSampler, TrainBatchSampler


class _Batches(Dataset):
    """A data set whose items are batches."""

    def __init__(self, dataset: Any, trim_padding: bool = False) -> None:
        self.dataset = dataset
        self.options = {"trim_padding": True} if trim_padding else {}

    def __getitem__(self, index: BatchIndex) -> dict[str, torch.Tensor]:
        batch = self.dataset.batch(index.rows, index.epoch, **self.options)
        if index.filler:
            batch["filler"] = torch.tensor(True)
        return batch


def make_train_loader(
    dataset: Any,
    batch_size: int,
    *,
    seed: int = 42,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    shuffle: bool = True,
    trim_padding: bool = False,
) -> DataLoader:
    """Batches of one process in training.

    Args:
        dataset: anything with `len` and `batch(rows, epoch)`.
        batch_size: rows per process and step.
        seed: of the order.
        rank: this process.
        world_size: number of processes.
        num_workers: processes that prepare batches; they share the rows with this one.
        pin_memory: put batches into pinned memory.
        prefetch_factor: batches that each worker prepares ahead; no meaning without workers.
        persistent_workers: keep the workers from one epoch to the next; no meaning without workers.
        shuffle: False keeps the rows in their own order.
        trim_padding: put rows of about the same length into a batch, and pad it no further than they need. The data
            set then has `padded_lengths(rows, epoch)`, and its `batch` takes `trim_padding`.

    Returns:
        A loader whose `sampler` is a `TrainBatchSampler`: set epoch and position there.
    """
    lengths = dataset.padded_lengths if trim_padding else None
    sampler = TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size, shuffle, lengths)
    batches = _Batches(dataset, trim_padding)
    return _loader(batches, sampler, num_workers, pin_memory, prefetch_factor, persistent_workers)


def make_eval_loader(
    dataset: Any,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    max_samples: int | None = None,
    seed: int = 42,
) -> DataLoader:
    """Batches of one process in an evaluation; all processes together have each row once.

    Args:
        dataset: anything with `len` and `batch(rows, epoch)`.
        batch_size: rows per batch.
        rank: this process.
        world_size: number of processes.
        num_workers: processes that prepare batches.
        pin_memory: put batches into pinned memory.
        prefetch_factor: batches that each worker prepares ahead; no meaning without workers.
        persistent_workers: keep the workers from one evaluation to the next; no meaning without workers.
        max_samples: evaluate on so many rows only, drawn once by `seed`, the same in every evaluation.
        seed: of that choice.

    Raises:
        ValueError: if `max_samples` is below 1.
    """
    rows = np.arange(len(dataset))
    if max_samples is not None:
        if max_samples < 1:
            raise ValueError(f"max_samples is {max_samples}, but an evaluation needs a row (--max-val-samples)")
        if max_samples < len(rows):
            generator = np.random.Generator(np.random.PCG64(seed))
            rows = np.sort(generator.choice(len(rows), max_samples, replace=False))
    sampler = EvalBatchSampler(rows, batch_size, rank, world_size)
    return _loader(_Batches(dataset), sampler, num_workers, pin_memory, prefetch_factor, persistent_workers)


def _loader(
    batches: _Batches,
    sampler: TrainBatchSampler | EvalBatchSampler,
    num_workers: int,
    pin_memory: bool,
    prefetch_factor: int | None,
    persistent_workers: bool,
) -> DataLoader:
    workers: dict[str, Any] = {}
    if num_workers > 0:
        # A forked worker sees the rows in the memory of its parent; any other start method copies them.
        fork = "fork" in multiprocessing.get_all_start_methods()
        workers = {
            "multiprocessing_context": "fork" if fork else None,
            "worker_init_fn": ignore_stop_signals,
            "prefetch_factor": prefetch_factor,
            "persistent_workers": persistent_workers,
        }
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        **workers,
    )
