"""Command lines: the flags that scripts share, and how a script starts, fails and ends."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.ordinary import IS_FOLDER, IS_MISSING, fault_of_file
from histocc.processes.distributed import (
    LOST_PEER,
    START_SECONDS,
    Processes,
    environment_rank,
    finish_processes,
    is_connection_loss,
    start_processes,
)
from histocc.runs.options import LOG_INTERVAL, WARMUP_SHARE, MixerOptions, RunOptions
from histocc.runs.ranges import RANGES, check_numbers, real_number, whole_number
from histocc.training.non_finite import NonFiniteError
from histocc.training.precision import AMP_DTYPES, set_tf32
from histocc.training.tensorboard import check_tensorboard
from histocc.weights import PUBLISHED_MODELS

Options = TypeVar("Options", bound=RunOptions)

_OUT_OF_MEMORY = (
    "Out of memory. A smaller --batch-size with --grad-accum-steps, fewer --num-workers or fewer rows need less. All "
    "that was saved before is untouched"
)
LOG_INTERVAL_HELP = "steps between figures of training; at the default, at most a tenth of the run"


class _HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults and ranges; where there is no default, the help itself says what happens then."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help if action.default is None else super()._get_help_string(action)
        return f"{text} [{RANGES[action.dest]}]" if action.dest in RANGES else text


class ScriptParser(argparse.ArgumentParser):
    """Parser whose help shows defaults and which speaks once, however many processes parse the same line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_HelpWithDefaults, **kwargs)

    def error(self, message: str) -> Any:
        """Print usage and message on the main process; end with exit code 2 on all."""
        try:
            speaks = environment_rank()[0] == 0
        except UsageError:
            # Which process this is will be asked, and complained about, once the line can be parsed.
            speaks = True
        if speaks:
            super().error(message)
        sys.exit(2)


def add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    """Warm-up flags."""
    group = parser.add_argument_group("learning rate schedule")
    group.add_argument(
        "--warmup-pct",
        type=real_number,
        default=None,
        help=f"share of all steps over which the learning rate rises ({WARMUP_SHARE}); 0.0 is the original's schedule",
    )
    group.add_argument("--warmup-steps", type=whole_number, default=None, help="the same as a number of steps")


def check_schedule(options: RunOptions, problems: Problems) -> None:
    """Note what is wrong with the warm-up flags."""
    if options.warmup_pct is not None and options.warmup_steps is not None:
        problems.add("--warmup-pct and --warmup-steps both set the warm-up; give one of them")


def add_run_arguments(parser: argparse.ArgumentParser, script: str) -> None:
    """Flags that mean the same in every script."""
    run = parser.add_argument_group("run")
    run.add_argument(
        "--demo",
        action="store_true",
        help=f"a complete run on the sample data that ships with the package, in runs/demo-{script}; given flags win",
    )
    run.add_argument(
        "--seed", type=whole_number, default=42, help="seed of data order, augmentation, initialisation and dropout"
    )
    run.add_argument("--max-steps", type=whole_number, default=None, help="optimizer steps of the run (all epochs)")
    run.add_argument(
        "--grad-accum-steps", type=whole_number, default=1, help="batches per optimizer step, to save GPU memory"
    )
    run.add_argument(
        "--keep-checkpoints",
        type=whole_number,
        default=None,
        help="how many <step>.bin to keep (all); last.bin and best.bin always stay",
    )
    run.add_argument(
        "--max-val-samples", type=whole_number, default=None, help="rows of one evaluation, a fixed random subset (all)"
    )
    run.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the figures of evaluations for TensorBoard too (extra 'tensorboard')",
    )
    model = parser.add_argument_group("encoder and precision")
    model.add_argument(
        "--encoder", default="google/canine-s", help="hub name or local folder of the pretrained encoder"
    )
    model.add_argument("--use-amp", action="store_true", help="train and evaluate in mixed precision")
    model.add_argument(
        "--amp-dtype",
        choices=AMP_DTYPES,
        default="auto",
        help="type of mixed precision; auto is bfloat16 where the hardware has it, else float16 with loss scaling",
    )
    model.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="TensorFloat-32 products on Ampere and newer GPUs",
    )
    model.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    processes = parser.add_argument_group(
        "processes (torchrun's environment decides; these are accepted for old lines)"
    )
    processes.add_argument(
        "--start-timeout", type=whole_number, default=START_SECONDS, help="seconds to wait at the start for the others"
    )
    processes.add_argument("--distributed", action="store_true", help="has no effect")
    processes.add_argument("--local_rank", "--local-rank", type=whole_number, default=-1, help="has no effect")
    processes.add_argument("--world-size", type=whole_number, default=None, help="has no effect")


def add_mixer_arguments(
    parser: argparse.ArgumentParser, *, save_interval: int, num_epochs: int, batch_size: int, seq2seq_weight: float
) -> None:
    """Flags of a run of the mixer, with the defaults in which `train_mixer.py` and `finetune.py` differ."""
    start = parser.add_argument_group("initial weights")
    start.add_argument(
        "--initial-checkpoint", default=None, help="checkpoint to start from, or occ-canine-v1 (the published model)"
    )
    start.add_argument("--only-encoder", action="store_true", help="take only the encoder of --initial-checkpoint")
    run = parser.add_argument_group("training")
    run.add_argument("--num-epochs", type=whole_number, default=num_epochs, help="passes over the training data")
    run.add_argument("--batch-size", type=whole_number, default=batch_size, help="rows per process and batch")
    run.add_argument("--learning-rate", type=real_number, default=2e-5, help="highest learning rate")
    run.add_argument(
        "--seq2seq-weight",
        type=real_number,
        default=seq2seq_weight,
        help="weight of the decoder's loss; rest: flat head",
    )
    run.add_argument("--log-interval", type=whole_number, default=LOG_INTERVAL, help=LOG_INTERVAL_HELP)
    run.add_argument("--eval-interval", type=whole_number, default=1000, help="steps between evaluations")
    run.add_argument(
        "--eval-decode-samples",
        type=whole_number,
        default=2000,
        help="validation rows that an evaluation also decodes token by token, as predictions are made; a fixed random "
        "subset, 0 for none",
    )
    run.add_argument("--save-interval", type=whole_number, default=save_interval, help="steps between checkpoints")
    run.add_argument(
        "--trim-padding",
        action="store_true",
        help="train on batches of about equally long rows, padded no further than they need: faster, but not the "
        "original's numbers, since the decoder attends to padding (see docs/benchmarks.md)",
    )
    add_loading_arguments(parser)
    add_schedule_arguments(parser)
    add_tracking_arguments(parser)


def check_mixer_arguments(options: MixerOptions, problems: Problems) -> None:
    """Note what is wrong with the flags of a run of the mixer."""
    check_run_options(options, problems)
    check_weights("--initial-checkpoint", options.initial_checkpoint, problems)
    if options.only_encoder and options.initial_checkpoint is None:
        problems.add("--only-encoder says what to take of --initial-checkpoint, which is not given")


def check_weights(flag: str, given: str | None, problems: Problems) -> None:
    """Note where the weights that `flag` names are neither in a file or folder nor published."""
    if not given or given.lower() in PUBLISHED_MODELS:
        return
    fault, with_ending = fault_of_file(given), fault_of_file(f"{given}.bin")
    if fault in (None, IS_FOLDER) or with_ending is None:
        return
    if fault == IS_MISSING:
        names = ", ".join(PUBLISHED_MODELS)
        fault = f"does not exist, also not with .bin behind it (nor is it the name {names} of published weights)"
    problems.add(f"{flag} {given} {fault}")


def check_run_options(options: RunOptions, problems: Problems) -> None:
    """Note what is wrong with flags that all scripts have."""
    given = options.shown()
    check_numbers(given, problems)
    _check_texts(given, problems)
    check_schedule(options, problems)
    if options.tensorboard:
        problems.run(check_tensorboard)


def _check_texts(given: Mapping[str, Any], problems: Problems) -> None:
    """Note flags that are given without a value: an empty path is the current folder, an empty name any column."""
    for name, value in given.items():
        texts = value if isinstance(value, list) else [value]
        # A table may say of no row which language it is in.
        if "" in texts and name != "language":
            problems.add(f"--{name.replace('_', '-')} is given an empty text; give a value, or leave the flag out")


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of data loading."""
    group = parser.add_argument_group("data loading")
    group.add_argument(
        "--num-workers",
        type=whole_number,
        default=None,
        help="processes that prepare batches (on a GPU: a few, by the number of cores; on a CPU: 0)",
    )
    group.add_argument(
        "--prefetch-factor", type=whole_number, default=None, help="batches each worker prepares ahead (2)"
    )
    group.add_argument("--pin-memory", action="store_true", help="has no effect: on a GPU batches are always pinned")
    group.add_argument("--persistent-workers", action="store_true", help="has no effect: workers always persist")


def add_tracking_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of Weights & Biases."""
    group = parser.add_argument_group("tracking")
    group.add_argument("--log-wandb", action="store_true", help="track the run with Weights & Biases (extra 'wandb')")
    group.add_argument("--wandb-project-name", default="histco-v2-mixer", help="project to track the run in")


def parse_with_demo(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, demo: Callable[[], Mapping[str, Any]]
) -> argparse.Namespace:
    """Parse the command line; with ``--demo`` the demo's choices are the defaults, so that every given flag wins."""
    args = parser.parse_args(argv)
    if args.demo:
        parser.set_defaults(**demo())
        args = parser.parse_args(argv)
    return args


def run_script(
    script: Callable[[Options, Processes], int], options: Options, wait_seconds: float = START_SECONDS
) -> int:
    """Start the processes, run `script`, report a failure once, and end all processes.

    Parameters
    ----------
    script
        Called with the options and the processes; returns the exit code.
    options
        The flags.
    wait_seconds
        How long to wait for the other processes at the start.

    Returns
    -------
    int
        The exit code: the script's own, 2 for bad usage or input, 1 for a failure, 130 after Ctrl-C. One of several
        processes does not return but ends with it.
    """
    console.open_missing_descriptors()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    set_tf32(options.tf32)
    processes = Processes()
    try:
        processes = start_processes(wait_seconds)
        code = script(options, processes)
        finish_processes(processes)
        if processes.world_size > 1:
            _leave(code)
        return code
    except KeyboardInterrupt:
        return _fail(processes, "Interrupted.", 130)
    except UsageError as error:
        return _fail(processes, f"Error: {error}", 2)
    except NonFiniteError as error:
        return _fail(processes, f"Error: {error}", 1)
    except MemoryError:
        return _fail(processes, f"Error: {_OUT_OF_MEMORY}", 1)
    except torch.OutOfMemoryError as error:
        advice = "Out of GPU memory. A smaller --batch-size with --grad-accum-steps, or --use-amp, needs less."
        return _fail(processes, f"Error: {advice}\n({str(error).splitlines()[0]})", 1)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            # So torch says on a CPU.
            return _fail(processes, f"Error: {_OUT_OF_MEMORY}", 1)
        if processes.world_size > 1 and is_connection_loss(error):
            return _fail(processes, LOST_PEER, 1)
        return _fail(processes, traceback.format_exc(), 1)


def _leave(code: int) -> None:
    # DistributedDataParallel does not let go of its group, whose threads abort the process, or wait for ever, where
    # they want the GIL while the interpreter ends. So it is not ended; who waits for its end (wandb, workers) is told.
    atexit._run_exitfuncs()
    console.flush()
    os._exit(code)


def _fail(processes: Processes, message: str, code: int) -> int:
    if processes.claim_failure():
        prefix = f"[process {processes.rank} of {processes.world_size}] " if processes.world_size > 1 else ""
        console.complain(f"{prefix}{message.rstrip()}")
    console.flush()
    if processes.world_size > 1:
        # The others may never answer again: leaving in good order could wait for them for ever.
        os._exit(code)
    return code
