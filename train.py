"""Train the flat HISCO classifier (one linear layer on CANINE) from a folder of CSV files.

python train.py --train-data ../Data/Training_data --save-dir Model
torchrun --nproc_per_node=4 train.py --train-data ../Data/Training_data --save-dir Model
python train.py --demo
"""

from __future__ import annotations

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
from histocc.runs.options import FlatOptions
from histocc.runs.ranges import real_number, whole_number

_RESERVED_NAMES = ("last", "best", "..")
# File systems take 255 bytes; what stands before and behind it in the names of files needs some.
_LONGEST_NAME = 200


def build_parser() -> cli.ScriptParser:
    """The command line."""
    parser = cli.script_parser(
        "train",
        description=__doc__.splitlines()[0],
        needs="--train-data FOLDER --save-dir FOLDER",
        examples="  python train.py --train-data ../Data/Training_data --save-dir Model --use-amp",
        later=["--num-epochs", "--augmentation-prob", "--initial-checkpoint", "--save-path"],
    )
    parser.flag(
        cli.DATA,
        "--train-data",
        nargs="+",
        default=["../Data/Training_data"],
        metavar="FOLDER|FILE",
        help="folder whose CSV files are trained on, or CSV or Parquet files; columns occ1, lang, code1 .. code5",
    )
    parser.flag(
        cli.DATA,
        "--sample-size",
        type=whole_number,
        default=10,
        metavar="POWER",
        help="rows to use, as a power of ten: 4 is 10,000 rows at most, 10 is all",
    )
    parser.flag(
        cli.DATA,
        "--upsample-minimum",
        type=whole_number,
        default=0,
        metavar="ROWS",
        help="classes with fewer rows than this get so many more, drawn with replacement",
    )
    cli.add_length(parser)
    cli.add_augmentation(parser, 0.1)
    parser.flag(cli.AUGMENTATION, "--skip-insert-words", action="store_true", help="augment without inserting words")
    cli.add_training_arguments(
        parser,
        "train",
        num_epochs=50,
        batch_size=256,
        save_interval=5000,
        # A run is saved after each epoch; that all of these stay would surprise whoever pays for the disk.
        keep_checkpoints=1,
    )
    parser.flag(
        cli.MODEL,
        "--model-domain",
        default="Multilingual_CANINE",
        metavar="NAME",
        help="pretrained encoder where --encoder does not name one",
    )
    parser.flag(
        cli.MODEL,
        "--dropout",
        type=real_number,
        default=0.0,
        metavar="SHARE",
        help="dropout of the linear layer's input",
    )
    parser.flag(
        cli.SAVING,
        "--model-name",
        default=None,
        metavar="NAME",
        help="names the files of weights (by default made of domain, size, rate and batch)",
    )
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
    if processes.is_main and code == 0 and options.demo and not options.print_config:
        console.say(
            "This was the demo. With CSV files of your own (columns occ1, lang, code1..code5) the full model is\n"
            "trained with\n"
            "  python train.py --train-data FOLDER --save-dir Model --use-amp"
        )
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the arguments `argv`, those of the command line by default; return the exit code."""
    args = cli.read_command_line(build_parser(), argv, lambda given: demo_defaults())
    options = FlatOptions.from_namespace(args).with_command(build_parser(), argv)
    return cli.run_script(train, options, options.start_timeout)


if __name__ == "__main__":
    sys.exit(main())
