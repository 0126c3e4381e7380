"""Train the mixer model (decoder and flat head on CANINE) from prepared CSV or Parquet files.

python train_mixer.py --save-dir runs/a --train-data A.csv B.csv --val-data C.csv
torchrun --nproc_per_node=4 train_mixer.py --save-dir runs/a --train-data A.csv --val-data C.csv
python train_mixer.py --demo
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the script without a traceback while the libraries are read; `run_script` has an answer of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from histocc.errors import Problems, UsageError
from histocc.files import console, run_folder
from histocc.files.folders import check_folder
from histocc.formatter import CodingSystem, coding_system, general_system
from histocc.formatter.systems import SYSTEMS
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.runs.options import TrainMixerOptions
from histocc.runs.ranges import RANGES, real_number, whole_number

if TYPE_CHECKING:
    from histocc.runs.mixer import MixerData
    from histocc.runs.start import Start


GENERAL_PURPOSE = "gpf"
_MOST_CODES_SHOWN = 5


def build_parser() -> cli.ScriptParser:
    """The command line."""
    parser = cli.script_parser(
        "train_mixer",
        description=__doc__.splitlines()[0],
        needs="--save-dir FOLDER --train-data FILE ... --val-data FILE ...",
        examples="  python train_mixer.py --save-dir runs/a --train-data A.csv B.csv --val-data C.csv --use-amp",
        later=["--save-path", "--epochs", "--alt-prob", "--checkpoint-path"],
    )
    for name, what in (("--train-data", "train"), ("--val-data", "evaluate")):
        parser.flag(cli.DATA, name, nargs="+", default=None, metavar="FILE", help=f"CSV or Parquet files to {what} on")
    cli.add_length(parser)
    parser.flag(
        cli.CODES,
        "--formatter",
        choices=(*SYSTEMS, GENERAL_PURPOSE),
        default="hisco",
        help="coding system; gpf is any system",
    )
    parser.flag(
        cli.CODES,
        "--target-col-naming",
        choices=tuple(SYSTEMS),
        default=None,
        help="columns that hold the codes are those of this system: for hisco code1..code5 (the formatter's own)",
    )
    parser.flag(
        cli.CODES,
        "--target-cols",
        nargs="+",
        default=None,
        metavar="COLUMN",
        help="names of the columns that hold the codes",
    )
    parser.flag(
        cli.CODES,
        "--block-size",
        type=whole_number,
        default=5,
        metavar="TOKENS",
        help="gpf: characters (or parts) that a code has at most",
    )
    parser.flag(cli.CODES, "--use-within-block-sep", action="store_true", help="gpf: codes are lists such as 1,13,0,0")
    parser.flag(
        cli.CODES,
        "--key",
        default=None,
        metavar="FILE",
        help="gpf, isco68: file with the columns system_code, code (class of each code)",
    )
    cli.add_augmentation(parser, 0.3)
    parser.flag(
        cli.AUGMENTATION,
        "--num-transformations",
        type=whole_number,
        default=3,
        metavar="NUMBER",
        help="changes to a description that gets noise",
    )
    parser.flag(
        cli.AUGMENTATION,
        "--unk-lang-prob",
        type=real_number,
        default=0.25,
        metavar="SHARE",
        help="share of rows whose language is hidden",
    )
    parser.flag(
        cli.AUGMENTATION,
        "--fn-word-freq",
        default=None,
        metavar="FILE",
        help="CSV with the columns word, freq: words to insert",
    )
    cli.add_mixer_arguments(
        parser, "train_mixer", num_epochs=50, batch_size=512, save_interval=5000, seq2seq_weight=0.5
    )
    parser.flag(
        cli.MODEL,
        "--dropout",
        type=real_number,
        default=0.0,
        metavar="SHARE",
        help="dropout of decoder and flat head",
    )
    parser.flag(
        cli.MODEL,
        "--decoder-dim-feedforward",
        type=whole_number,
        default=None,
        metavar="WIDTH",
        help="width in the decoder (hidden size)",
    )
    parser.flag(cli.SAVING, "--save-each-epoch", action="store_true", help="save after each epoch too")
    return parser


def demo_defaults() -> dict[str, Any]:
    """A run on the shipped sample, sized for a laptop's CPU."""
    from histocc.datasets import sample_paths, two_codes_path
    from histocc.runs.demo import MIXER_DEMO

    train, val = sample_paths()
    return {
        **MIXER_DEMO,
        "save_dir": "runs/demo-train_mixer",
        "train_data": [str(train), str(two_codes_path())],
        "val_data": [str(val)],
    }


def check_arguments(options: TrainMixerOptions) -> None:
    """Raise one UsageError with everything that is wrong with flags, files and their columns."""
    from histocc.dataloader.rows import check_lots
    from histocc.files.tables import file_fault

    problems = Problems()
    cli.check_mixer_arguments(options, problems)
    if RANGES["block_size"].fault(options.block_size) is not None:
        # There is no coding system whose columns could be looked for.
        problems.raise_if_any()
    if options.save_dir is None:
        problems.add("--save-dir is missing: the folder for checkpoints and logs")
    else:
        problems.run(check_folder, options.save_dir, "--save-dir")
    if options.formatter == GENERAL_PURPOSE and not options.target_cols:
        problems.add("--formatter gpf needs --target-cols: the names of the columns that hold the codes")
    if options.key is not None and _system(options).codes is not None:
        problems.add(f"--key is for --formatter gpf; the classes of {options.formatter} are fixed")
    for flag, path in (("--key", options.key), ("--fn-word-freq", options.fn_word_freq)):
        fault = file_fault(Path(path)) if path else None
        if fault is not None:
            problems.add(f"{flag}: {fault}")
    columns = ["occ1", "lang", *_system(options).columns]
    lots = {"--train-data": options.train_data, "--val-data": options.val_data}
    for flag in [flag for flag, paths in lots.items() if paths is None]:
        problems.add(f"{flag} is missing: one or more CSV or Parquet files")
        del lots[flag]
    advice = "Rename columns in the table; --target-cols names its code columns where they are called otherwise"
    check_lots(lots, columns, problems=problems, advice=advice)
    problems.raise_if_any()


def _system(options: TrainMixerOptions) -> CodingSystem:
    """The coding system that the flags name, in the columns that they name; its codes may still be unknown."""
    if options.formatter == GENERAL_PURPOSE:
        # A missing --target-cols is complained about where all flags are.
        columns = options.target_cols or ["code"]
        return general_system(options.block_size, columns, use_within_block_sep=options.use_within_block_sep)
    system = coding_system(options.formatter)
    if options.target_cols:
        return system.with_columns(options.target_cols)
    naming = options.target_col_naming
    if naming is None:
        return system
    return system.with_columns(coding_system(naming).columns[: system.formatter.max_num_codes])


def _with_codes(system: CodingSystem, options: TrainMixerOptions, processes: Processes) -> CodingSystem:
    """The system with its codes: its own, else those of the save folder, of --key, or of the training data."""
    if system.codes is not None:
        return system
    from histocc.dataloader.codes import codes_in_order
    from histocc.files.key import read_key

    saved = options.folder / run_folder.KEY
    if saved.exists():
        key = read_key(saved)
        if options.key and processes.is_main and read_key(options.key) != key:
            console.say(
                f"{saved} differs from --key {options.key}; the one in the save folder is used, as the model knows it"
            )
    elif options.key:
        key = read_key(options.key)
    else:
        key = codes_in_order(options.train_data, system.columns, system.formatter)
    return system.with_key(key)


def _check_key_of_training(options: TrainMixerOptions, system: CodingSystem) -> None:
    """Raise UsageError where the validation data have codes that a key of the training data alone cannot have."""
    from histocc.dataloader.codes import codes_in_order

    theirs = codes_in_order(options.val_data, system.columns, system.formatter)
    missing = [code for code in theirs if code not in system.key]
    if missing:
        number = "1 code" if len(missing) == 1 else f"{len(missing):,} codes"
        listed = ", ".join(map(repr, missing[:_MOST_CODES_SHOWN])) + ", ..." * (len(missing) > _MOST_CODES_SHOWN)
        raise UsageError(
            f"No key is given, so the training data decide which codes there are, and of those of the validation "
            f"data {number} cannot be learnt ({listed}). Give a key that holds all codes, with --key FILE: a table "
            "with the columns system_code, code (docs/data-format.md has the lines of Python that make it)"
        )


def _read_data(start: Start[TrainMixerOptions], system: CodingSystem, processes: Processes) -> MixerData:
    """Read the data, with the codes of a key or of their own."""
    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles
    from histocc.dataloader.words import read_word_frequencies
    from histocc.runs.mixer import MixerData

    options = start.options
    # Only codes that the data decide need a key: those of a fixed system are their own.
    key_is_fixed = system.codes is not None
    system = _with_codes(system, options, processes)
    of_training = not key_is_fixed and options.key is None and not (options.folder / run_folder.KEY).exists()
    key = None if key_is_fixed else system.key
    words = None if options.fn_word_freq is None else read_word_frequencies(options.fn_word_freq)
    problems = Problems()
    train, val = (
        problems.run(
            OccDatasetMixerInMemMultipleFiles,
            paths,
            system.formatter,
            None,
            options.max_len,
            system.num_classes,
            training=training,
            alt_prob=options.augmentation_prob,
            n_trans=options.num_transformations,
            unk_lang_prob=options.unk_lang_prob,
            target_cols=list(system.columns),
            map_code_label=key,
            word_freq_table=words,
            seed=options.seed,
        )
        for paths, training in ((options.train_data, True), (options.val_data, False))
    )
    if problems and of_training:
        problems.run(_check_key_of_training, options, system)
    problems.raise_if_any()
    # Nobody looks for the key in the folder any more, where it will be written.
    processes.gather(None)
    return MixerData(train, val, system, Path(options.val_data[0]), saves_key=not key_is_fixed)


def train_mixer(options: TrainMixerOptions, processes: Processes) -> int:
    """The script: check, read the data, train."""
    from histocc.runs.mixer import run_mixer
    from histocc.runs.shared import own_folder

    check_arguments(options)
    system = _system(options)
    with own_folder(options, processes):
        code = run_mixer(options, processes, system, lambda start: _read_data(start, system, processes))
    if options.demo and not options.print_config and code == 0 and processes.is_main:
        console.say(
            "This was the demo. With data of your own (columns occ1, lang, code1..code5) the full model trains with\n"
            "  python train_mixer.py --save-dir runs/mine --train-data train.csv --val-data val.csv --use-amp\n"
            "and from a table with codes of any system with\n"
            "  python finetune.py --dataset table.csv --target-cols code --save-dir runs/finetuned"
        )
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the arguments `argv`, those of the command line by default; return the exit code."""
    args = cli.read_command_line(build_parser(), argv, lambda given: demo_defaults())
    options = TrainMixerOptions.from_namespace(args).with_command(build_parser(), argv)
    return cli.run_script(train_mixer, options, options.start_timeout)


if __name__ == "__main__":
    sys.exit(main())
