"""Command lines: the flags that scripts share, and how a script starts, fails and ends."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.ordinary import IS_MISSING, fault_of_file
from histocc.files.torch_files import first_line
from histocc.processes.distributed import (
    LOST_PEER,
    START_SECONDS,
    Processes,
    finish_processes,
    is_connection_loss,
    start_processes,
)
from histocc.runs.config_file import read_config, without_alternatives
from histocc.runs.options import DEFAULT_ENCODER, LOG_INTERVAL, WARMUP_SHARE, MixerOptions, RunOptions
from histocc.runs.parser import OTHER, ScriptParser
from histocc.runs.ranges import check_numbers, real_number, whole_number
from histocc.training.non_finite import NonFiniteError
from histocc.training.precision import AMP_DTYPES, set_tf32
from histocc.training.tensorboard import check_tensorboard
from histocc.weights import PUBLISHED_MODELS, file_of_weights

Options = TypeVar("Options", bound=RunOptions)

_OUT_OF_MEMORY = (
    "Out of memory. A smaller --batch-size with --grad-accum-steps, fewer --num-workers or fewer rows need less. All "
    "that was saved before is untouched"
)


# Groups of flags in the order of the help; each script has some of them.
DATA, CODES, PREPARATION = "data", "codes", "preparation"
DESCRIPTIONS, AUGMENTATION = "official descriptions of codes", "augmentation of descriptions in training"
MODEL, TRAINING, EVALUATION, SAVING = "model", "training", "evaluation", "saving"
HARDWARE, TRACKING = "hardware and processes", "tracking"
GROUPS = (
    *(DATA, CODES, PREPARATION, DESCRIPTIONS, AUGMENTATION),
    *(MODEL, TRAINING, EVALUATION, SAVING, HARDWARE, TRACKING),
)
# Flags that came after those of the original and of OCCPAST, for which abbreviations were in use.
_LATER = ("--config", "--print-config")


def script_parser(script: str, *, description: str, needs: str, examples: str, later: Sequence[str]) -> ScriptParser:
    """The parser of a script that trains; `later` are names that this script has as other spellings."""
    return ScriptParser(
        f"{script}.py",
        description=description,
        needs=needs,
        groups=GROUPS,
        examples=examples,
        later=(*_LATER, *later),
    )


def add_save_folder(parser: ScriptParser, default: str | None) -> None:
    """The flag of the save folder."""
    parser.flag(
        SAVING,
        "--save-dir",
        aliases=["--save-path"],
        default=default,
        metavar="FOLDER",
        help="folder for checkpoints, logs and the run's data; a run in it is continued",
    )


def add_length(parser: ScriptParser) -> None:
    """The flag of the length of texts."""
    parser.flag(
        DATA,
        "--max-len",
        type=whole_number,
        default=128,
        metavar="CHARACTERS",
        help="characters of language and description, at most",
    )


def add_augmentation(parser: ScriptParser, share: float) -> None:
    """The flag of how many descriptions are augmented."""
    parser.flag(
        AUGMENTATION,
        "--augmentation-prob",
        aliases=["--alt-prob"],
        type=real_number,
        default=share,
        metavar="SHARE",
        help="share of the descriptions that get noise, drawn again in each epoch (train_mixer.py 0.3, train.py 0.1, "
        "each as in the original)",
    )


def add_schedule_arguments(parser: ScriptParser) -> None:
    """Warm-up flags."""
    parser.flag(
        TRAINING,
        "--warmup-pct",
        type=real_number,
        default=None,
        metavar="SHARE",
        help=f"share of all steps over which the learning rate rises, not a percentage: 0.05 is 5 %% ({WARMUP_SHARE}); "
        "0.0 is the original's schedule",
    )
    parser.flag(
        TRAINING,
        "--warmup-steps",
        type=whole_number,
        default=None,
        metavar="STEPS",
        help="the same as a number of steps, in place of --warmup-pct",
    )


def check_schedule(options: RunOptions, problems: Problems) -> None:
    """Note what is wrong with the warm-up flags."""
    if options.warmup_pct is not None and options.warmup_steps is not None:
        problems.add("--warmup-pct and --warmup-steps both set the warm-up; give one of them")


def add_training_arguments(
    parser: ScriptParser,
    script: str,
    *,
    num_epochs: int,
    batch_size: int,
    save_interval: int,
    keep_checkpoints: int | None,
) -> None:
    """Flags that mean the same in every script, with the defaults in which scripts differ."""
    parser.flag(
        MODEL,
        "--encoder",
        default=DEFAULT_ENCODER,
        metavar="NAME|FOLDER|demo",
        help="hub name or local folder of the pretrained encoder; demo: a small one, to try commands",
    )
    parser.flag(
        MODEL,
        "--initial-checkpoint",
        aliases=["--checkpoint-path"],
        default=None,
        metavar="FILE|FOLDER|NAME",
        help="weights to start from: a checkpoint, with or without .bin, the folder of a run, or "
        "occ-canine-v1 (the published model)",
    )
    parser.flag(
        TRAINING,
        "--num-epochs",
        aliases=["--epochs"],
        type=whole_number,
        default=num_epochs,
        metavar="EPOCHS",
        help="passes over the training data",
    )
    parser.flag(
        TRAINING,
        "--max-steps",
        type=whole_number,
        default=None,
        metavar="STEPS",
        help="optimizer steps of the run, in place of --num-epochs",
    )
    parser.flag(
        TRAINING,
        "--batch-size",
        type=whole_number,
        default=batch_size,
        metavar="ROWS",
        help="rows of a batch on each process (train_mixer.py 512, train.py 256, finetune.py 128, each as in the "
        "original)",
    )
    parser.flag(
        TRAINING,
        "--grad-accum-steps",
        type=whole_number,
        default=1,
        metavar="BATCHES",
        help="batches of an optimizer step, to save GPU memory",
    )
    parser.flag(
        TRAINING,
        "--learning-rate",
        type=real_number,
        default=2e-5,
        metavar="RATE",
        help="highest learning rate, at the end of the warm-up",
    )
    add_schedule_arguments(parser)
    parser.flag(
        TRAINING,
        "--seed",
        type=whole_number,
        default=42,
        metavar="NUMBER",
        help="seed of data order, augmentation, initialisation and dropout",
    )
    parser.flag(
        EVALUATION,
        "--max-val-samples",
        type=whole_number,
        default=None,
        metavar="ROWS",
        help="rows of one evaluation, a fixed random subset (all)",
    )
    add_save_folder(parser, {"train": "Model", "finetune": "./Finetuned/"}.get(script))
    parser.flag(
        SAVING,
        "--save-interval",
        type=whole_number,
        default=save_interval,
        metavar="STEPS",
        help="steps between checkpoints" + (" within an epoch" if script == "train" else ""),
    )
    parser.flag(
        SAVING,
        "--keep-checkpoints",
        type=whole_number,
        default=keep_checkpoints,
        metavar="FILES",
        help="how many <step>.bin to keep" + (" (all)" if keep_checkpoints is None else "") + "; last.bin and the "
        "best weights always stay",
    )
    parser.flag(
        TRACKING,
        "--log-interval",
        type=whole_number,
        default=LOG_INTERVAL,
        metavar="STEPS",
        help="steps between figures of training; at the default, at most a tenth of the run",
    )
    parser.flag(
        TRACKING,
        "--tensorboard",
        action="store_true",
        help="write the figures of evaluations for TensorBoard too (extra 'tensorboard')",
    )
    add_hardware_arguments(parser)
    parser.flag(
        OTHER,
        "--config",
        default=None,
        metavar="FILE",
        help="settings of a run, as its args.yaml has them; given flags win",
    )
    parser.flag(
        OTHER,
        "--print-config",
        action="store_true",
        help="show settings and schedule (rows, steps, warm-up, evaluations, checkpoints and their size) and exit; "
        "nothing is written into the save folder",
    )
    parser.flag(
        OTHER,
        "--demo",
        action="store_true",
        help=f"a complete run on the sample data that ships with the package, in runs/demo-{script}; given flags win",
    )


def add_precision_arguments(parser: ScriptParser, what: str) -> None:
    """Flags of number formats; `what` is done in them."""
    parser.flag(HARDWARE, "--use-amp", action="store_true", help=f"{what} in mixed precision (GPU)")
    parser.flag(
        HARDWARE,
        "--amp-dtype",
        choices=AMP_DTYPES,
        default="auto",
        help="type of mixed precision; auto is bfloat16 where the hardware has it, else float16",
    )
    parser.flag(
        HARDWARE,
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="TensorFloat-32 products on Ampere and newer GPUs",
    )


def add_hardware_arguments(parser: ScriptParser) -> None:
    """Flags of number formats, workers and processes."""
    add_precision_arguments(parser, "train and evaluate")
    parser.flag(HARDWARE, "--compile", action="store_true", help="compile the model with torch.compile")
    parser.flag(
        HARDWARE,
        "--num-workers",
        type=whole_number,
        default=None,
        metavar="PROCESSES",
        help="processes that prepare batches (on a GPU: a few, by the number of cores; on a CPU: 0)",
    )
    parser.flag(
        HARDWARE,
        "--prefetch-factor",
        type=whole_number,
        default=None,
        metavar="BATCHES",
        help="batches that each worker prepares ahead (2)",
    )
    parser.flag(
        HARDWARE,
        "--start-timeout",
        type=whole_number,
        default=START_SECONDS,
        metavar="SECONDS",
        help="seconds to wait at the start for the other processes; how many there are is torchrun's matter",
    )
    for name in ("--pin-memory", "--persistent-workers", "--distributed"):
        parser.flag(HARDWARE, name, action="store_true", help="has no effect; for command lines of old")
    for names in (("--local_rank", "--local-rank"), ("--world-size",)):
        parser.flag(
            HARDWARE,
            *names,
            type=whole_number,
            default=-1 if len(names) > 1 else None,
            metavar="N",
            help="has no effect; for command lines of old",
        )


def add_mixer_arguments(
    parser: ScriptParser, script: str, *, num_epochs: int, batch_size: int, save_interval: int, seq2seq_weight: float
) -> None:
    """Flags of a run of the mixer, with the defaults in which `train_mixer.py` and `finetune.py` differ."""
    add_training_arguments(
        parser,
        script,
        num_epochs=num_epochs,
        batch_size=batch_size,
        save_interval=save_interval,
        keep_checkpoints=None,
    )
    parser.flag(MODEL, "--only-encoder", action="store_true", help="take only the encoder of --initial-checkpoint")
    parser.flag(
        TRAINING,
        "--seq2seq-weight",
        type=real_number,
        default=seq2seq_weight,
        metavar="SHARE",
        help="weight of the decoder's loss, the rest is the flat head's (train_mixer.py 0.5, finetune.py 0.1, each as "
        "in the original)",
    )
    parser.flag(
        TRAINING,
        "--trim-padding",
        action="store_true",
        help="train on batches of about equally long rows, padded no further than they need: faster, but not the "
        "original's numbers, since the decoder attends to padding (see docs/benchmarks.md)",
    )
    parser.flag(
        EVALUATION,
        "--eval-interval",
        type=whole_number,
        default=1000,
        metavar="STEPS",
        help="steps between evaluations; there is one more at the end",
    )
    parser.flag(
        EVALUATION,
        "--eval-decode-samples",
        type=whole_number,
        default=2000,
        metavar="ROWS",
        help="validation rows that an evaluation also decodes token by token, as predictions are made; a fixed random "
        "subset, 0 for none",
    )
    parser.flag(
        TRACKING, "--log-wandb", action="store_true", help="track the run with Weights & Biases (extra 'wandb')"
    )
    parser.flag(
        TRACKING,
        "--wandb-project-name",
        default="histco-v2-mixer",
        metavar="NAME",
        help="project to track the run in",
    )


def check_mixer_arguments(options: MixerOptions, problems: Problems) -> None:
    """Note what is wrong with the flags of a run of the mixer."""
    check_run_options(options, problems)
    if options.only_encoder and options.initial_checkpoint is None:
        problems.add("--only-encoder says what to take of --initial-checkpoint, which is not given")


def check_weights(flag: str, given: str | None, problems: Problems) -> None:
    """Note where the weights that `flag` names are neither in a file or folder nor published."""
    if not given or given.lower() in PUBLISHED_MODELS:
        return
    if os.path.isdir(given) and fault_of_file(f"{given}.bin") is not None:
        problems.run(file_of_weights, given)
        return
    fault, with_ending = fault_of_file(given), fault_of_file(f"{given}.bin")
    if fault is None or with_ending is None:
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
    check_weights("--initial-checkpoint", options.initial_checkpoint, problems)
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


def read_command_line(
    parser: ScriptParser, argv: Sequence[str] | None, demo: Callable[[argparse.Namespace], Mapping[str, Any]]
) -> argparse.Namespace:
    """Parse the command line of a script that trains.

    A flag that is given wins over the file of ``--config``, that over the choices of ``--demo``, and these over
    defaults. So that this holds for a switch too, each has an opposite.

    Parameters
    ----------
    parser
        The parser.
    argv
        The arguments; those of the process by default.
    demo
        Gives the demo's choices beside what else is asked for.
    """
    parser.add_opposites()
    args = parser.parse_args(argv)
    settings: dict[str, Any] = {}
    if args.config is not None:
        try:
            settings = read_config(args.config, parser)
        except UsageError as error:
            parser.error(str(error))
        settings = without_alternatives(settings, parser.given(argv))
        parser.set_defaults(**settings)
        args = parser.parse_args(argv)
    if args.demo:
        parser.set_defaults(**{**demo(args), **settings})
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
        if processes.is_main:
            console.begin_record()
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
            # NCCL fails for reasons of its own too, such as two processes on one GPU.
            reason = f", or NCCL failed here: {first_line(error)}" if "nccl" in str(error).lower() else ""
            return _fail(processes, LOST_PEER + reason, 1)
        return _fail(processes, traceback.format_exc(), 1)
    finally:
        console.end_record()


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
        processes.leave_failed()
        # The others may never answer again: leaving in good order could wait for them for ever.
        os._exit(code)
    return code
