"""The engine of the flat classifier: one epoch of training, one evaluation, and a whole run of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.files.atomic import save_with_retry
from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.training import plots
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.evaluation import add_up_batches
from histocc.training.loop import Batch, Intervals, TrainingLoop, multi_hot, unwrap
from histocc.training.precision import Precision
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
) -> tuple[float, float]:
    """Train on every batch of `data_loader` once: (accuracy, loss), means over the rows.

    A step: forward, loss, backward, clip the global gradient norm to 1.0, optimizer, scheduler, zero gradients. The
    accuracy is the share of rows whose classes were all right and no others, as the model stood at their step.
    """
    loop = TrainingLoop(
        model=model,
        compute_loss=lambda module, batch: flat_loss(module, batch, loss_fn),
        optimizer=optimizer,
        scheduler=scheduler,
        device=device,
        total_steps=len(data_loader),
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
    figures = evaluate_figures(model, data_loader, loss_fn, device)
    return figures["val_acc"], figures["val_loss"]


def evaluate_figures(
    model: nn.Module,
    data_loader: Iterable[Batch],
    loss_fn: nn.Module,
    device: torch.device,
    *,
    precision: Precision | None = None,
    processes: Processes | None = None,
    stop: StopSignals | None = None,
) -> dict[str, float] | None:
    """All figures of an evaluation by their names in ``logs.csv``, equal on all processes; see `add_up_batches`."""

    def sums_of_batch(batch: Batch) -> list[Tensor]:
        logits = _forward(model, batch)
        targets = _targets(batch, logits.shape[1])
        return [_loss(logits, targets, loss_fn) * len(targets), _exact_matches(logits, targets)]

    totals = add_up_batches(
        model,
        data_loader,
        device,
        ("loss", "correct"),
        sums_of_batch,
        precision=precision,
        processes=processes,
        stop=stop,
    )
    if totals is None:
        return None
    sums, rows, seconds = totals
    return {
        "val_loss": sums["loss"] / rows,
        "val_acc": sums["correct"] / rows,
        "rows": rows,
        "eval_seconds": round(seconds, 2),
    }


class FlatCheckpoints(CheckpointFolder):
    """The files of a run: ``last.bin`` with all that a resumed run needs, and weights alone under the model's name.

    ``Checkpoint<name>.bin`` holds the newest weights and ``<name>.bin`` those of the highest validation accuracy, both
    as bare state dicts. The step files of `CheckpointFolder` stay, a ``best.bin`` is not written.
    """

    def __init__(self, folder: Path, model_name: str, keep: int | None = 1) -> None:
        super().__init__(folder, keep)
        self.newest = self.folder / f"Checkpoint{model_name}.bin"
        self.best = self.folder / f"{model_name}.bin"
        self.figure = self.folder / f"{model_name}.png"

    def save(self, state: dict[str, Any], *, best: bool = False) -> Path:
        """Write the weights alone, then `state`; raises OSError as `CheckpointFolder.save` does."""
        self.save_weights(self.newest, state["model"])
        return super().save(state)

    def save_best(self, state: dict[str, Any]) -> None:
        """Nothing: the best weights are those of the highest accuracy, see `save_weights`."""

    def save_weights(self, path: Path, weights: Mapping[str, Tensor]) -> None:
        """Write a bare state dict."""
        self._write(path, dict(weights))


class FlatTraining:
    """A run of the flat classifier: the loop, which loader an epoch takes, and what it leaves on disk.

    Parameters
    ----------
    model
        The classifier, or one wrapped for several processes.
    data
        'data_loader_train', 'data_loader_train_attack', 'data_loader_val', and perhaps 'tokenizer', which is saved.
    reference_loss
        Once the training loss of an epoch is below `switch_attack` times this, the augmented loader takes over for
        good.
    attack_switch
        Begin with the augmented loader.
    model_name
        Names the files of weights.
    save_dir
        Folder for all files; it exists. None writes nothing.
    use_amp, amp_dtype
        Mixed precision, see `Precision`.
    save_interval
        Steps between checkpoints within an epoch; None saves at the ends of epochs only.
    keep_checkpoints
        How many ``<step>.bin`` to keep; they share their space with ``last.bin`` where it is the same state.
    seed
        Makes dropout a function of (seed, step, rank), which a resumed run repeats.
    save_extra
        Further entries of checkpoints.

    Attributes
    ----------
    history
        Lists with a number per epoch: 'epoch', 'train_loss', 'train_acc', 'val_loss', 'val_acc'; kept by the main
        process.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Any],
        loss_fn: nn.Module,
        reference_loss: float,
        optimizer: Optimizer,
        device: torch.device,
        scheduler: LRScheduler | None,
        total_steps: int,
        model_name: str,
        save_dir: Path | None,
        *,
        switch_attack: float = 0.75,
        attack_switch: bool = False,
        use_amp: bool = False,
        amp_dtype: str = "auto",
        log_interval: int = 100,
        save_interval: int | None = None,
        keep_checkpoints: int | None = 1,
        grad_accum_steps: int = 1,
        processes: Processes | None = None,
        seed: int | None = None,
        stop: StopSignals | None = None,
        save_extra: Mapping[str, Any] | None = None,
        verbose: bool = True,
    ) -> None:
        processes = processes or Processes(device=device)
        precision = Precision(device, use_amp, amp_dtype)
        stop = stop or StopSignals()
        self.data = data
        self.reference_loss = reference_loss
        self.switch_below = switch_attack * reference_loss
        self.augmented = attack_switch
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.checkpoints = None if save_dir is None else FlatCheckpoints(save_dir, model_name, keep_checkpoints)
        self.verbose = verbose
        self._plain_model = unwrap(model)
        self._told_how_to_draw = False

        def evaluate_now() -> dict[str, float] | None:
            figures = evaluate_figures(
                self._plain_model,
                data["data_loader_val"],
                loss_fn,
                device,
                precision=precision,
                processes=processes,
                stop=stop,
            )
            return None if figures is None else {**figures, "augmented": int(self.augmented)}

        self.loop = TrainingLoop(
            model=model,
            compute_loss=lambda module, batch: flat_loss(module, batch, loss_fn),
            optimizer=optimizer,
            scheduler=scheduler,
            device=device,
            total_steps=total_steps,
            evaluate=evaluate_now,
            intervals=Intervals(
                log_interval, save=save_interval, save_each_epoch=save_dir is not None, evaluate_each_epoch=True
            ),
            precision=precision,
            processes=processes,
            checkpoints=self.checkpoints,
            log=None if save_dir is None else LogFile(save_dir / "logs.csv", LOG_COLUMNS),
            track=self._record,
            grad_accum_steps=grad_accum_steps,
            seed=seed,
            save_extra={**(save_extra or {}), "augmented": self.augmented},
            stop=stop,
            show_progress=verbose,
            counted=("train_acc",),
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the run of a checkpoint; raises KeyError, ValueError or RuntimeError where something does not fit."""
        self.loop.restore(state)
        self._set_augmented(bool(state["augmented"]))
        if self.loop.log is not None:
            rows = self.loop.log.read()
            self.history = {name: [float(row[name]) for row in rows] for name in HISTORY}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, not even an evaluation."""
        log = self.loop.log
        return self.loop.finished and (log is None or log.has_step(self.loop.step))

    def run(self) -> None:
        """Train to the last step, from wherever the loop stands."""
        if self.checkpoints is not None and self.loop.processes.is_main and self.data.get("tokenizer") is not None:
            self.data["tokenizer"].save_pretrained(self.checkpoints.folder / f"{self.checkpoints.best.stem}_tokenizer")
        self.loop.run(self._loader_of_epoch)

    def _loader_of_epoch(self, epoch: int) -> Iterable[Batch]:
        loop = self.loop
        if not self.augmented and epoch > 0 and loop.rows_done == 0:
            # The means are still those of the epoch before, after a resume as well.
            loss = loop.means.figures(loop.processes)["train_loss"]
            self._set_augmented(loss < self.switch_below)
            if self.augmented and self.verbose and loop.processes.is_main:
                print(
                    f"training loss {loss:.4g} is below {self.switch_below:.4g}: augmented descriptions from here on",
                    flush=True,
                )
        return self.data["data_loader_train_attack" if self.augmented else "data_loader_train"]

    def _set_augmented(self, augmented: bool) -> None:
        self.augmented = self.loop.save_extra["augmented"] = augmented

    def _record(self, step: int, row: Mapping[str, Any]) -> None:
        """Note the figures of an epoch, save the weights if they are the best, redraw the figure."""
        is_best = row["val_acc"] > max(self.history["val_acc"], default=-1.0)
        for name in HISTORY:
            self.history[name].append(row[name])
        if self.checkpoints is None:
            return
        if is_best:
            weights = self._plain_model.state_dict()
            save_with_retry(
                lambda: self.checkpoints.save_weights(self.checkpoints.best, weights), f"the best model (step {step})"
            )
        if plots.can_draw():
            save_with_retry(
                lambda: plots.draw_history(self.checkpoints.figure, self.history, self.reference_loss), "the figure"
            )
        elif not self._told_how_to_draw:
            self._told_how_to_draw = True
            print(plots.HOW_TO_GET, flush=True)


def trainer_loop(
    model: nn.Module,
    epochs: int,
    model_name: str,
    data: Mapping[str, Any],
    loss_fn: nn.Module,
    reference_loss: float,
    optimizer: Optimizer,
    device: torch.device,
    scheduler: LRScheduler | None,
    verbose: bool = False,
    switch_attack: float = 0.75,
    attack_switch: bool = False,
    *,
    save_dir: str | Path | None = "Model",
    **options: Any,
) -> tuple[nn.Module, dict[str, list[float]]]:
    """Train for `epochs` epochs, evaluating and saving after each: (model, history).

    `data` is what `histocc.dataloader.load_data` returns; the other arguments and `options` are those of
    `FlatTraining`, which says what is saved. The run begins anew, whatever there is in `save_dir`.
    """
    if save_dir is not None:
        save_dir = Path(save_dir)
        save_dir.mkdir(parents=True, exist_ok=True)
    total_steps = epochs * steps_per_epoch(len(data["data_loader_train"]), options.get("grad_accum_steps", 1))
    training = FlatTraining(
        model,
        data,
        loss_fn,
        reference_loss,
        optimizer,
        device,
        scheduler,
        total_steps,
        model_name,
        save_dir,
        switch_attack=switch_attack,
        attack_switch=attack_switch,
        verbose=verbose,
        **options,
    )
    training.run()
    return model, training.history
