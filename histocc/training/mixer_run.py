"""A run of the mixer model, from data sets to the last checkpoint: what `train_mixer.py` and `finetune.py` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, make_eval_loader, make_train_loader
from histocc.errors import UsageError
from histocc.formatter import PAD_IDX
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.seq2seq_mixer_engine import build_loop
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.cli import warmup_of
from histocc.training.demo import encoder_source
from histocc.training.distributed import Processes
from histocc.training.loop import TrainingLoop
from histocc.training.reporting import header
from histocc.training.schedule import linear_schedule, steps_per_epoch
from histocc.training.signals import StopSignals
from histocc.utils.code_metrics import CodeSetMetrics
from histocc.utils.log_util import wandb_init
from histocc.weights import load_initial_weights

# Languages told apart in the figures by language; past this many the column is hardly a language.
_MOST_LANGUAGES = 64


@dataclass
class MixerTask:
    """What a script brings to a run of the mixer; everything else is in its flags.

    Parameters
    ----------
    save_dir
        Where checkpoints and logs go; it exists.
    formatter
        Formatter of the coding system.
    train_data, val_data
        Data sets.
    num_classes_flat
        Classes of the flat head, C.
    key
        Code to class; None where classes are those of HISCO or OCC1950.
    freeze_encoder
        Train decoder and flat head alone.
    """

    save_dir: Path
    formatter: Any
    train_data: OccDatasetMixerInMemMultipleFiles
    val_data: OccDatasetMixerInMemMultipleFiles
    num_classes_flat: int
    key: Mapping[str, int] | None = None
    freeze_encoder: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def run_mixer(args: argparse.Namespace, processes: Processes, task: MixerTask) -> int:
    """Build model, loss, optimizer and schedule, take up an earlier run or initial weights, train, and save.

    Returns the exit code: 0, 130 after Ctrl-C, 1 if the last checkpoint could not be written.
    """
    folder = CheckpointFolder(task.save_dir, args.keep_checkpoints)
    resumed = folder.load_newest()
    _check_same_file_system(processes, resumed)
    settings = _settings(args, task)
    seed = args.seed
    notes: list[str] = []
    if resumed is not None:
        seed = _seed_of(resumed[0], args.seed, notes)
        notes += _disagreements(resumed[0].get("settings"), settings)

    if task.train_data.augmenter is not None:
        task.train_data.augmenter.seed = seed
    torch.manual_seed(seed)
    model = Seq2SeqMixerOccCANINE(
        num_classes=task.formatter.num_classes,
        num_classes_flat=task.num_classes_flat,
        dropout_rate=args.dropout,
        decoder_dim_feedforward=args.decoder_dim_feedforward,
        **encoder_source(args.encoder),
    )
    if resumed is None and args.initial_checkpoint:
        summary = load_initial_weights(model, args.initial_checkpoint, only_encoder=args.only_encoder, key=task.key)
        notes.append(str(summary))
    elif resumed is not None and args.initial_checkpoint:
        notes.append(f"--initial-checkpoint is not used: the run goes on from {resumed[1]}")
    model.to(processes.device)
    if task.freeze_encoder:
        # Before the model is wrapped: a wrapped model waits for gradients of everything that wanted some.
        model.encoder.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, fused=True)
    loss_fn = LossMixer(
        BlockOrderInvariantLoss(PAD_IDX, nb_blocks=task.formatter.max_num_codes, block_size=task.formatter.block_size),
        nn.BCEWithLogitsLoss(),
        seq2seq_weight=args.seq2seq_weight,
    )

    train_loader, val_loader = _loaders(args, processes, task, seed)
    steps_an_epoch = steps_per_epoch(len(train_loader), args.grad_accum_steps)
    total_steps = args.max_steps or steps_an_epoch * args.num_epochs
    num_warmup_steps = warmup_of(args, total_steps)
    scheduler = linear_schedule(optimizer, num_warmup_steps, total_steps)

    stop = StopSignals()
    tell_languages = len(task.val_data.languages) <= _MOST_LANGUAGES
    loop = build_loop(
        _wrap(model, processes),
        {"data_loader_train": train_loader, "data_loader_val": val_loader},
        loss_fn,
        optimizer,
        processes.device,
        scheduler,
        task.save_dir,
        total_steps,
        log_interval=args.log_interval,
        eval_interval=args.eval_interval,
        save_interval=args.save_interval,
        save_each_epoch=getattr(args, "save_each_epoch", False),
        log_wandb=args.log_wandb and processes.is_main and _start_tracking(args, task.save_dir),
        use_amp=args.use_amp,
        amp_dtype=args.amp_dtype,
        grad_accum_steps=args.grad_accum_steps,
        keep_checkpoints=args.keep_checkpoints,
        processes=processes,
        seed=seed,
        stop=stop,
        code_metrics=lambda: CodeSetMetrics(task.formatter, task.val_data.languages if tell_languages else None),
        languages=torch.as_tensor(task.val_data.language_index) if tell_languages else None,
        save_extra={"key": dict(task.key) if task.key is not None else None, "settings": settings},
    )
    if resumed is not None:
        _restore(loop, resumed, task, notes)
    if args.compile:
        model.compile(dynamic=False)

    if processes.is_main:
        facts = {
            "training rows": len(task.train_data),
            "validation rows": len(task.val_data),
            "classes": task.num_classes_flat,
            "codes a row": f"up to {task.formatter.max_num_codes}, {task.formatter.block_size} tokens each",
            **task.facts,
            "steps": f"{total_steps:,} ({steps_an_epoch:,} an epoch), {num_warmup_steps:,} of them warm-up",
            "batch size": _batch_size_fact(args, processes),
            "learning rate": args.learning_rate,
            "parameters": f"{sum(p.numel() for p in model.parameters()):,}, "
            f"{sum(p.numel() for p in trained):,} of them trained",
            "device": _device_fact(processes),
            "precision": loop.precision.describe() + (", compiled" if args.compile else ""),
            "save folder": task.save_dir,
            "start": f"step {loop.step:,}, from {resumed[1]}" if resumed is not None else "step 0",
        }
        print("\n".join([header(facts), *notes]), flush=True)
    if loop.finished:
        if processes.is_main:
            print(
                f"The run is complete (step {loop.step:,} of {total_steps:,}). More --num-epochs would go on from here."
            )
        return 0
    with stop:
        loop.run(lambda epoch: train_loader)
    return _end(loop, processes, stop, task.save_dir)


def _loaders(args: argparse.Namespace, processes: Processes, task: MixerTask, seed: int) -> tuple[Any, Any]:
    workers = args.num_workers
    if workers is None:
        # On a CPU the workers would take the cores that compute; a GPU is kept fed by a few.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(4, max(1, cores // local_processes - 1)) if processes.device.type == "cuda" else 0
    common = {
        "rank": processes.rank,
        "world_size": processes.world_size,
        "pin_memory": processes.device.type == "cuda",
        "seed": seed,
    }
    train_loader = make_train_loader(
        task.train_data,
        args.batch_size,
        num_workers=workers,
        prefetch_factor=getattr(args, "prefetch_factor", None),
        persistent_workers=workers > 0,
        **common,
    )
    val_loader = make_eval_loader(
        task.val_data, args.batch_size, num_workers=workers, max_samples=args.max_val_samples, **common
    )
    return train_loader, val_loader


def _wrap(model: nn.Module, processes: Processes) -> nn.Module:
    if processes.world_size == 1:
        return model
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)


def _restore(loop: TrainingLoop, resumed: tuple[dict[str, Any], Path], task: MixerTask, notes: list[str]) -> None:
    state, path = resumed
    try:
        loop.restore(state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is from a run of another shape and cannot be continued here: {error}. "
            "Give another save folder, or the flags that the run was started with"
        ) from error
    rows = (state.get("settings") or {}).get("training_rows")
    if loop.rows_done and rows is not None and rows != len(task.train_data):
        notes.append(
            f"the training data has {len(task.train_data):,} rows now and had {rows:,}: epoch {loop.epoch} begins anew"
        )
        loop.rows_done = 0
    if "position" not in state and loop.step:
        notes.append(f"{path} holds no position in the data: the order of rows begins anew")
    world_size = state.get("position", {}).get("world_size", loop.processes.world_size)
    if world_size != loop.processes.world_size:
        notes.append(
            f"the run had {world_size} processes and has {loop.processes.world_size} now: the rows of a step, the "
            "number of steps an epoch, and dropout change; each remaining row of the epoch is still seen once"
        )


def _check_same_file_system(processes: Processes, resumed: tuple[dict[str, Any], Path] | None) -> None:
    steps = processes.gather(None if resumed is None else int(resumed[0]["step"]))
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes see different checkpoints in the save folder (steps {', '.join(map(str, steps))}); it must "
            "be on a file system that all machines share"
        )


# Flags that a checkpoint decides, since optimizer and schedule carry them; all others are decided by the command line.
_CHECKPOINT_DECIDES = ("learning_rate",)
_COMPARED = (
    "learning_rate",
    "batch_size",
    "num_epochs",
    "grad_accum_steps",
    "seq2seq_weight",
    "dropout",
    "max_len",
    "warmup_pct",
    "warmup_steps",
    "max_steps",
    "use_amp",
    "amp_dtype",
)


def _settings(args: argparse.Namespace, task: MixerTask) -> dict[str, Any]:
    """What a checkpoint says about how it was trained: plain values, and enough to build the model again."""
    model = {
        "num_classes": list(task.formatter.num_classes),
        "num_classes_flat": task.num_classes_flat,
        "max_num_codes": task.formatter.max_num_codes,
        "block_size": task.formatter.block_size,
        "decoder_dim_feedforward": args.decoder_dim_feedforward,
        "encoder": args.encoder,
        "training_rows": len(task.train_data),
    }
    return model | {name: getattr(args, name, None) for name in _COMPARED}


def _seed_of(state: Mapping[str, Any], flag: int, notes: list[str]) -> int:
    seed = state.get("position", {}).get("seed", flag)
    if seed != flag:
        notes.append(
            f"--seed {flag} differs from the checkpoint's {seed}; the checkpoint's is used, to keep the order of rows"
        )
    return seed


def _disagreements(saved: Mapping[str, Any] | None, current: Mapping[str, Any]) -> list[str]:
    """A line for every setting in which flags and checkpoint differ, saying which one is used."""
    lines = []
    for name in _COMPARED:
        if saved is None or name not in saved or saved[name] == current[name]:
            continue
        winner = "the checkpoint's" if name in _CHECKPOINT_DECIDES else "the flag's"
        flag = "--" + name.replace("_", "-")
        lines.append(f"{flag} {current[name]} differs from the checkpoint's {saved[name]}; {winner} is used")
    return lines


def _start_tracking(args: argparse.Namespace, save_dir: Path) -> bool:
    return wandb_init(save_dir, args.wandb_project_name, name=save_dir.name, config=vars(args))


def _batch_size_fact(args: argparse.Namespace, processes: Processes) -> str:
    rows = args.batch_size * args.grad_accum_steps * processes.world_size
    factors = [f"{args.batch_size:,} rows"]
    if args.grad_accum_steps > 1:
        factors.append(f"{args.grad_accum_steps} accumulated")
    if processes.world_size > 1:
        factors.append(f"{processes.world_size} processes")
    return " x ".join(factors) + (f" = {rows:,} rows a step" if len(factors) > 1 else "")


def _device_fact(processes: Processes) -> str:
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, process {processes.rank} of {processes.world_size}" if processes.world_size > 1 else name


def _end(loop: TrainingLoop, processes: Processes, stop: StopSignals, save_dir: Path) -> int:
    failed = sum(processes.gather(loop.save_failure is not None)) > 0
    if processes.is_main:
        if failed:
            print(f"Error: the state at step {loop.step:,} could not be saved in {save_dir}: {loop.save_failure}")
        elif loop.stopped:
            by = stop.name or "a signal"
            print(f"Stopped by {by} at step {loop.step:,}, all saved; the same command goes on from here.")
        else:
            last, best = save_dir / "last.bin", save_dir / "best.bin"
            print(f"Trained to step {loop.step:,}. The model is in {last}, the best one by val_loss in {best}.")
    if failed:
        return 1
    return stop.exit_code if loop.stopped else 0
