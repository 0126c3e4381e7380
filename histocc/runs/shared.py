"""What a run of any model needs around its loop: workers, wrapping, taking up a checkpoint, and its last words."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from histocc.dataloader.samplers import TrainBatchSampler
from histocc.errors import UsageError
from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.runs.command_line import LOG_INTERVAL, warmup_of, write_arguments
from histocc.training.loop import TrainingLoop
from histocc.training.reporting import header
from histocc.training.resume import Position, steps_of_run
from histocc.training.schedule import steps_per_epoch

# Flags that a checkpoint decides, since optimizer and schedule carry them; all others are decided by the command line.
_CHECKPOINT_DECIDES = ("learning_rate",)


def worker_count(flag: int | None, device: torch.device) -> int:
    """Processes that prepare batches: as the flag says, or what suits the device."""
    if flag is not None:
        return flag
    if device.type != "cuda":
        # On a CPU the workers would take the cores that compute; a GPU is kept fed by a few.
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(4, max(1, cores // local_processes - 1))


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW for the parameters that are trained; there is no state for the others."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate, fused=True)


class Steps(NamedTuple):
    """Optimizer steps of an epoch, of the whole run with those done before a resume, and of the warm-up."""

    an_epoch: int
    total: int
    warmup: int


def count_steps(
    args: argparse.Namespace, sampler: TrainBatchSampler, num_epochs: int, position: Position | None
) -> Steps:
    """The steps of a run over the batches of `sampler`, taken up at `position`."""
    total = args.max_steps or steps_of_run(sampler, num_epochs, args.grad_accum_steps, position)
    return Steps(steps_per_epoch(len(sampler), args.grad_accum_steps), total, warmup_of(args, total))


def wrap(model: nn.Module, processes: Processes) -> nn.Module:
    """The model, wrapped where there are several processes; parameters that get no gradient are frozen before."""
    if processes.world_size == 1:
        return model
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    # Buffers are constants of the architecture. Newer versions of torch have another name for leaving them alone.
    names = inspect.signature(DistributedDataParallel).parameters
    leave_buffers = {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **leave_buffers)


def check_same_file_system(processes: Processes, state: Mapping[str, Any] | None) -> None:
    """Raise UsageError where processes found different checkpoints (`state`; None where there is none)."""
    steps = processes.gather(None if state is None else int(state["step"]))
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes see different checkpoints in the save folder (steps {', '.join(map(str, steps))}); it must "
            "be on a file system that all machines share"
        )


def seed_of(state: Mapping[str, Any], flag: int, notes: list[str]) -> int:
    """The seed of a resumed run: the checkpoint's, with a note where the flag differs."""
    seed = state.get("position", {}).get("seed", flag)
    if seed != flag:
        notes.append(
            f"--seed {flag} differs from the checkpoint's {seed}; the checkpoint's is used, to keep the order of rows"
        )
    return seed


def disagreements(saved: Mapping[str, Any] | None, current: Mapping[str, Any], compared: Sequence[str]) -> list[str]:
    """A line for every setting in which flags and checkpoint differ, saying which one is used."""
    lines = []
    for name in compared:
        if saved is None or name not in saved or saved[name] == current[name]:
            continue
        winner = "the checkpoint's" if name in _CHECKPOINT_DECIDES else "the flag's"
        flag = "--" + name.replace("_", "-")
        lines.append(f"{flag} {current[name]} differs from the checkpoint's {saved[name]}; {winner} is used")
    return lines


def log_interval(args: argparse.Namespace, steps: Steps) -> int:
    """Steps between figures: as the flag says; at its default a short run shows ten times how it goes."""
    if args.log_interval != LOG_INTERVAL:
        return args.log_interval
    return max(1, min(LOG_INTERVAL, steps.total // 10))


def batch_size_fact(args: argparse.Namespace, processes: Processes) -> str:
    """Rows of a step in the words of the header."""
    rows = args.batch_size * args.grad_accum_steps * processes.world_size
    factors = [f"{args.batch_size:,} rows"]
    if args.grad_accum_steps > 1:
        factors.append(f"{args.grad_accum_steps} accumulated")
    if processes.world_size > 1:
        factors.append(f"{processes.world_size} processes")
    return " x ".join(factors) + (f" = {rows:,} rows a step" if len(factors) > 1 else "")


def device_fact(processes: Processes) -> str:
    """The device in the words of the header."""
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, process {processes.rank} of {processes.world_size}" if processes.world_size > 1 else name


def announce(
    data_facts: Mapping[str, Any],
    notes: Sequence[str],
    args: argparse.Namespace,
    processes: Processes,
    loop: TrainingLoop,
    steps: Steps,
    save_dir: Path,
    source: Path | None,
    epochs_flag: str,
) -> None:
    """Print the header of a run, from the facts of its data on, and the notes gathered on the way to it.

    By now nothing stands against the run, so ``args.yaml`` is written too.
    """
    if not processes.is_main:
        return
    write_arguments(save_dir / "args.yaml", args)
    parameters = [(p.numel(), p.requires_grad) for p in loop.model.parameters()]
    facts = {
        **data_facts,
        "steps": f"{steps.total:,} ({steps.an_epoch:,} an epoch), {steps.warmup:,} of them warm-up",
        "batch size": batch_size_fact(args, processes),
        "learning rate": loop.optimizer.param_groups[0].get("initial_lr", args.learning_rate),
        "parameters": f"{sum(n for n, _ in parameters):,}, {sum(n for n, trained in parameters if trained):,} of them "
        "trained",
        "device": device_fact(processes),
        "precision": loop.precision.describe() + (", compiled" if args.compile else ""),
        "save folder": save_dir,
        "start": "step 0" if source is None else f"step {loop.step:,}, from {source}",
    }
    lines = [header(facts), *notes]
    if loop.finished:
        flag = epochs_flag if args.max_steps is None else "--max-steps"
        lines.append(f"The run is complete (step {loop.step:,} of {steps.total:,}). More {flag} would go on from here.")
    print("\n".join(lines), flush=True)


def end(loop: TrainingLoop, processes: Processes, stop: StopSignals, save_dir: Path, done: str) -> int:
    """Say how the run ended (`done` where it reached its last step) and return the exit code."""
    failed = sum(processes.gather(loop.save_failure is not None)) > 0
    if processes.is_main:
        if failed:
            print(f"Error: the state at step {loop.step:,} could not be saved in {save_dir}: {loop.save_failure}")
        elif loop.stopped:
            by = stop.name or "a signal"
            print(f"Stopped by {by} at step {loop.step:,}, all saved; the same command goes on from here.")
        else:
            print(f"Trained to step {loop.step:,}. {done}")
    if failed:
        return 1
    return stop.exit_code if loop.stopped else 0
