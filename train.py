"""Train the flat HISCO classifier (one linear layer on CANINE) from a folder of CSV files.

python train.py --train-data ../Data/Training_data --save-dir Model
torchrun --nproc_per_node=4 train.py --train-data ../Data/Training_data --save-dir Model
python train.py --demo
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the script without a traceback while the libraries are read; `run_script` has an answer of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from histocc.errors import Problems
from histocc.files import console
from histocc.files.folders import check_folder
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.runs.options import LOG_INTERVAL, FlatOptions
from histocc.runs.ranges import real_number, whole_number

_RESERVED_NAMES = ("last", "best", "..")
# File systems take 255 bytes; what stands before and behind it in the names of files needs some.
_LONGEST_NAME = 200


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.ScriptParser(prog="train.py", description=__doc__.splitlines()[0])
    data = parser.add_argument_group("data")
    data.add_argument("--save-dir", default="Model", help="folder for weights and logs; a run in it is continued")
    data.add_argument(
        "--train-data",
        nargs="+",
        default=["../Data/Training_data"],
        help="folder whose CSV files are trained on, or CSV or Parquet files",
    )
    data.add_argument(
        "--sample-size", type=whole_number, default=10, help="rows to use, as a power of ten: 4 is 10,000 rows"
    )
    data.add_argument(
        "--upsample-minimum",
        type=whole_number,
        default=0,
        help="classes with fewer rows than this get so many more, drawn with replacement",
    )
    data.add_argument("--max-len", type=whole_number, default=128, help="characters of a description, at most")
    data.add_argument("--alt-prob", type=real_number, default=0.1, help="share of descriptions augmented")
    data.add_argument("--skip-insert-words", action="store_true", help="augment without inserting words")
    start = parser.add_argument_group("model and initial weights")
    start.add_argument("--checkpoint-path", default=None, help="weights to start from, with or without .bin")
    start.add_argument("--model-name", default=None, help="names the files (by default from domain, size, rate, batch)")
    start.add_argument(
        "--model-domain", default="Multilingual_CANINE", help="pretrained encoder where --encoder does not name one"
    )
    start.add_argument("--dropout", type=real_number, default=0.0, help="dropout of the linear layer's input")
    run = parser.add_argument_group("training")
    run.add_argument("--epochs", type=whole_number, default=50, help="passes over the training data")
    run.add_argument("--batch-size", type=whole_number, default=256, help="rows per process and batch")
    run.add_argument("--learning-rate", type=real_number, default=2e-5, help="highest learning rate")
    run.add_argument("--log-interval", type=whole_number, default=LOG_INTERVAL, help=cli.LOG_INTERVAL_HELP)
    run.add_argument(
        "--save-interval", type=whole_number, default=5000, help="steps between checkpoints within an epoch"
    )
    cli.add_loading_arguments(parser)
    cli.add_schedule_arguments(parser)
    cli.add_run_arguments(parser, "train")
    # A run is saved after each epoch; that all of these stay would surprise whoever pays for the disk.
    parser.set_defaults(keep_checkpoints=1)
    return parser


def demo_defaults() -> dict[str, Any]:
    """A run on the shipped sample, sized for a laptop's CPU."""
    from histocc.datasets import sample_paths
    from histocc.runs.demo import FLAT_DEMO

    return {**FLAT_DEMO, "save_dir": "runs/demo-train", "train_data": [str(path) for path in sample_paths()]}


def check_arguments(options: FlatOptions) -> None:
    """Raise one UsageError with everything that is wrong with flags, files and their columns."""
    from histocc.dataloader.flat import training_files

    problems = Problems()
    cli.check_run_options(options, problems)
    problems.run(check_folder, options.save_dir, "--save-dir")
    cli.check_weights("--checkpoint-path", options.checkpoint_path, problems)
    name = options.model_name
    if name is not None and (Path(name).name != name or name.isdigit() or name in _RESERVED_NAMES):
        problems.add(
            f"--model-name is {name!r}; it names files in the save folder and must be no path, no number, and none of "
            + ", ".join(_RESERVED_NAMES)
        )
    elif len(os.fsencode(options.name)) > _LONGEST_NAME:
        problems.add(
            f"--model-name is {options.name[:20]!r}... of {len(os.fsencode(options.name)):,} bytes; it names files and "
            f"must have at most {_LONGEST_NAME}"
        )
    training_files(options.train_data, problems)
    problems.raise_if_any()


def train(options: FlatOptions, processes: Processes) -> int:
    """The script: check, then read the data and train."""
    from histocc.runs.flat import run_flat
    from histocc.runs.shared import own_folder

    check_arguments(options)
    with own_folder(options, processes):
        code = run_flat(options, processes)
    if processes.is_main and code == 0 and options.demo:
        console.say(
            "This was the demo. With CSV files of your own (columns occ1, lang, code1..code5) the full model is\n"
            "trained with\n"
            "  python train.py --train-data FOLDER --save-dir Model --use-amp"
        )
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the arguments `argv`, those of the command line by default; return the exit code."""
    args = cli.parse_with_demo(build_parser(), argv, demo_defaults)
    options = FlatOptions.from_namespace(args).with_command(build_parser(), argv)
    return cli.run_script(train, options, options.start_timeout)


if __name__ == "__main__":
    sys.exit(main())
