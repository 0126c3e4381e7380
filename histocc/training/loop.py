"""The training loop that every script runs: steps, intervals, evaluation, checkpoints, stop and resume.

The loop knows no coding system and no model: an engine hands it a function that computes the loss of a batch and one
that evaluates. Positions are counted in rows of the epoch over all processes, so that a run can be continued with
another number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.files import run_folder
from histocc.files.atomic import save_with_retry
from histocc.files.entries import Entries
from histocc.files.json_files import write_json
from histocc.metrics.details import DETAILS, Details
from histocc.processes.distributed import Processes, StopAgreement
from histocc.training.batches import Batch, CompiledShapes, rows_of, to_device
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.checkpoint_fit import fit
from histocc.training.checkpoint_schema import ADVICE, Checkpoint
from histocc.training.context import Plan, RunContext
from histocc.training.non_finite import FiniteChecks, one_if_finite
from histocc.training.reporting import LogFile, Progress, evaluation_line, set_aside
from histocc.training.schedule import set_rate

ComputeLoss = Callable[[nn.Module, Batch], Mapping[str, Tensor]]
Evaluate = Callable[[], "dict[str, Any] | None"]


class Evaluation(NamedTuple):
    """An evaluation, as its callbacks get it.

    Attributes
    ----------
    step
        Optimizer steps done.
    figures
        The row of ``logs.csv``, by column.
    model
        The model that was evaluated, without a wrapper.
    details
        What is known beyond the row.
    """

    step: int
    figures: Mapping[str, Any]
    model: nn.Module
    details: Details = Details()


OnEvaluation = Callable[[Evaluation], None]


@dataclass
class EpochMeans:
    """Means since the epoch began; the loss is summed on the device, so that no step waits for it."""

    loss_sum: Tensor | float = 0.0
    counts: dict[str, Tensor | int] = field(default_factory=dict)
    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    seconds_data: float = 0.0

    def figures(self, processes: Processes) -> dict[str, float]:
        """Means over the rows of all processes (loss, and counts as shares) and seconds per batch; a collective."""
        counts = {name: float(count) for name, count in self.counts.items()}
        total = processes.sum({"loss": float(self.loss_sum), "rows": self.rows, **counts})
        batches = max(1, self.batches)
        return {
            "batch_time": self.seconds / batches,
            "batch_time_data": self.seconds_data / batches,
            "train_loss": total["loss"] / max(1.0, total["rows"]),
            **{name: total[name] / max(1.0, total["rows"]) for name in counts},
        }


@dataclass
class TrainingLoop:
    """State of a training run and the loop that advances it.

    Parameters
    ----------
    model
        What is trained: a module, or one wrapped for several processes.
    compute_loss
        ``compute_loss(model, batch)`` gives 0-dim tensors by name; 'loss' is what is minimised.
    optimizer, scheduler
        One step of each per optimizer step; the scheduler may be None.
    plan
        Length of the run, and intervals.
    context
        Processes, precision, stop, folder and seed.
    evaluate
        Gives the figures of an evaluation, equal on all processes; 'val_loss' decides what is best. None if a stop was
        requested meanwhile.
    on_evaluation
        Called one after the other with each evaluation, on the main process.
    counted
        Names of `compute_loss` that are counts of rows; their shares of an epoch's rows are logged beside its loss.
    checkpoints, log
        Where to save; None saves nothing.
    save_extra
        Further entries of a checkpoint ('key', 'settings').
    max_grad_norm
        What the global norm of the gradients is clipped to.
    show_progress
        Show a bar, or lines where there is no terminal.
    """

    model: nn.Module
    compute_loss: ComputeLoss
    optimizer: Optimizer
    scheduler: LRScheduler | None
    plan: Plan
    context: RunContext
    evaluate: Evaluate | None = None
    on_evaluation: Sequence[OnEvaluation] = ()
    counted: tuple[str, ...] = ()
    checkpoints: CheckpointFolder | None = None
    log: LogFile | None = None
    save_extra: dict[str, Any] = field(default_factory=dict)
    max_grad_norm: float = 1.0
    show_progress: bool = True

    step: int = 0
    epoch: int = 0
    rows_done: int = 0
    best_val_loss: float = float("inf")

    def __post_init__(self) -> None:
        self.processes = self.context.processes
        self.precision = self.context.precision
        self.means = self._new_means()
        self.save_failure: OSError | None = None
        self.last_figures: Mapping[str, Any] = {}
        self._best_on_disk = self.best_val_loss
        self._agreement = StopAgreement(self.processes)
        self._checks = FiniteChecks(self.processes, self.context.folder or Path())
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._stopping = False
        self._saved_step = self._evaluated_step = -1
        self._shapes = CompiledShapes(())
        self._progress: Progress | None = None
        self._rows_here = 0
        self._seconds_here = 0.0
        self._steps_here = 0
        self._started = time.perf_counter()

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.plan.total_steps

    @property
    def finished(self) -> bool:
        """Whether the run has reached its last step or was asked to stop."""
        return self._stopping or self.step >= self.total_steps

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to stop before its end."""
        return self._stopping

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self, loader_of_epoch: Callable[[int], Iterable[Batch]]) -> None:
        """Train to `total_steps`, from wherever the loop stands; evaluate and save at the end."""
        if self.checkpoints is not None and self.processes.is_main:
            self.checkpoints.remove_leftovers()
        if self.step == 0 and self.processes.is_main:
            for log in self._logs():
                log.set_aside()
            if self.log is not None:
                set_aside(self._metrics_folder())
        with self._showing_progress():
            self._catch_up_evaluation()
            while not self.finished:
                self.run_epoch(loader_of_epoch(self.epoch))
            improved = False
            if not self._stopping and self.evaluate is not None and self._evaluated_step != self.step:
                improved = self._evaluate_and_log()
            if improved or self._saved_step != self.step:
                self.save(best=improved)

    @contextlib.contextmanager
    def _showing_progress(self) -> Iterator[None]:
        """Show progress meanwhile: of a run with all its epochs, or of an epoch by itself."""
        if self._progress is not None:
            yield
            return
        self._progress = Progress(self.total_steps, self.step, enabled=self.show_progress and self.processes.is_main)
        try:
            yield
        finally:
            self._progress.close()
            self._progress = None

    def run_epoch(self, loader: Iterable[Batch]) -> None:
        """Train on what is left of the current epoch, up to `total_steps` or a stop.

        Raises ValueError if there is nothing to train on.
        """
        with self._showing_progress():
            self._run_epoch(loader)

    def _run_epoch(self, loader: Iterable[Batch]) -> None:
        sampler = getattr(loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)
        start = self.rows_done
        if start:
            sampler.set_position(start)
        else:
            self.means = self._new_means()
        self._shapes = CompiledShapes(loader)
        self.model.train()
        batches = 0
        iterator = iter(loader)
        clock = time.perf_counter()
        group = list(islice(iterator, self.plan.grad_accum_steps))
        if not group and not self.finished:
            raise ValueError(f"there is nothing to train on: the data loader gave no batches in epoch {self.epoch}")
        seconds_data = time.perf_counter() - clock
        while group and not self.finished:
            self._train_step(group)
            # The next batches are prepared while the device is still at work on this step.
            fetching = time.perf_counter()
            upcoming = list(islice(iterator, self.plan.grad_accum_steps))
            now = time.perf_counter()
            batches += len(group)
            if not upcoming:
                self.epoch, self.rows_done = self.epoch + 1, 0
            elif hasattr(sampler, "rows_done"):
                self.rows_done = sampler.rows_done(batches, start)
            self._count(group, now - clock, seconds_data)
            seconds_data = now - fetching
            self._after_step(epoch_ended=not upcoming)
            clock = time.perf_counter()
            group = upcoming
        # Whoever trains a single epoch gets no weights that are not finite without a word.
        self._checks.settle()

    def _new_means(self) -> EpochMeans:
        return EpochMeans(counts=dict.fromkeys(self.counted, 0))

    def _train_step(self, group: list[Batch]) -> None:
        if self.context.seed is not None:
            torch.manual_seed(derived_seed(self.context.seed, self.step, self.processes.rank))
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[dict[str, Tensor]] = []
        for i, batch in enumerate(group):
            moved = to_device(batch, self.context.device)
            with self._without_sync(i + 1 < len(group)), self._shapes.guard(moved):
                with self.precision.autocast():
                    parts = dict(self.compute_loss(self.model, moved))
                counts = {name: parts.pop(name) for name in self.counted}
                losses.append({name: part.detach() for name, part in parts.items()})
                loss = parts["loss"] * one_if_finite(parts["loss"])
                if batch.get("filler", False):
                    # These rows stand in where this process has none left; they must not count.
                    loss = loss * 0.0
                self.precision.backward(loss / len(group) if len(group) > 1 else loss)
            if not batch.get("filler", False):
                self.means.loss_sum = self.means.loss_sum + losses[-1]["loss"] * rows_of(batch)
                for name, count in counts.items():
                    self.means.counts[name] = self.means.counts[name] + count
        norm = self.precision.clip(self.optimizer, self._parameters, self.max_grad_norm)
        if self.precision.scaler is None:
            self._checks.submit(self.step + 1, norm, losses, group)
            stepped = self.precision.step(self.optimizer)
        else:
            stepped = self.precision.step(self.optimizer)
            self._checks.count_overflow(stepped, self.step + 1, norm, losses, group)
        if stepped and self.scheduler is not None:
            self.scheduler.step()
        self.step += 1

    def _without_sync(self, more_to_come: bool) -> contextlib.AbstractContextManager[None]:
        if more_to_come and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _count(self, group: list[Batch], seconds: float, seconds_data: float) -> None:
        rows = sum(rows_of(batch) for batch in group if not batch.get("filler", False))
        self.means.rows += rows
        self.means.batches += len(group)
        self.means.seconds += seconds
        self.means.seconds_data += seconds_data
        self._rows_here += rows
        self._seconds_here += seconds
        self._steps_here += 1

    def _after_step(self, epoch_ended: bool) -> None:
        self._progress.advance()
        if self._agreement.exchange(self.context.stop.requested):
            self._stopping = True
        due = self.plan
        at_end = self.step >= self.total_steps
        if due.log_interval and (self.step % due.log_interval == 0 or at_end):
            self._show()
        if self._stopping:
            return
        evaluate = _every(due.eval_interval, self.step) or (due.eval_each_epoch and epoch_ended)
        improved = evaluate and self.evaluate is not None and self._evaluate_and_log()
        if _every(due.save_interval, self.step) or (due.save_each_epoch and epoch_ended):
            self.save(best=improved)
        elif improved:
            self._save_best()

    # -- figures ---------------------------------------------------------------------------------------------------

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def rows_per_second(self) -> float:
        """Rows of all processes trained per second in this session, evaluation and saving left out."""
        return self._rows_here * self.processes.world_size / max(self._seconds_here, 1e-9)

    def _show(self) -> None:
        self._checks.settle()
        figures = self.means.figures(self.processes)
        if not self.processes.is_main:
            return
        waiting = self.means.seconds_data / max(self.means.seconds, 1e-9)
        shown = {
            "epoch's mean loss": figures["train_loss"],
            "lr": self.learning_rate(),
            "rows/s": self.rows_per_second(),
            "epoch's data wait %": 100 * waiting,
        }
        if self.precision.skipped_steps:
            shown["overflows"] = self.precision.skipped_steps
        elapsed = time.perf_counter() - self._started
        self._progress.figures(self.step, shown, (self.total_steps - self.step) * elapsed / max(1, self._steps_here))

    def _evaluate_and_log(self) -> bool:
        """Evaluate and put the figures on file; whether this is the lowest 'val_loss' so far."""
        self._checks.settle()
        figures = self.evaluate()
        self.model.train()
        if figures is None:
            # A stop was requested on some process, and all know it; the evaluation is still owed when the run goes on.
            self._stopping = True
            return False
        self._evaluated_step = self.step
        self.last_figures = figures
        details = figures.pop(DETAILS, Details())
        row = {
            "step": self.step,
            **self.means.figures(self.processes),
            **figures,
            "lr": self.learning_rate(),
            "epoch": self.epoch,
            "rows_per_second": round(self.rows_per_second(), 1),
            "overflows": self.precision.skipped_steps,
        }
        row = {c: row.pop(c) for c in self.log.columns if c in row} | row if self.log is not None else row
        if self.processes.is_main:
            if self.log is not None:
                # The log last of the two: what has a step there has been evaluated to the end.
                self._write_metrics(row, details)
                save_with_retry(lambda: self.log.append(row), f"the figures of step {self.step}")
                self._log_groups(details)
            for tell in self.on_evaluation:
                tell(Evaluation(self.step, row, unwrap(self.model), details))
            self._progress.line(evaluation_line(self.step, figures, details))
        improved = figures.get("val_loss", float("inf")) < self.best_val_loss
        if improved:
            self._best_on_disk, self.best_val_loss = self.best_val_loss, figures["val_loss"]
        return improved

    def _logs(self) -> list[LogFile]:
        """The figures, and those by group; none where nothing is written."""
        return [] if self.log is None else [self.log, LogFile(self.log.path.with_name(run_folder.GROUP_LOG))]

    def _log_groups(self, details: Details) -> None:
        groups = [{"step": self.step, **figures} for figures in details.rows()]
        if groups:
            log = self._logs()[1]
            save_with_retry(lambda: log.append(*groups), f"the figures by group of step {self.step}")

    def _write_metrics(self, row: Mapping[str, Any], details: Details) -> None:
        if not details.heads:
            return
        folder = self._metrics_folder()
        content = {**row, "heads": details.heads, "mistakes": details.mistakes}

        def write() -> None:
            folder.mkdir(exist_ok=True)
            write_json(folder / run_folder.metrics_file(self.step), content)

        save_with_retry(write, f"all figures of step {self.step}")

    def _metrics_folder(self) -> Path:
        return self.log.path.with_name(run_folder.METRICS)

    def _catch_up_evaluation(self) -> None:
        # A run was killed between a step and its evaluation: the figures of that step are still owed.
        if self.evaluate is None or self.log is None or self.step == 0:
            return
        # One process looks, for all to do the same: on a network file system others may see an older file.
        on_file = self.processes.gather(self.processes.is_main and self.log.has_step(self.step))[0]
        at_epoch_end = self.plan.eval_each_epoch and self.rows_done == 0
        if on_file:
            self._evaluated_step = self.step
        elif (_every(self.plan.eval_interval, self.step) or at_epoch_end) and self._evaluate_and_log():
            self._save_best()

    # -- saving ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs: plain tensors and builtins, parameter names unwrapped; a collective."""
        counts = {name: float(count) for name, count in self.means.counts.items()}
        sums = self.processes.sum({"loss_sum": float(self.means.loss_sum), "rows": self.means.rows, **counts})
        return {
            "model": unwrap(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "step": self.step,
            "key": None,
            **self.save_extra,
            "precision": self.precision.state_dict(),
            "best_val_loss": self.best_val_loss,
            "position": {
                "epoch": self.epoch,
                "rows_done": self.rows_done,
                "seed": self.context.seed,
                "world_size": self.processes.world_size,
                "loss_sum": sums["loss_sum"],
                "rows": sums["rows"],
                "counts": {name: sums[name] for name in counts},
                "batches": self.means.batches,
                "seconds": self.means.seconds,
                "seconds_data": self.means.seconds_data,
            },
        }

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this step, the best so far where `best`; called on every process, written by one."""
        if self.checkpoints is None:
            return
        self._checks.settle()
        state = self.state()
        self._saved_step = self.step
        if self.processes.is_main:
            failure = save_with_retry(lambda: self.checkpoints.save(state, best=best), f"step {self.step}")
            self.save_failure = failure
        if best:
            self._note_best(self.save_failure)

    def raise_if_unsaved(self) -> None:
        """Raise OSError on the main process if the newest state could not be written, for callers who wait for it."""
        if self.save_failure is not None:
            where = f"the state at step {self.step:,} could not be saved in {self.context.folder}"
            raise OSError(f"{where}: {self.save_failure}") from self.save_failure

    def _save_best(self) -> None:
        if self.checkpoints is None:
            return
        state = self.state()
        failure = None
        if self.processes.is_main:
            failure = save_with_retry(lambda: self.checkpoints.save_best(state), f"the best state (step {self.step})")
        self._note_best(failure)

    def _note_best(self, failure: OSError | None) -> None:
        # What could not be written must not keep a later state, better than the one on disk, from being written.
        if self.processes.gather(failure is not None)[0]:
            self.best_val_loss = self._best_on_disk

    def forget_best(self) -> None:
        """Take the next evaluation for the best so far, whatever there was before."""
        self.best_val_loss = self._best_on_disk = float("inf")

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume the run of a checkpoint; model, optimizer and scheduler included.

        Raises
        ------
        UsageError
            The checkpoint does not fit, or the logs are no tables of figures; nothing is changed then. Or the figures
            of later steps cannot be taken out of a log, which is then as it was.
        """
        state = fit(checkpoint, unwrap(self.model), self.optimizer, self.scheduler)
        counts = None if checkpoint.position is None else checkpoint.position.counts
        if counts is not None and not counts.keys() >= set(self.counted):
            found = Entries(checkpoint.source, ADVICE)
            found.refuse("position.counts", counts, f"a count of each of {', '.join(self.counted)}")
            found.raise_if_any()
        logs = self._logs() if self.processes.is_main else []
        for log in logs:
            log.check()
        for log in logs:
            log.drop_after(checkpoint.step)
        state.load(unwrap(self.model), self.optimizer, self.scheduler)
        if self.scheduler is not None:
            set_rate(self.scheduler)
        self._restore_position(checkpoint)

    def _restore_position(self, checkpoint: Checkpoint) -> None:
        """Step count, position, precision and best value; a file of the original has the step alone."""
        self.step = checkpoint.step
        position = checkpoint.position
        if position is None:
            return
        self.epoch = position.epoch
        self.rows_done = position.rows_done
        self.best_val_loss = checkpoint.best_val_loss
        self.precision.load_state_dict(vars(checkpoint.precision))
        self._saved_step = self.step
        main = self.processes.is_main
        self.means = EpochMeans(
            loss_sum=position.loss_sum if main else 0.0,
            counts={name: position.counts[name] if main else 0 for name in self.counted},
            rows=position.rows if main else 0,
            batches=position.batches,
            seconds=position.seconds,
            seconds_data=position.seconds_data,
        )


def _every(interval: int | None, step: int) -> bool:
    return bool(interval) and step % interval == 0


def derived_seed(*parts: int) -> int:
    """A seed that is a function of `parts` and differs wherever one of them does; a 63-bit integer."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without the wrapper for several processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model
