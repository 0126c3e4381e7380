"""What a run of any model needs around its loop: workers, optimizer, wrapping, callbacks, header and last words."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from histocc.dataloader import Workers
from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.dataloader.samplers import TrainBatchSampler
from histocc.dataloader.task import known_languages
from histocc.errors import UsageError
from histocc.files import console, run_folder
from histocc.files.atomic import save_with_retry, write_atomically
from histocc.files.key import write_key
from histocc.files.languages import LanguageNames
from histocc.files.lock import locked_folder
from histocc.formatter import CodingSystem
from histocc.metrics.one_answer import ONE_ANSWER, learnt_nothing
from histocc.model_assets import longest_input
from histocc.prediction.thresholds import THRESHOLD_LOOKUP
from histocc.processes.distributed import Processes, local_world_size
from histocc.processes.signals import StopSignals
from histocc.report.callback import ReportCallback
from histocc.report.facts import RunFacts, versions
from histocc.runs.options import LOG_INTERVAL, RunOptions
from histocc.runs.start import Start
from histocc.training.context import Plan, RunContext
from histocc.training.loop import OnEvaluation, TrainingLoop
from histocc.training.precision import Precision
from histocc.training.reporting import header, shown_facts
from histocc.training.resume import Position, steps_of_run
from histocc.training.schedule import steps_per_epoch, warmup_steps
from histocc.training.tensorboard import TensorBoardCallback
from histocc.weights import InitialWeights

if TYPE_CHECKING:
    from transformers import CanineModel

try:
    import resource
except ImportError:  # Windows
    resource = None

# Batches that torch has each worker prepare ahead where nobody says how many.
_PREFETCH = 2
# Open files of a run, of a worker (for training and for evaluation), and of a batch on its way; rounded up.
_OPEN_FILES, _OPEN_FILES_OF_WORKER, _OPEN_FILES_OF_BATCH = 100, 16, 8


def make_context(options: RunOptions, processes: Processes) -> RunContext:
    """The surroundings of a run as the options say; its stop signals are not yet listened to."""
    precision = Precision(processes.device, options.use_amp, options.amp_dtype)
    return RunContext(processes, precision, StopSignals(), options.folder, options.seed)


@contextlib.contextmanager
def own_folder(options: RunOptions, processes: Processes) -> Iterator[None]:
    """Hold the save folder, which is made if need be, so that no second run writes into it; on the main process.

    Nothing is held or made for ``--print-config``, which writes nothing there.

    Raises
    ------
    UsageError
        Another run is at work in it, or it cannot be made or written to.
    """
    holds = processes.is_main and not options.print_config
    with locked_folder(options.folder, "--save-dir") if holds else contextlib.nullcontext():
        yield


def check_length(options: RunOptions, name: str, encoder: CanineModel, trained: int | None = None) -> None:
    """Raise UsageError where texts may be longer than the encoder called `name` has positions.

    `trained` is the length that the encoder was trained with, where that is known.
    """
    positions = longest_input(encoder.config)
    if options.max_len > positions:
        before = "" if trained is None else f" (it was trained with --max-len {trained})"
        raise UsageError(
            f"--max-len is {options.max_len}, but the encoder {name} has {positions} positions: set --max-len "
            f"{positions if trained is None else trained} or less{before}"
        )


def workers(options: RunOptions, device: torch.device) -> Workers:
    """Who prepares batches: as many processes as the options say, or what suits the device.

    Raises UsageError where that takes more open files than the system allows.
    """
    number = _worker_count(options.num_workers, device)
    _allow_open_files(number, options.prefetch_factor or _PREFETCH)
    return Workers(number, pin_memory=device.type == "cuda", prefetch_factor=options.prefetch_factor)


def _allow_open_files(workers: int, prefetch_factor: int) -> None:
    """Have the system allow as many open files as workers need for themselves and the batches on their way."""
    if resource is None:
        return
    needed = _OPEN_FILES + workers * (_OPEN_FILES_OF_WORKER + _OPEN_FILES_OF_BATCH * prefetch_factor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and hard < needed and workers:
        raise UsageError(
            f"--num-workers {workers} with --prefetch-factor {prefetch_factor} may have {needed:,} files open at once, "
            f"and the system allows {hard:,} (ulimit -Hn): give fewer of either"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _worker_count(flag: int | None, device: torch.device) -> int:
    if flag is not None:
        return flag
    if device.type != "cuda":
        # On a CPU the workers would take the cores that compute; a GPU is kept fed by a few.
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, max(1, cores // local_world_size() - 1))


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW for the parameters that are trained; there is no state for the others."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate, fused=True)


class Steps(NamedTuple):
    """Optimizer steps of an epoch, of the whole run with those done before a resume, and of the warm-up."""

    an_epoch: int
    total: int
    warmup: int


def count_steps(options: RunOptions, sampler: TrainBatchSampler, position: Position | None) -> Steps:
    """The steps of a run over the batches of `sampler`, resumed at `position`."""
    accumulated = options.grad_accum_steps
    total = options.max_steps or steps_of_run(sampler, options.num_epochs, accumulated, position)
    warmup = options.warmup_steps
    if warmup is None:
        warmup = warmup_steps(total, options.warmup_share)
    return Steps(steps_per_epoch(len(sampler), accumulated), total, warmup)


def wrap(model: nn.Module, processes: Processes) -> nn.Module:
    """The model, wrapped where there are several processes; parameters that get no gradient are frozen before."""
    if processes.world_size == 1:
        return model
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    # Buffers are constants of the architecture. Newer versions of torch have another name for leaving them alone.
    names = inspect.signature(DistributedDataParallel).parameters
    leave_buffers = {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **leave_buffers)


def callbacks(options: RunOptions, step: int) -> list[OnEvaluation]:
    """What is told of evaluations besides the log, in a run of any model that goes on from `step`."""
    return [TensorBoardCallback(options.folder, step)] if options.tensorboard else []


def log_interval(options: RunOptions, steps: Steps) -> int:
    """Steps between figures: as the flag says; at its default a short run shows ten times how it goes."""
    if options.log_interval != LOG_INTERVAL:
        return options.log_interval
    return max(1, min(LOG_INTERVAL, steps.total // 10))


def _batch_size_fact(options: RunOptions, processes: Processes) -> str:
    """Rows of a step in the words of the header."""
    rows = options.batch_size * options.grad_accum_steps * processes.world_size
    factors = [f"{options.batch_size:,} rows"]
    if options.grad_accum_steps > 1:
        factors.append(f"{options.grad_accum_steps} accumulated")
    if processes.world_size > 1:
        factors.append(f"{processes.world_size} processes")
    return " x ".join(factors) + (f" = {rows:,} rows a step" if len(factors) > 1 else "")


def _device_fact(processes: Processes) -> str:
    """The device in the words of the header."""
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, process {processes.rank} of {processes.world_size}" if processes.world_size > 1 else name


def _notes(start: Start[RunOptions], processes: Processes) -> list[str]:
    """The notes gathered on the way to the header, and what the device makes of the flags."""
    if start.options.use_amp and processes.device.type == "cpu":
        slower = "--use-amp is meant for GPUs: on most CPUs mixed precision is slower than float32"
        return [*start.notes, slower]
    return start.notes


def note_new_languages(start: Start[RunOptions], weights: InitialWeights, languages: Sequence[str]) -> None:
    """Note languages of the training data that the weights it starts from have not learnt, where these are known."""
    known = THRESHOLD_LOOKUP if weights.is_published else weights.extras.get("languages")
    if not known or known_languages(languages) is None:
        return
    known = [str(language) for language in known]
    names = LanguageNames()
    new = []
    for language in languages:
        if language not in known and language != UNKNOWN_LANGUAGE:
            theirs = names.code(language)
            new.append(repr(language) + (f" (there: {theirs!r})" if theirs in known else ""))
    if new:
        start.notes.append(
            f"Warning: {weights.source} has not learnt these languages of the training data: "
            f"{', '.join(new)}. It knows {', '.join(known)}; write in its way those that are the same"
        )


def announce(
    data_facts: Mapping[str, Any],
    start: Start[RunOptions],
    loop: TrainingLoop,
    steps: Steps,
    *,
    key: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Print the header of a run, from the facts of its data on, and the notes gathered on the way to it.

    By now nothing stands against the run, so its first files are written: ``args.yaml``, and ``key.csv`` where there is
    a `key` and the folder has none. The header is returned, on the main process.

    Raises
    ------
    UsageError
        They cannot be written.
    """
    if not loop.processes.is_main:
        return {}
    options = start.options
    if key is not None and not (options.folder / run_folder.KEY).exists():
        _write(options.folder / run_folder.KEY, lambda path: write_key(key, path))
    write_arguments(options.folder / run_folder.ARGUMENTS, options.shown())
    parameters = [(p.numel(), p.requires_grad) for p in loop.model.parameters()]
    facts = {
        **data_facts,
        "steps": f"{steps.total:,} ({steps.an_epoch:,} an epoch), {steps.warmup:,} of them warm-up",
        "batch size": _batch_size_fact(options, loop.processes),
        "learning rate": options.learning_rate,
        "parameters": f"{sum(n for n, _ in parameters):,}, {sum(n for n, trained in parameters if trained):,} of them "
        "trained",
        "device": _device_fact(loop.processes),
        "precision": loop.precision.describe() + (", compiled" if options.compile else ""),
        "save folder": options.folder,
        "start": "step 0" if start.source is None else f"step {loop.step:,}, from {start.source}",
    }
    lines = [header(facts), *_notes(start, loop.processes)]
    if loop.finished:
        flag = "--num-epochs" if options.max_steps is None else "--max-steps"
        lines.append(f"The run is complete (step {loop.step:,} of {steps.total:,}). More {flag} would go on from here.")
    console.record_in(options.folder / run_folder.RUN_LOG)
    console.say("\n".join(lines))
    return shown_facts(facts)


def report(
    options: RunOptions,
    loop: TrainingLoop,
    system: CodingSystem,
    header: Mapping[str, str],
    rows: Mapping[str, int],
    languages: Mapping[str, int],
) -> ReportCallback:
    """What draws report and card of a run; what the run is, is noted beside them.

    Parameters
    ----------
    options, loop, system, header
        The run, and what it said at its start.
    rows, languages
        As in `RunFacts`.
    """
    facts = RunFacts(
        kind=options.kind,
        system=system.name,
        codes=system.num_classes,
        codes_a_row=system.formatter.max_num_codes,
        max_len=options.max_len,
        command=options.command,
        encoder=options.encoder,
        total_steps=loop.total_steps,
        tables=options.tables,
        rows=rows,
        languages=languages,
        header=header,
        changed=options.changed(),
        settings=options.shown(),
        versions=versions(),
    )
    save_with_retry(lambda: facts.write(options.folder), str(options.folder / run_folder.RUN_FACTS))
    return ReportCallback(facts, options.folder)


def languages_of(names: Sequence[str], index: np.ndarray) -> dict[str, int]:
    """Rows of each language, the most frequent first; empty where there are too many to be languages."""
    if known_languages(names) is None:
        return {}
    counts = np.bincount(index, minlength=len(names))
    return {names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable").tolist() if counts[i]}


def show_plan(
    data_facts: Mapping[str, Any],
    start: Start[RunOptions],
    processes: Processes,
    model: nn.Module,
    steps: Steps,
    plan: Plan,
    evaluated: str,
    *,
    weights_alone: int = 0,
) -> int:
    """Print what a run would do, for ``--print-config``; the exit code.

    The settings stand there as ``--config`` takes them, everything else in lines that begin with ``#``.

    Parameters
    ----------
    data_facts, start, steps, plan
        As the run has them.
    processes
        Of which one speaks.
    model
        The model as it would be trained.
    evaluated
        The rows of an evaluation, in words.
    weights_alone
        Files of weights, without the optimizer's state, that the run leaves besides its checkpoints.
    """
    if not processes.is_main:
        return 0
    options = start.options
    done = 0 if start.checkpoint is None else start.checkpoint.step
    weights, checkpoint = _bytes_of_files(model)
    evaluations = _times(done, steps, plan.eval_interval, plan.eval_each_epoch)
    saves = _times(done, steps, plan.save_interval, plan.save_each_epoch)
    kept = saves if plan.keep_checkpoints is None else min(saves, plan.keep_checkpoints)
    best = 0 if weights_alone else 1
    total = (kept + best) * checkpoint + weights_alone * weights
    facts = {
        "start": "step 0" if start.source is None else f"step {done:,}, from {start.source}",
        **data_facts,
        "evaluation": evaluated,
        "steps": f"{steps.total:,} ({steps.an_epoch:,} an epoch)",
        "batch size": _batch_size_fact(options, processes),
        "warm-up": f"{steps.warmup:,} steps, then the learning rate falls from {options.learning_rate} to 0",
        "evaluations": f"{evaluations:,}, {_when(plan.eval_interval, plan.eval_each_epoch)}",
        "checkpoints": f"{saves:,}, {_when(plan.save_interval, plan.save_each_epoch)}; {kept:,} kept",
        "size on disk": f"{_size(checkpoint)} a checkpoint; up to {_size(total)} in {options.folder}, the best weights "
        "among it",
    }
    settings = arguments_text(options.shown()).decode()
    lines = [header(facts), *_notes(start, processes), "nothing was written and nothing trained (--print-config)"]
    console.say(settings + "\n".join(f"# {line}" for line in "\n".join(lines).splitlines()))
    return 0


def _bytes_of_files(model: nn.Module) -> tuple[int, int]:
    """Bytes of a file of a model's weights, and of a checkpoint, with two moments of each trained parameter."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights, weights + 2 * trained


def _times(done: int, steps: Steps, interval: int | None, each_epoch: bool) -> int:
    """How often something happens from a step on: at multiples of an interval, at ends of epochs, and at the end."""
    multiples = [interval] if interval else []
    if each_epoch:
        multiples.append(steps.an_epoch)
    counted = sum(steps.total // each - done // each for each in multiples)
    if len(multiples) == 2:
        both = math.lcm(*multiples)
        counted -= steps.total // both - done // both
    at_end = any(steps.total % each == 0 for each in multiples)
    return counted + (0 if at_end or done >= steps.total else 1)


def _when(interval: int | None, each_epoch: bool) -> str:
    parts = ([f"every {interval:,} steps"] if interval else []) + (["after each epoch"] if each_epoch else [])
    return ", ".join(parts) + (" and " if parts else "") + "at the end"


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def write_arguments(path: Path, arguments: Mapping[str, Any]) -> None:
    """Write arguments as YAML, see `arguments_text`; raises UsageError where the file cannot be written."""
    _write(path, lambda path: write_atomically(path, lambda file: file.write(arguments_text(arguments))))


def arguments_text(arguments: Mapping[str, Any]) -> bytes:
    """Arguments as YAML, one ``name: value`` a line (JSON values are YAML); ``--config`` reads it."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in sorted(arguments.items())]
    # The name of a file may hold bytes that are no letters; JSON has a spelling for them.
    return "".join(lines).encode("utf-8", "backslashreplace")


def _write(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def end(loop: TrainingLoop, done: str, instead: str) -> int:
    """Say how the run ended and return the exit code.

    Parameters
    ----------
    loop
        The loop, at its end.
    done
        What to say where it reached its last step.
    instead
        What to use where the flat head has learnt nothing.
    """
    context = loop.context
    failed = sum(context.processes.gather(loop.save_failure is not None)) > 0
    if context.processes.is_main:
        if failed:
            where = f"the state at step {loop.step:,} could not be saved in {context.folder}"
            console.complain(f"Error: {where}: {loop.save_failure}")
        elif loop.stopped:
            by = context.stop.name or "a signal"
            console.say(f"Stopped by {by} at step {loop.step:,}, all saved; the same command resumes it.")
        else:
            console.say(f"Trained to step {loop.step:,}. {done}")
            if learnt_nothing(loop.last_figures):
                console.say(
                    f"Warning: the flat head gives one and the same answer to {loop.last_figures[ONE_ANSWER]:.0f} % of "
                    f"the validation rows: it has learnt next to nothing. {instead}"
                )
    if failed:
        return 1
    return context.stop.exit_code if loop.stopped else 0
