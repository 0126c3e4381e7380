"""The engine of the mixer model: one epoch of training, one evaluation, and a whole run of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.dataloader.task import coding_system_of, dataset_of, known_languages
from histocc.decoding.greedy import greedy_decode
from histocc.decoding.memory import DecoderMemory
from histocc.errors import UsageError
from histocc.files import run_folder
from histocc.files.folders import make_folder
from histocc.formatter import PAD_IDX
from histocc.layers.masking import create_mask
from histocc.loss import LossMixer
from histocc.metrics.accuracies import flat_rows_correct, order_invariant_hits
from histocc.metrics.code_sets import ClassSetMetrics, CodeSetMetrics, EvaluatedCodes
from histocc.metrics.details import (
    DECODED,
    DETAILS,
    FLAT,
    TEACHER_FORCED,
    Details,
    columns_of,
    summarise_heads,
    worst_mistakes,
)
from histocc.metrics.mistakes import CodeMistakes
from histocc.metrics.one_answer import AnswerCounts
from histocc.stored_model import describe_trained_mixer
from histocc.training.batches import Batch, dense_classes
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.context import Plan, RunContext
from histocc.training.evaluation import add_up_batches
from histocc.training.loop import OnEvaluation, TrainingLoop, unwrap
from histocc.training.reporting import LogFile
from histocc.training.tracking import wandb_callback

_DECODED_TOGETHER = 256

DataLoaders = Mapping[str, Iterable[Batch]]


def mixer_loss(model: nn.Module, batch: Batch, loss_fn: Any) -> dict[str, Tensor]:
    """Forward pass and loss of a batch on the model's device.

    Parameters
    ----------
    model
        Called with the keywords input_ids, attention_mask, target, target_mask, target_padding_mask; gives the logits
        of the decoder [B, T-1, V] and of the flat head [B, C].
    batch
        input_ids and attention_mask, int64 [B, L], targets_seq2seq, int64 [B, T], and the classes of the rows: either
        targets_classes, int64 [B, K] with -1 where a row has no further class, or targets_linear, float32 [B, C].
    loss_fn
        A `LossMixer`, or anything that takes the keywords out_seq2seq, out_linear, target_seq2seq, target_linear and
        returns a 0-dim tensor, which is what training minimises.

    Returns
    -------
    dict
        'loss', 0-dim; of a `LossMixer` also its unweighted parts 'loss_linear' and 'loss_seq2seq'.
    """
    return _losses(*_forward(model, batch, loss_fn), batch, loss_fn)


def _forward(model: nn.Module, batch: Batch, loss_fn: Any) -> tuple[Tensor, Tensor]:
    target_input = batch["targets_seq2seq"][:, :-1]
    pad_idx = getattr(getattr(loss_fn, "loss_fn_seq2seq", None), "pad_idx", PAD_IDX)
    target_mask, target_padding_mask = create_mask(target_input, pad_idx, target_input.device)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        target=target_input,
        target_mask=target_mask,
        target_padding_mask=target_padding_mask,
    )


def _losses(out_seq2seq: Tensor, out_linear: Tensor, batch: Batch, loss_fn: Any) -> dict[str, Tensor]:
    arguments = {
        "out_seq2seq": out_seq2seq,
        "out_linear": out_linear,
        "target_seq2seq": batch["targets_seq2seq"],
        "target_linear": dense_classes(batch, out_linear.shape[1]),
    }
    # Exponentials and sums over thousands of classes are no work for half precision.
    with torch.autocast(out_linear.device.type, enabled=False):
        if _is_plain_mixer(loss_fn):
            loss = loss_fn(**arguments)
            seq2seq, linear = loss_fn.last_parts
            return {"loss": loss, "loss_linear": linear, "loss_seq2seq": seq2seq}
        for name in ("out_seq2seq", "out_linear"):
            arguments[name] = arguments[name].to(torch.promote_types(arguments[name].dtype, torch.float32))
        return {"loss": loss_fn(**arguments)}


def _is_plain_mixer(loss_fn: Any) -> bool:
    """Whether calling `loss_fn` computes what `LossMixer` computes, and so leaves its parts behind."""
    return isinstance(loss_fn, LossMixer) and type(loss_fn).forward is LossMixer.forward


def train_one_epoch(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: Any,
    optimizer: Optimizer,
    device: torch.device | str,
    scheduler: LRScheduler | None,
    current_step: int,
    log_interval: int = 100,
    eval_interval: int | None = None,
    save_interval: int | None = None,
    save_dir: str | None = None,
    data_loader_eval: Iterable[Batch] | None = None,
    log_wandb: bool = False,
    *,
    total_steps: int | None = None,
    epoch: int = 0,
    save_each_epoch: bool = False,
    distributed: bool = False,
    is_main_process: bool = True,
    scaler: Any = None,
    **options: Any,
) -> int:
    """Train on every batch of `data_loader` once and return the step reached.

    A step: zero gradients, forward, loss, backward, clip the global gradient norm to 1.0, optimizer, scheduler. Every
    `log_interval` steps figures are shown, every `eval_interval` steps `data_loader_eval` is evaluated into
    ``logs.csv``, every `save_interval` steps a checkpoint is written, both in `save_dir`.

    The arguments are those of `train`, but for `data_loader` and `data_loader_eval` (training and validation batches);
    `total_steps`, for the time left, this epoch's by default; `epoch`, the number of the epoch; and `scaler`: where it
    is an enabled gradient scaler, training is in float16, with a scaler of this package's own.
    """
    steps = current_step + len(data_loader) if total_steps is None else total_steps
    if scaler is not None and getattr(scaler, "is_enabled", lambda: True)():
        options = {"use_amp": True, "amp_dtype": "float16", **options}
    loop = _loop_of_caller(
        model,
        {"data_loader_train": data_loader, "data_loader_val": data_loader_eval},
        loss_fn,
        optimizer,
        device,
        scheduler,
        save_dir,
        Plan(steps, log_interval, eval_interval, save_interval, save_each_epoch=save_each_epoch),
        current_step,
        log_wandb,
        is_main_process,
        **options,
    )
    loop.epoch = epoch
    loop.run_epoch(data_loader)
    return loop.step


def train(
    model: nn.Module,
    data_loaders: DataLoaders,
    loss_fn: Any,
    optimizer: Optimizer | None = None,
    device: torch.device | str | None = None,
    scheduler: LRScheduler | None = None,
    save_dir: str | None = None,
    total_steps: int | None = None,
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
    **options: Any,
) -> TrainingLoop:
    """Train to exactly `total_steps`, evaluate and save at the end.

    Parameters
    ----------
    model
        As for `mixer_loss`, on `device`; may be wrapped for several processes.
    data_loaders
        'data_loader_train' and, for evaluations, 'data_loader_val'.
    loss_fn
        As for `mixer_loss`.
    optimizer, scheduler
        One step of each per optimizer step; the scheduler may be None.
    device
        Where the batches are moved to.
    save_dir
        Folder for checkpoints and logs, which is made if need be; None saves nothing. Where formatter, data set and
        model are this package's own, a checkpoint says what it holds: `histocc predict --model FOLDER` and
        `histocc.stored_model.load_stored_model` need nothing else.
    total_steps
        Optimizer steps of the whole run.
    current_step
        Where it stands; the figures up to there in `save_dir` say which state is the best so far.
    log_interval, eval_interval, save_interval
        Steps between figures, evaluations, checkpoints; None is never.
    log_wandb
        Send the figures of evaluations to the run of Weights & Biases that `wandb_init` started.
    train_sampler
        A sampler of the training loader, whose `set_epoch` is called before each epoch.
    save_each_epoch
        Save at the end of each epoch as well.
    distributed
        Accepted for callers of old: `model` and loaders are what says so.
    is_main_process
        False writes and shows nothing.
    options
        use_amp, amp_dtype (see `Precision`); grad_accum_steps, batches per step; keep_checkpoints, how many
        ``<step>.bin`` stay; seed, of dropout; save_extra, further entries of checkpoints.

    Raises
    ------
    UsageError
        `save_dir` cannot be made or written to; nothing is trained then.
    OSError
        The last state could not be written. The model is trained, and earlier files are untouched.
    TypeError
        An argument is missing; the message names the positions of the original and of its descendant for several GPUs,
        which differ.
    """
    _check_order(loss_fn, optimizer, device, total_steps)
    loop = _loop_of_caller(
        model,
        data_loaders,
        loss_fn,
        optimizer,
        device,
        scheduler,
        save_dir,
        Plan(total_steps, log_interval, eval_interval, save_interval, save_each_epoch=save_each_epoch),
        current_step,
        log_wandb,
        is_main_process,
        **options,
    )

    def loader_of_epoch(epoch: int) -> Iterable[Batch]:
        if hasattr(train_sampler, "set_epoch"):
            train_sampler.set_epoch(epoch)
        return data_loaders["data_loader_train"]

    loop.run(loader_of_epoch)
    loop.raise_if_unsaved()
    return loop


def _check_order(loss_fn: Any, optimizer: Any, device: Any, total_steps: Any) -> None:
    if not callable(loss_fn):
        raise TypeError(
            "the third argument of train is the loss function here, as in the original (model, data_loaders, loss_fn, "
            "optimizer, device, ...). In OCCPAST it is train_sampler: name the arguments (train_sampler=, loss_fn=)"
        )
    given = {"optimizer": optimizer, "device": device, "total_steps": total_steps}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise TypeError(f"train needs {', '.join(missing)}")


def _loop_of_caller(
    model: nn.Module,
    data_loaders: Mapping[str, Any],
    loss_fn: Any,
    optimizer: Optimizer,
    device: torch.device | str,
    scheduler: LRScheduler | None,
    save_dir: str | None,
    plan: Plan,
    current_step: int,
    log_wandb: bool,
    is_main_process: bool,
    *,
    use_amp: bool = False,
    amp_dtype: str = "auto",
    grad_accum_steps: int = 1,
    keep_checkpoints: int | None = None,
    seed: int | None = None,
    save_extra: Mapping[str, Any] | None = None,
) -> TrainingLoop:
    """The loop of a caller who has a device and a folder rather than a `RunContext`."""
    if save_dir is not None and is_main_process:
        make_folder(save_dir, "save_dir")
    context = RunContext.on(
        device, save_dir, use_amp=use_amp, amp_dtype=amp_dtype, seed=seed, is_main_process=is_main_process
    )
    plan = Plan(**{**vars(plan), "grad_accum_steps": grad_accum_steps, "keep_checkpoints": keep_checkpoints})
    callbacks = [wandb_callback] if log_wandb else []
    train_data = data_loaders["data_loader_train"]
    described = {"key": _key_of(train_data), **_description(unwrap(model), train_data)}
    loop = build_loop(
        model,
        data_loaders.get("data_loader_val"),
        loss_fn,
        optimizer,
        scheduler,
        plan,
        context,
        on_evaluation=callbacks,
        save_extra={**described, **(save_extra or {})},
    )
    loop.step = current_step
    if loop.log is not None and (loop.log.path.parent / run_folder.BEST_CHECKPOINT).exists():
        loop.best_val_loss = _lowest_loss(loop.log, current_step)
    return loop


def _lowest_loss(log: LogFile, last_step: int) -> float:
    """The lowest 'val_loss' on file up to a step; infinite where there is none."""
    losses = (loss for step, loss in log.numbers("step", "val_loss") if 0 < step <= last_step)
    return min((loss for loss in losses if not math.isnan(loss)), default=math.inf)


def _key_of(data: Any) -> Any:
    """The key of a loader's data set, which may be a subset of another; None where there is none."""
    while not hasattr(data, "map_code_label"):
        if not hasattr(data, "dataset"):
            return None
        data = data.dataset
    return data.map_code_label


def _description(model: nn.Module, data: Any) -> dict[str, Any]:
    """Entries that say what model a checkpoint holds; empty where code of the caller's own makes that unknown."""
    dataset = dataset_of(data)
    system = None if dataset is None else coding_system_of(dataset)
    if system is None:
        return {}
    described = describe_trained_mixer(model, system, dataset.max_input_len)
    return {**described, "languages": known_languages(dataset.languages)} if described else {}


def build_loop(
    model: nn.Module,
    val_loader: Iterable[Batch] | None,
    loss_fn: Any,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    plan: Plan,
    context: RunContext,
    *,
    codes: EvaluatedCodes | None = None,
    on_evaluation: Sequence[OnEvaluation] = (),
    save_extra: Mapping[str, Any] | None = None,
) -> TrainingLoop:
    """The training loop of the mixer, ready to run or to be restored from a checkpoint.

    Parameters
    ----------
    model, loss_fn, optimizer, scheduler
        As in `train`.
    val_loader
        Validation batches; None evaluates nothing.
    plan
        Length of the run, and intervals.
    context
        Processes, precision, stop, folder and seed.
    codes
        Adds figures over sets of codes to those of an evaluation.
    on_evaluation
        Called with each evaluation, on the main process.
    save_extra
        Further entries of checkpoints.
    """
    folder = context.folder
    plain_model = unwrap(model)

    def evaluate_now() -> dict[str, Any] | None:
        return evaluate_figures(plain_model, val_loader, loss_fn, context, codes)

    return TrainingLoop(
        model=model,
        compute_loss=lambda module, batch: mixer_loss(module, batch, loss_fn),
        optimizer=optimizer,
        scheduler=scheduler,
        plan=plan,
        context=context,
        evaluate=None if val_loader is None else evaluate_now,
        on_evaluation=on_evaluation,
        checkpoints=None if folder is None else CheckpointFolder(folder, plan.keep_checkpoints),
        log=None if folder is None else LogFile(folder / run_folder.LOG),
        save_extra=dict(save_extra or {}),
    )


def evaluate(
    model: nn.Module, data_loader: Iterable[Batch], loss_fn: Any, device: torch.device | str, log_interval: int = 100
) -> tuple[float, float, float, float, float, float]:
    """Evaluate with teacher forcing: (loss, loss_linear, loss_seq2seq, seq_acc, token_acc, flat_acc).

    Each is the mean over batches weighted by batch size; seq_acc and token_acc are in percent, flat_acc is a fraction.
    The unweighted losses are those of ``loss_fn.loss_fn_linear`` and ``loss_fn.loss_fn_seq2seq``, NaN where `loss_fn`
    has none. `log_interval` is accepted for callers of old: a progress bar shows every batch.
    """
    figures = evaluate_figures(model, data_loader, loss_fn, RunContext.on(device))
    names = ("val_loss", "val_loss_linear", "val_loss_seq2seq", "seq_acc", "token_acc", "flat_acc")
    return tuple(figures[name] for name in names)


def evaluate_figures(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: Any,
    context: RunContext,
    codes: EvaluatedCodes | None = None,
) -> dict[str, Any] | None:
    """All figures of an evaluation by their names in ``logs.csv``, equal on all processes; see `add_up_batches`.

    Under `DETAILS` they have what is known beyond these.
    """
    blocks = _blocks_of(loss_fn, data_loader)
    length = blocks.number * blocks.size
    answers = AnswerCounts()
    given = EvaluatedCodes() if codes is None else codes
    decoded = None if given.decoded is None else given.decoded.to(context.device)
    mistakes = None if codes is None else CodeMistakes()
    flat = ClassSetMetrics(given.groups)
    sets = (
        None if codes is None else CodeSetMetrics(given.formatter, given.groups, mistakes if decoded is None else None)
    )
    to_decode: list[tuple[Tensor, ...]] = []

    def sums_of_batch(batch: Batch) -> list[Tensor]:
        out_seq2seq, out_linear = _forward(model, batch, loss_fn)
        batch["targets_linear"] = dense_classes(batch, out_linear.shape[1])
        losses = _all_losses(out_seq2seq, out_linear, batch, loss_fn)
        predicted = out_seq2seq[:, :length].argmax(-1)
        target = batch["targets_seq2seq"][:, 1 : length + 1]
        rows_correct, hits = order_invariant_hits(predicted, target, blocks.number, blocks.size)
        rows = batch.get("rows")
        if sets is not None:
            sets.update(predicted, target, rows)
        flat.update(out_linear, batch["targets_linear"], rows)
        answers.update(out_linear, batch["targets_linear"])
        if decoded is not None:
            chosen = decoded[rows].nonzero()[:, 0]
            parts = (batch["input_ids"], batch["attention_mask"], target, rows)
            to_decode.append(tuple(part[chosen] for part in parts))
        size = len(target)
        means = (losses["loss"], losses["loss_linear"], losses["loss_seq2seq"])
        return [
            *(mean * size for mean in means),
            rows_correct,
            hits,
            flat_rows_correct(out_linear, batch["targets_linear"]),
        ]

    names = ("loss", "linear", "seq2seq", "seq", "token", "flat")
    totals = add_up_batches(model, data_loader, names, sums_of_batch, context)
    if totals is None:
        return None
    sums, rows, seconds = totals
    figures: dict[str, Any] = {
        "val_loss": sums["loss"] / rows,
        "val_loss_linear": sums["linear"] / rows,
        "val_loss_seq2seq": sums["seq2seq"] / rows,
        "seq_acc": 100 * sums["seq"] / rows,
        "token_acc": 100 * sums["token"] / (rows * blocks.number),
        "flat_acc": sums["flat"] / rows,
    }
    counts = {} if sets is None else {TEACHER_FORCED: sets.counts()}
    if decoded is not None:
        counter = CodeSetMetrics(given.formatter, given.groups, mistakes)
        # Together, since each token of a batch costs a pass through the decoder, however few rows it has.
        counts[DECODED] = _decode(model, to_decode, counter, context).counts()
    counts[FLAT] = flat.counts()
    heads = summarise_heads(counts, given.groups, context.processes)
    worst = None
    if mistakes is not None:
        worst = worst_mistakes(
            mistakes, TEACHER_FORCED if decoded is None else DECODED, given.text_of, context.processes
        )
    figures |= columns_of(heads) | answers.figures(context.processes)
    return figures | {"rows": rows, "eval_seconds": round(seconds, 2), DETAILS: Details(heads, worst)}


@torch.no_grad()
def _decode(
    model: nn.Module, lots: Sequence[tuple[Tensor, ...]], counter: CodeSetMetrics, context: RunContext
) -> CodeSetMetrics:
    """Count what greedy decoding makes of lots of rows: ids, mask, target tokens [n, K*S] and places of the rows."""
    if lots:
        for ids, mask, target, rows in zip(*(torch.cat(parts).split(_DECODED_TOGETHER) for parts in zip(*lots))):
            if len(rows):
                with context.precision.autocast():
                    tokens = greedy_decode(DecoderMemory.of(model, ids, mask), target.shape[1] + 2).tokens[:, 1:-1]
                counter.update(tokens, target, rows)
    return counter


def _all_losses(out_seq2seq: Tensor, out_linear: Tensor, batch: Batch, loss_fn: Any) -> dict[str, Tensor]:
    """As `_losses`, and the unweighted parts of a loss that is the caller's own where it has such."""
    losses = _losses(out_seq2seq, out_linear, batch, loss_fn)
    missing = losses["loss"].new_full((), float("nan"))
    for name, part, output, target in (
        ("loss_seq2seq", "loss_fn_seq2seq", out_seq2seq, batch["targets_seq2seq"]),
        ("loss_linear", "loss_fn_linear", out_linear, batch["targets_linear"]),
    ):
        if name not in losses:
            function = getattr(loss_fn, part, None)
            with torch.autocast(out_linear.device.type, enabled=False):
                losses[name] = missing if function is None else function(output.float(), target)
    return losses


class _Blocks(NamedTuple):
    number: int
    size: int


def _blocks_of(loss_fn: Any, data_loader: Iterable[Batch]) -> _Blocks:
    """Codes a row and tokens a code, from the loss of the decoder, or else from the data set's formatter."""
    blocks = getattr(loss_fn, "loss_fn_seq2seq", None)
    if hasattr(blocks, "nb_blocks") and hasattr(blocks, "block_size"):
        return _Blocks(blocks.nb_blocks, blocks.block_size)
    dataset = getattr(data_loader, "dataset", None)
    formatter = getattr(getattr(dataset, "dataset", dataset), "formatter", None)
    if formatter is None:
        raise UsageError(
            "an evaluation needs to know how labels divide into codes: give the loss a part loss_fn_seq2seq with "
            "nb_blocks and block_size, or the data set a formatter"
        )
    return _Blocks(formatter.max_num_codes, formatter.block_size)
