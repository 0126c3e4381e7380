"""The engine of the flat classifier: one epoch of training, one evaluation, and a whole run of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.files import console, run_folder
from histocc.files.atomic import save_with_retry
from histocc.files.folders import make_folder
from histocc.metrics.code_sets import ClassSetMetrics, EvaluatedCodes
from histocc.metrics.details import DETAILS, FLAT, Details, columns_of, summarise_heads, worst_mistakes
from histocc.metrics.mistakes import CodeMistakes
from histocc.metrics.one_answer import AnswerCounts
from histocc.training import plots
from histocc.training.batches import Batch, multi_hot
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.checkpoint_schema import Checkpoint
from histocc.training.context import Plan, RunContext
from histocc.training.evaluation import add_up_batches
from histocc.training.loop import Evaluation, OnEvaluation, TrainingLoop, unwrap
from histocc.training.reporting import LogFile
from histocc.training.schedule import steps_per_epoch

HISTORY = ("epoch", "train_loss", "train_acc", "val_loss", "val_acc")
LOG_COLUMNS = ("epoch", "step", *HISTORY[1:], "augmented", "lr")


def flat_loss(model: nn.Module, batch: Batch, loss_fn: nn.Module) -> dict[str, Tensor]:
    """Forward pass and loss of a batch on the model's device.

    Returns 0-dim tensors: 'loss', float32, and 'train_acc', the number of rows with exactly the right classes. The
    batch holds input_ids and attention_mask, int64 [B, L], perhaps groups (see
    `histocc.model_assets.CANINEOccupationClassifier.forward`), and the classes of the rows: either targets, multi-hot
    [B, C], or targets_classes, int64 [B, K] with -1 where a row has no further class.
    """
    logits = _forward(model, batch)
    targets = _targets(batch, logits.shape[1])
    return {"loss": _loss(logits, targets, loss_fn), "train_acc": _exact_matches(logits.detach(), targets)}


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    groups = {"groups": batch["groups"]} if "groups" in batch else {}
    return model(batch["input_ids"], batch["attention_mask"], **groups)


def _targets(batch: Batch, num_classes: int) -> Tensor:
    dense = batch.get("targets")
    return multi_hot(batch["targets_classes"], num_classes) if dense is None else dense.float()


def _loss(logits: Tensor, targets: Tensor, loss_fn: nn.Module) -> Tensor:
    # Exponentials and sums over thousands of classes are no work for half precision.
    with torch.autocast(logits.device.type, enabled=False):
        return loss_fn(logits.float(), targets)


def _exact_matches(logits: Tensor, targets: Tensor) -> Tensor:
    """Rows of which every class is predicted (probability over one half) if and only if it is there."""
    return ((logits > 0) == targets.bool()).all(dim=1).sum()


def train_epoch(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: nn.Module,
    optimizer: Optimizer,
    device: torch.device,
    scheduler: LRScheduler | None,
    verbose: bool = True,
    num_batches_to_average: int = 100,
) -> tuple[float, float]:
    """Train on every batch of `data_loader` once: (accuracy, loss), means over the rows.

    A step: forward, loss, backward, clip the global gradient norm to 1.0, optimizer, scheduler, zero gradients. The
    accuracy is the share of rows whose classes were all right and no others, as the model stood at their step. With
    `verbose` figures are shown every `num_batches_to_average` batches.
    """
    loop = TrainingLoop(
        model=model,
        compute_loss=lambda module, batch: flat_loss(module, batch, loss_fn),
        optimizer=optimizer,
        scheduler=scheduler,
        plan=Plan(len(data_loader), log_interval=num_batches_to_average),
        context=RunContext.on(device),
        show_progress=verbose,
        counted=("train_acc",),
    )
    loop.run_epoch(data_loader)
    optimizer.zero_grad(set_to_none=True)
    figures = loop.means.figures(loop.processes)
    return figures["train_acc"], figures["train_loss"]


def eval_model(
    model: nn.Module, data_loader: Iterable[Batch], loss_fn: nn.Module, device: torch.device
) -> tuple[float, float]:
    """Evaluate: (accuracy, loss), means over the rows; the accuracy as in `train_epoch`."""
    figures = evaluate_figures(model, data_loader, loss_fn, RunContext.on(device))
    return figures["val_acc"], figures["val_loss"]


def evaluate_figures(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: nn.Module,
    context: RunContext,
    codes: EvaluatedCodes | None = None,
) -> dict[str, Any] | None:
    """All figures of an evaluation by their names in ``logs.csv``, equal on all processes; see `add_up_batches`.

    Under `DETAILS` they have what is known beyond these.
    """
    answers = AnswerCounts()
    given = EvaluatedCodes() if codes is None else codes
    mistakes = CodeMistakes() if given.names else None
    sets = ClassSetMetrics(given.groups, mistakes, given.names)

    def sums_of_batch(batch: Batch) -> list[Tensor]:
        logits = _forward(model, batch)
        targets = _targets(batch, logits.shape[1])
        answers.update(logits, targets)
        sets.update(logits, targets, batch.get("rows"))
        return [_loss(logits, targets, loss_fn) * len(targets), _exact_matches(logits, targets)]

    totals = add_up_batches(model, data_loader, ("loss", "correct"), sums_of_batch, context)
    if totals is None:
        return None
    sums, rows, seconds = totals
    heads = summarise_heads({FLAT: sets.counts()}, given.groups, context.processes)
    worst = None if mistakes is None else worst_mistakes(mistakes, FLAT, given.text_of, context.processes)
    return {
        "val_loss": sums["loss"] / rows,
        "val_acc": sums["correct"] / rows,
        **columns_of(heads),
        **answers.figures(context.processes),
        "rows": rows,
        "eval_seconds": round(seconds, 2),
        DETAILS: Details(heads, worst),
    }


class FlatCheckpoints(CheckpointFolder):
    """The files of a run: ``last.bin`` with all that a resumed run needs, and weights alone under the model's name.

    ``Checkpoint<name>.bin`` holds the newest weights and ``<name>.bin`` the best ones, both as bare state dicts. The
    step files of `CheckpointFolder` stay, a ``best.bin`` is not written.
    """

    def __init__(self, folder: Path, model_name: str, keep: int | None = 1) -> None:
        super().__init__(folder, keep)
        self.newest = self.folder / run_folder.newest_weights(model_name)
        self.best = self.folder / run_folder.best_weights(model_name)
        self.figure = self.folder / run_folder.history_figure(model_name)

    def save(self, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write the weights alone, then `state`; raises OSError as `CheckpointFolder.save` does."""
        self.save_weights(self.newest, state["model"])
        return super().save(state)

    def save_best(self, state: dict[str, Any]) -> None:
        """Nothing: which weights are best is not decided by the loss alone, see `BestWeights`."""

    def save_weights(self, path: Path, weights: Mapping[str, Tensor]) -> None:
        """Write a bare state dict."""
        self.write(path, dict(weights))


class History:
    """The figures of every epoch: lists under the names of `HISTORY`; a callback on evaluation."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.steps: list[int] = []

    def __call__(self, evaluation: Evaluation) -> None:
        self.steps.append(evaluation.step)
        for name in HISTORY:
            self.figures[name].append(evaluation.figures[name])

    def restore(self, log: LogFile) -> None:
        """Fill in the epochs that are on file."""
        for step, *epoch in log.numbers("step", *HISTORY):
            self.steps.append(int(step))
            for name, value in zip(HISTORY, epoch):
                self.figures[name].append(value)

    def best(self, after: int) -> tuple[float, float]:
        """The highest validation accuracy behind step `after`, and with it the least loss, negative; or (-1, -inf)."""
        epochs = zip(self.steps, self.figures["val_acc"], self.figures["val_loss"])
        return max(((acc, -loss) for step, acc, loss in epochs if step > after), default=(-1.0, float("-inf")))


class BestWeights:
    """Saves the weights with the highest validation accuracy, among equals those with the least loss.

    A callback on evaluation, to be called before `history` has the epoch. Figures of steps up to `after` do not count.
    """

    def __init__(self, checkpoints: FlatCheckpoints, history: History, after: Callable[[], int]) -> None:
        self._checkpoints = checkpoints
        self._history = history
        self._after = after

    def __call__(self, evaluation: Evaluation) -> None:
        figures = evaluation.figures
        if (figures["val_acc"], -figures["val_loss"]) > self._history.best(self._after()):
            weights = evaluation.model.state_dict()
            save_with_retry(
                lambda: self._checkpoints.save_weights(self._checkpoints.best, weights),
                f"the best model (step {evaluation.step})",
            )


class HistoryFigure:
    """Draws losses and accuracies; a callback on evaluation, to be called after `history` has the epoch."""

    def __init__(self, path: Path, history: History, reference_loss: float) -> None:
        self._path = path
        self._history = history
        self._reference_loss = reference_loss
        self._told_how_to_draw = False

    def __call__(self, evaluation: Evaluation) -> None:
        if plots.can_draw():
            save_with_retry(
                lambda: plots.draw_history(self._path, self._history.figures, self._reference_loss), "the figure"
            )
        elif not self._told_how_to_draw:
            self._told_how_to_draw = True
            console.say(plots.HOW_TO_GET)


@dataclass(frozen=True)
class AugmentationSwitch:
    """When the augmented loader takes over, for good.

    Parameters
    ----------
    reference_loss
        Loss of always predicting the class frequencies.
    share
        It takes over once the training loss of an epoch is below this share of the reference loss.
    from_start
        Begin with it.
    """

    reference_loss: float
    share: float = 0.75
    from_start: bool = False

    @property
    def below(self) -> float:
        """The training loss below which it takes over."""
        return self.share * self.reference_loss


class FlatTraining:
    """A run of the flat classifier: the loop, which loader an epoch takes, and what it leaves on disk.

    Parameters
    ----------
    model
        The classifier, or one wrapped for several processes.
    data
        'data_loader_train', 'data_loader_train_attack', 'data_loader_val', and perhaps 'tokenizer', which is saved.
    loss_fn
        Called with logits and targets, both float32 [B, C].
    optimizer, scheduler
        One step of each per optimizer step; the scheduler may be None.
    switch
        When the augmented loader takes over.
    plan
        Length of the run, and intervals; evaluations and checkpoints come at the ends of epochs too.
    context
        Processes, precision, stop, folder and seed.
    model_name
        Names the files of weights.
    codes
        How an evaluation counts sets of codes.
    on_evaluation
        More callbacks on evaluation.
    save_extra
        Further entries of checkpoints.
    verbose
        Show progress.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Any],
        loss_fn: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        switch: AugmentationSwitch,
        plan: Plan,
        context: RunContext,
        model_name: str,
        *,
        codes: EvaluatedCodes | None = None,
        on_evaluation: Sequence[OnEvaluation] = (),
        save_extra: Mapping[str, Any] | None = None,
        verbose: bool = True,
    ) -> None:
        self.data = data
        self.switch = switch
        self.augmented = switch.from_start
        self.history = History()
        self.verbose = verbose
        folder = context.folder
        self.checkpoints = None if folder is None else FlatCheckpoints(folder, model_name, plan.keep_checkpoints)
        callbacks: list[OnEvaluation] = [self.history]
        if self.checkpoints is not None:
            drawing = HistoryFigure(self.checkpoints.figure, self.history, switch.reference_loss)
            best = BestWeights(self.checkpoints, self.history, lambda: self.loop.save_extra["best_after"])
            callbacks = [best, self.history, drawing]
        plain_model = unwrap(model)

        def evaluate_now() -> dict[str, float] | None:
            figures = evaluate_figures(plain_model, data["data_loader_val"], loss_fn, context, codes)
            return None if figures is None else {**figures, "augmented": int(self.augmented)}

        self.loop = TrainingLoop(
            model=model,
            compute_loss=lambda module, batch: flat_loss(module, batch, loss_fn),
            optimizer=optimizer,
            scheduler=scheduler,
            plan=replace(plan, eval_each_epoch=True, save_each_epoch=folder is not None),
            context=context,
            evaluate=evaluate_now,
            on_evaluation=[*callbacks, *on_evaluation],
            checkpoints=self.checkpoints,
            log=None if folder is None else LogFile(folder / run_folder.LOG, LOG_COLUMNS),
            save_extra={**(save_extra or {}), "augmented": self.augmented, "best_after": -1},
            show_progress=verbose,
            counted=("train_acc",),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume the run of a checkpoint; raises UsageError as `TrainingLoop.restore` does."""
        log = self.loop.log
        if log is not None:
            # Before anything is changed; rows of later steps are still among them.
            log.numbers(*HISTORY)
        self.loop.restore(checkpoint)
        self._set_augmented(checkpoint.augmented)
        self.loop.save_extra["best_after"] = checkpoint.best_after
        if log is not None:
            self.history.restore(log)

    def forget_best(self) -> None:
        """Take the next evaluation for the best so far, whatever there was before; checkpoints say so."""
        self.loop.forget_best()
        self.loop.save_extra["best_after"] = max(self.history.steps, default=-1)

    def run(self) -> None:
        """Train to the last step, from wherever the loop stands."""
        if self.checkpoints is not None and self.loop.processes.is_main and self.data.get("tokenizer") is not None:
            place = self.checkpoints.folder / f"{self.checkpoints.best.stem}_tokenizer"
            save_with_retry(lambda: self.data["tokenizer"].save_pretrained(place), "the tokenizer")
        self.loop.run(self._loader_of_epoch)

    def _loader_of_epoch(self, epoch: int) -> Iterable[Batch]:
        loop = self.loop
        if not self.augmented and epoch > 0 and loop.rows_done == 0:
            # The means are still those of the epoch before, after a resume as well.
            loss = loop.means.figures(loop.processes)["train_loss"]
            self._set_augmented(loss < self.switch.below)
            if self.augmented and self.verbose and loop.processes.is_main:
                console.say(
                    f"training loss {loss:.4g} is below {self.switch.below:.4g}: augmented descriptions from here on"
                )
        return self.data["data_loader_train_attack" if self.augmented else "data_loader_train"]

    def _set_augmented(self, augmented: bool) -> None:
        self.augmented = self.loop.save_extra["augmented"] = augmented


def trainer_loop(
    model: nn.Module,
    epochs: int,
    model_name: str,
    data: Mapping[str, Any],
    loss_fn: nn.Module,
    reference_loss: float,
    optimizer: Optimizer,
    device: torch.device | str,
    scheduler: LRScheduler | None,
    verbose: bool = False,
    switch_attack: float = 0.75,
    attack_switch: bool = False,
    *,
    save_dir: str | Path | None = "Model",
    use_amp: bool = False,
    amp_dtype: str = "auto",
    log_interval: int = 100,
    save_interval: int | None = None,
    keep_checkpoints: int | None = 1,
    grad_accum_steps: int = 1,
    seed: int | None = None,
    save_extra: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, list[float]]]:
    """Train for `epochs` epochs, evaluating and saving after each; the run begins at step 0, whatever is in `save_dir`.

    Parameters
    ----------
    model, data, loss_fn, optimizer, scheduler, model_name, save_extra, verbose
        As in `FlatTraining`; `data` is what `histocc.dataloader.load_data` returns.
    epochs
        Passes over the training data.
    reference_loss, switch_attack, attack_switch
        When the augmented loader takes over: reference_loss, share and from_start of `AugmentationSwitch`.
    device
        Where batches are moved to.
    save_dir
        Folder for all files; None writes nothing.
    use_amp, amp_dtype
        Mixed precision, see `Precision`.
    log_interval, save_interval, keep_checkpoints, grad_accum_steps
        See `Plan`.
    seed
        Makes dropout a function of (seed, step), which a resumed run repeats.

    Returns
    -------
    tuple
        The model, and a list with a number per epoch under each of 'epoch', 'train_loss', 'train_acc', 'val_loss',
        'val_acc'.

    Raises
    ------
    UsageError
        `save_dir` cannot be made or written to; nothing is trained then.
    OSError
        The last state could not be written. The model is trained, and earlier files are untouched.
    """
    if save_dir is not None:
        make_folder(save_dir, "save_dir")
    total_steps = epochs * steps_per_epoch(len(data["data_loader_train"]), grad_accum_steps)
    training = FlatTraining(
        model,
        data,
        loss_fn,
        optimizer,
        scheduler,
        AugmentationSwitch(reference_loss, switch_attack, attack_switch),
        Plan(
            total_steps,
            log_interval,
            save_interval=save_interval,
            grad_accum_steps=grad_accum_steps,
            keep_checkpoints=keep_checkpoints,
        ),
        RunContext.on(device, save_dir, use_amp=use_amp, amp_dtype=amp_dtype, seed=seed),
        model_name,
        save_extra=save_extra,
        verbose=verbose,
    )
    training.run()
    training.loop.raise_if_unsaved()
    return model, training.history.figures
