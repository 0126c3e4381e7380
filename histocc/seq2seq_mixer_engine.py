"""The engine of the mixer model: one epoch of training, one evaluation, and a whole run of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.layers.masking import create_mask
from histocc.loss import LossMixer
from histocc.metrics.accuracies import order_invariant_hits
from histocc.metrics.code_sets import CodeSetMetrics, summarise
from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.evaluation import add_up_batches
from histocc.training.loop import Batch, Intervals, TrainingLoop, dense_classes, unwrap
from histocc.training.precision import Precision
from histocc.training.reporting import LogFile

DataLoaders = Mapping[str, Iterable[Batch]]


def mixer_loss(model: nn.Module, batch: Batch, loss_fn: LossMixer) -> dict[str, Tensor]:
    """Forward pass and loss of a batch on the model's device.

    Returns the 0-dim tensors 'loss' (mixed), 'loss_linear' and 'loss_seq2seq' (unweighted), float32. The batch holds
    input_ids and attention_mask, int64 [B, L], targets_seq2seq, int64 [B, T], and the classes of the rows: either
    targets_classes, int64 [B, K] with -1 where a row has no further class, or targets_linear, float32 [B, C].
    """
    out_seq2seq, out_linear = _forward(model, batch, loss_fn)
    return _losses(out_seq2seq, out_linear, batch, loss_fn)


def _forward(model: nn.Module, batch: Batch, loss_fn: LossMixer) -> tuple[Tensor, Tensor]:
    target_input = batch["targets_seq2seq"][:, :-1]
    pad_idx = loss_fn.loss_fn_seq2seq.pad_idx
    target_mask, target_padding_mask = create_mask(target_input, pad_idx, target_input.device)
    return model(batch["input_ids"], batch["attention_mask"], target_input, target_mask, target_padding_mask)


def _losses(out_seq2seq: Tensor, out_linear: Tensor, batch: Batch, loss_fn: LossMixer) -> dict[str, Tensor]:
    # Exponentials and sums over thousands of classes are no work for half precision.
    with torch.autocast(out_linear.device.type, enabled=False):
        loss, seq2seq, linear = loss_fn.components(
            out_seq2seq=out_seq2seq,
            out_linear=out_linear,
            target_seq2seq=batch["targets_seq2seq"],
            target_linear=dense_classes(batch, out_linear.shape[1]),
        )
    return {"loss": loss, "loss_linear": linear, "loss_seq2seq": seq2seq}


def train_one_epoch(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: LossMixer,
    optimizer: Optimizer,
    device: torch.device,
    scheduler: LRScheduler | None,
    current_step: int,
    log_interval: int = 100,
    eval_interval: int | None = None,
    save_interval: int | None = None,
    save_dir: str | None = None,
    data_loader_eval: Iterable[Batch] | None = None,
    log_wandb: bool = False,
    **options: Any,
) -> int:
    """Train on every batch of `data_loader` once and return the step reached.

    A step: zero gradients, forward, loss, backward, clip the global gradient norm to 1.0, optimizer, scheduler. Every
    `log_interval` steps figures are shown, every `eval_interval` steps `data_loader_eval` is evaluated into
    ``logs.csv``, every `save_interval` steps a checkpoint is written, both in `save_dir`. `options` as in `train`.
    """
    loop = build_loop(
        model,
        {"data_loader_train": data_loader, "data_loader_val": data_loader_eval},
        loss_fn,
        optimizer,
        device,
        scheduler,
        save_dir,
        total_steps=options.pop("total_steps", current_step + len(data_loader)),
        current_step=current_step,
        log_interval=log_interval,
        eval_interval=eval_interval,
        save_interval=save_interval,
        log_wandb=log_wandb,
        **options,
    )
    loop.run_epoch(data_loader)
    return loop.step


def train(
    model: nn.Module,
    data_loaders: DataLoaders,
    loss_fn: LossMixer,
    optimizer: Optimizer,
    device: torch.device,
    scheduler: LRScheduler | None,
    save_dir: str | None,
    total_steps: int,
    current_step: int = 0,
    log_interval: int = 100,
    eval_interval: int | None = 1000,
    save_interval: int | None = 1000,
    log_wandb: bool = False,
    **options: Any,
) -> TrainingLoop:
    """Train to exactly `total_steps`, evaluate and save at the end; `options` as in `build_loop`.

    `data_loaders` holds 'data_loader_train' and, for evaluations, 'data_loader_val'.
    """
    loop = build_loop(
        model,
        data_loaders,
        loss_fn,
        optimizer,
        device,
        scheduler,
        save_dir,
        total_steps,
        current_step,
        log_interval,
        eval_interval,
        save_interval,
        log_wandb,
        **options,
    )
    loop.run(lambda epoch: data_loaders["data_loader_train"])
    return loop


def build_loop(
    model: nn.Module,
    data_loaders: DataLoaders,
    loss_fn: LossMixer,
    optimizer: Optimizer,
    device: torch.device,
    scheduler: LRScheduler | None,
    save_dir: str | None,
    total_steps: int,
    current_step: int = 0,
    log_interval: int = 100,
    eval_interval: int | None = 1000,
    save_interval: int | None = 1000,
    log_wandb: bool = False,
    *,
    train_sampler: Any = None,
    save_each_epoch: bool = False,
    distributed: bool = False,
    is_main_process: bool = True,
    use_amp: bool = False,
    amp_dtype: str = "auto",
    grad_accum_steps: int = 1,
    keep_checkpoints: int | None = None,
    processes: Processes | None = None,
    seed: int | None = None,
    stop: StopSignals | None = None,
    code_metrics: Callable[[], CodeSetMetrics] | None = None,
    languages: Tensor | None = None,
    save_extra: Mapping[str, Any] | None = None,
) -> TrainingLoop:
    """The training loop of the mixer, ready to run or to be restored from a checkpoint.

    Parameters beyond those of `train`
    ----------------------------------
    train_sampler, distributed, is_main_process
        Accepted for callers of old; loaders carry their samplers, and `processes` says who is who.
    use_amp, amp_dtype
        Mixed precision, see `Precision`.
    grad_accum_steps
        Batches per optimizer step.
    keep_checkpoints
        How many ``<step>.bin`` to keep; None keeps all.
    seed
        Makes dropout a function of (seed, step, rank), which a resumed run repeats.
    code_metrics, languages
        Makes the counter of figures over sets of codes, one per evaluation; and the language index of every
        validation row, integer [rows], if it tells languages apart.
    save_extra
        Further entries of checkpoints.
    """
    processes = processes or Processes(rank=0 if is_main_process else 1, device=device)
    precision = Precision(device, use_amp, amp_dtype)
    stop = stop or StopSignals()
    loader_val = data_loaders.get("data_loader_val")
    key = getattr(getattr(data_loaders["data_loader_train"], "dataset", None), "map_code_label", None)

    def evaluate_now() -> dict[str, float] | None:
        return evaluate_figures(
            unwrap(model),
            loader_val,
            loss_fn,
            device,
            precision=precision,
            processes=processes,
            code_metrics=code_metrics,
            languages=languages,
            stop=stop,
        )

    track = None
    if log_wandb and processes.is_main:
        from histocc.training.tracking import wandb_log

        track = wandb_log
    folder = Path(save_dir) if save_dir is not None else None
    return TrainingLoop(
        model=model,
        compute_loss=lambda module, batch: mixer_loss(module, batch, loss_fn),
        optimizer=optimizer,
        scheduler=scheduler,
        device=device,
        total_steps=total_steps,
        evaluate=None if loader_val is None else evaluate_now,
        intervals=Intervals(log_interval, eval_interval, save_interval, save_each_epoch),
        precision=precision,
        processes=processes,
        checkpoints=None if folder is None else CheckpointFolder(folder, keep_checkpoints),
        log=None if folder is None else LogFile(folder / "logs.csv"),
        track=track,
        grad_accum_steps=grad_accum_steps,
        seed=seed,
        save_extra={"key": key, **(save_extra or {})},
        stop=stop,
        step=current_step,
    )


def evaluate(
    model: nn.Module, data_loader: Iterable[Batch], loss_fn: LossMixer, device: torch.device, log_interval: int = 100
) -> tuple[float, float, float, float, float, float]:
    """Evaluate with teacher forcing: (loss, loss_linear, loss_seq2seq, seq_acc, token_acc, flat_acc).

    Each is the mean over batches weighted by batch size; seq_acc and token_acc are in percent, flat_acc is a fraction.
    `log_interval` is accepted for callers of old: a progress bar shows every batch.
    """
    figures = evaluate_figures(model, data_loader, loss_fn, device)
    names = ("val_loss", "val_loss_linear", "val_loss_seq2seq", "seq_acc", "token_acc", "flat_acc")
    return tuple(figures[name] for name in names)


def evaluate_figures(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: LossMixer,
    device: torch.device,
    *,
    precision: Precision | None = None,
    processes: Processes | None = None,
    code_metrics: Callable[[], CodeSetMetrics] | None = None,
    languages: Tensor | None = None,
    stop: StopSignals | None = None,
) -> dict[str, float] | None:
    """All figures of an evaluation by their names in ``logs.csv``, equal on all processes; see `add_up_batches`."""
    processes = processes or Processes(device=device)
    blocks = loss_fn.loss_fn_seq2seq
    length = blocks.nb_blocks * blocks.block_size
    sets = None if code_metrics is None else code_metrics()
    languages = None if languages is None else languages.to(device)

    def sums_of_batch(batch: Batch) -> list[Tensor]:
        out_seq2seq, out_linear = _forward(model, batch, loss_fn)
        batch["targets_linear"] = dense_classes(batch, out_linear.shape[1])
        losses = _losses(out_seq2seq, out_linear, batch, loss_fn)
        predicted = out_seq2seq[:, :length].argmax(-1)
        target = batch["targets_seq2seq"][:, 1 : length + 1]
        rows_correct, hits = order_invariant_hits(predicted, target, blocks.nb_blocks, blocks.block_size)
        flat = ((out_linear.sigmoid() > 0.5) == batch["targets_linear"].bool()).all(dim=1).sum()
        if sets is not None:
            sets.update(predicted, target, None if languages is None else languages[batch["rows"]])
        size = len(target)
        means = (losses["loss"], losses["loss_linear"], losses["loss_seq2seq"])
        return [*(mean * size for mean in means), rows_correct, hits, flat]

    totals = add_up_batches(
        model,
        data_loader,
        device,
        ("loss", "linear", "seq2seq", "seq", "token", "flat"),
        sums_of_batch,
        precision=precision,
        processes=processes,
        stop=stop,
    )
    if totals is None:
        return None
    sums, rows, seconds = totals
    figures = {
        "val_loss": sums["loss"] / rows,
        "val_loss_linear": sums["linear"] / rows,
        "val_loss_seq2seq": sums["seq2seq"] / rows,
        "seq_acc": 100 * sums["seq"] / rows,
        "token_acc": 100 * sums["token"] / (rows * blocks.nb_blocks),
        "flat_acc": sums["flat"] / rows,
    }
    if sets is not None:
        figures |= summarise({name: processes.sum_array(array) for name, array in sets.counts().items()})
    return figures | {"rows": rows, "eval_seconds": round(seconds, 2)}
