"""A run of the mixer model, from data sets to the last checkpoint: what `train_mixer.py` and `finetune.py` share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, make_eval_loader, make_train_loader
from histocc.dataloader.mixer_dataset import TRIM_MULTIPLE
from histocc.errors import Problems, UsageError
from histocc.formatter import PAD_IDX
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.metrics.code_sets import CodeSetMetrics
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.runs import shared as run
from histocc.runs.command_line import warmup_share
from histocc.runs.demo import encoder_source
from histocc.seq2seq_mixer_engine import build_loop
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.resume import position_of, restore
from histocc.training.schedule import linear_schedule
from histocc.training.tracking import wandb_init
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
    notes = [
        f"Warning: {kind} data: {note}"
        for kind, data in (("training", task.train_data), ("validation", task.val_data))
        for note in data.notes
    ]
    state, source = folder.load_newest(warn=notes.append) or (None, None)
    run.check_same_file_system(processes, state)
    settings = _settings(args, task)
    seed = args.seed
    position = None
    if state is not None:
        _check_task(state.get("settings") or {}, settings, source)
        seed = run.seed_of(state, args.seed, notes)
        notes += run.disagreements(state.get("settings"), settings, _COMPARED)
        position = position_of(state, settings, processes, notes)
        _compare_keys(state.get("key"), task.key, source, notes)

    if task.train_data.augmenter is not None:
        task.train_data.augmenter.seed = seed
    torch.manual_seed(seed)
    model = build_model(args, task.formatter, task.num_classes_flat)
    if state is None and args.initial_checkpoint:
        summary = load_initial_weights(model, args.initial_checkpoint, only_encoder=args.only_encoder, key=task.key)
        notes.append(str(summary))
    elif args.initial_checkpoint:
        notes.append(f"--initial-checkpoint is not used: the run goes on from {source}")
    model.to(processes.device)
    if task.freeze_encoder:
        # Before the model is wrapped: a wrapped model waits for gradients of everything that wanted some.
        model.encoder.requires_grad_(False)
    optimizer = run.make_optimizer(model, args.learning_rate)
    loss_fn = LossMixer(
        BlockOrderInvariantLoss(PAD_IDX, nb_blocks=task.formatter.max_num_codes, block_size=task.formatter.block_size),
        nn.BCEWithLogitsLoss(),
        seq2seq_weight=args.seq2seq_weight,
    )

    train_loader, val_loader = _loaders(args, processes, task, seed)
    steps = run.count_steps(args, train_loader.sampler, args.num_epochs, position)
    scheduler = linear_schedule(optimizer, steps.warmup, steps.total)

    stop = StopSignals()
    tell_languages = len(task.val_data.languages) <= _MOST_LANGUAGES
    loop = build_loop(
        run.wrap(model, processes),
        {"data_loader_train": train_loader, "data_loader_val": val_loader},
        loss_fn,
        optimizer,
        processes.device,
        scheduler,
        task.save_dir,
        steps.total,
        log_interval=run.log_interval(args, steps),
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
    if state is not None:
        restore(loop.restore, state, source)
        if position is not None:
            loop.rows_done = position.rows_done
        # Optimizer and model have what they need; this copy would take three times the model's size all the while.
        state = None
    if args.compile:
        compile_model(model, task.train_data.max_input_len if args.trim_padding else None)

    facts = {
        "training rows": len(task.train_data),
        "validation rows": len(task.val_data),
        "classes": task.num_classes_flat,
        "codes a row": f"up to {task.formatter.max_num_codes}, {task.formatter.block_size} tokens each",
        **task.facts,
    }
    run.announce(facts, notes, args, processes, loop, steps, task.save_dir, source, "--num-epochs")
    with stop:
        loop.run(lambda epoch: train_loader)
    last, best = task.save_dir / "last.bin", task.save_dir / "best.bin"
    return run.end(loop, processes, stop, task.save_dir, f"The model is in {last}, the best one by val_loss in {best}.")


def build_model(args: argparse.Namespace, formatter: Any, num_classes_flat: int) -> Seq2SeqMixerOccCANINE:
    """The model that the flags ask for: encoder with its pretrained weights, both heads with random ones.

    Raises UsageError if the encoder cannot be had or does not take inputs of ``--max-len``.
    """
    model = Seq2SeqMixerOccCANINE(
        num_classes=formatter.num_classes,
        num_classes_flat=num_classes_flat,
        dropout_rate=args.dropout,
        decoder_dim_feedforward=args.decoder_dim_feedforward,
        **encoder_source(args.encoder),
    )
    positions = model.encoder.char_embeddings.char_position_embeddings.num_embeddings
    if args.max_len > positions:
        raise UsageError(f"--max-len is {args.max_len}, but the encoder {args.encoder} has {positions} positions")
    return model


def _check_task(saved: Mapping[str, Any], settings: Mapping[str, Any], source: Path) -> None:
    """Raise UsageError where a run cannot go on since it is about other targets, or trains other weights."""
    problems = Problems()
    for name, what, flag in (
        ("max_num_codes", "codes a row", "--target-cols"),
        ("block_size", "tokens a code", "--block-size"),
    ):
        before, now = saved.get(name, settings[name]), settings[name]
        if before != now:
            problems.add(f"{source} is from a run with another number of {what}, {before} and not {now} ({flag})")
    if saved.get("freeze_encoder", settings["freeze_encoder"]) != settings["freeze_encoder"]:
        problems.add(f"{source} is from a run {'with' if saved['freeze_encoder'] else 'without'} --freeze-encoder")
    if problems:
        problems.add("Give the flags that the run was started with, or another save folder")
    problems.raise_if_any()


def _compare_keys(
    saved: Mapping[str, int] | None, key: Mapping[str, int] | None, source: Path, notes: list[str]
) -> None:
    """Refuse to continue with more or fewer codes than the checkpoint knows; note codes whose class is another one."""
    if saved is None or key is None or saved == key:
        return
    if len(saved) != len(key):
        raise UsageError(
            f"the key has {len(key):,} codes now and had {len(saved):,} when {source} was saved, so this run cannot go "
            "on. Move the checkpoints (.bin) to another folder and give one of them as --initial-checkpoint: the model "
            "starts from it, with the codes that both know carried over"
        )
    changed = [code for code, index in key.items() if saved.get(code) != index]
    if changed:
        notes.append(
            f"Warning: {len(changed):,} codes of the key, as {changed[0]!r}, have another class than when {source} "
            "was saved. The model takes them for the codes that had these classes: right for a new spelling only"
        )


def _loaders(args: argparse.Namespace, processes: Processes, task: MixerTask, seed: int) -> tuple[Any, Any]:
    workers = run.worker_count(args.num_workers, processes.device)
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
        trim_padding=args.trim_padding,
        **common,
    )
    val_loader = make_eval_loader(
        task.val_data, args.batch_size, num_workers=workers, max_samples=args.max_val_samples, **common
    )
    return train_loader, val_loader


def compile_model(model: nn.Module, longest_trimmed: int | None = None) -> None:
    """Compile the forward pass in place, for fixed shapes; names of parameters stay as they are.

    `longest_trimmed` is the greatest length where batches are trimmed: each multiple of 16 up to it is a shape of its
    own, in training, and one more in evaluation.
    """
    if longest_trimmed is not None:
        shapes = -(-longest_trimmed // TRIM_MULTIPLE) + 1
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * shapes)
    # Compiled random numbers are drawn one by one on a CPU, which takes longer than all that compiling saves.
    cpu = next(model.parameters()).device.type == "cpu"
    model.compile(dynamic=False, options={"fallback_random": True} if cpu else None)


_COMPARED = (
    "learning_rate",
    "batch_size",
    "num_epochs",
    "grad_accum_steps",
    "seq2seq_weight",
    "dropout",
    "max_len",
    "trim_padding",
    "warmup_pct",
    "warmup_steps",
    "max_steps",
    "max_val_samples",
    "use_amp",
    "amp_dtype",
    "augmentation_prob",
    "num_transformations",
    "unk_lang_prob",
    "fn_word_freq",
    "include_descriptions",
    "description_prob",
    "description_template",
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
        "freeze_encoder": task.freeze_encoder,
        "training_rows": len(task.train_data),
    }
    return model | {name: getattr(args, name, None) for name in _COMPARED} | {"warmup_pct": warmup_share(args)}


def _start_tracking(args: argparse.Namespace, save_dir: Path) -> bool:
    return wandb_init(save_dir, args.wandb_project_name, name=save_dir.name, config=vars(args))
