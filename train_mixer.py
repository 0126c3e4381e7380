"""Train the mixer model (decoder and flat head on CANINE) from prepared CSV or Parquet files.

python train_mixer.py --save-dir runs/a --train-data A.csv B.csv --val-data C.csv
torchrun --nproc_per_node=4 train_mixer.py --save-dir runs/a --train-data A.csv --val-data C.csv
python train_mixer.py --demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histocc.errors import Problems
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli

FORMATTERS = ("hisco", "occ1950", "gpf")
NUM_CLASSES = {"hisco": 1919, "occ1950": 1000}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.ScriptParser(prog="train_mixer.py", description=__doc__.splitlines()[0])
    data = parser.add_argument_group("data")
    data.add_argument("--save-dir", default=None, help="folder for checkpoints and logs; a run in it is continued")
    data.add_argument("--train-data", nargs="+", default=None, help="CSV or Parquet files to train on")
    data.add_argument("--val-data", nargs="+", default=None, help="CSV or Parquet files to evaluate on")
    data.add_argument("--formatter", choices=FORMATTERS, default="hisco", help="coding system; gpf is any system")
    data.add_argument(
        "--target-col-naming",
        choices=("hisco", "occ1950"),
        default=None,
        help="columns that hold the codes: code1..code5 or OCC1950_1, OCC1950_2 (the formatter's own)",
    )
    data.add_argument("--target-cols", nargs="+", default=None, help="names of the columns that hold the codes")
    data.add_argument("--block-size", type=cli.positive_int, default=5, help="gpf: tokens a code has at most")
    data.add_argument("--use-within-block-sep", action="store_true", help="gpf: codes are lists such as 1,13,0,0")
    data.add_argument("--key", default=None, help="gpf: file with the columns system_code, code (class of each code)")
    data.add_argument(
        "--max-len", type=cli.positive_int, default=128, help="characters of language and description, at most"
    )
    data.add_argument("--num-transformations", type=cli.non_negative_int, default=3, help="per augmented description")
    data.add_argument("--augmentation-prob", type=float, default=0.3, help="share of descriptions augmented")
    data.add_argument("--unk-lang-prob", type=float, default=0.25, help="share of rows whose language is hidden")
    data.add_argument("--fn-word-freq", default=None, help="CSV with the columns word, freq: words to insert")
    cli.add_mixer_arguments(parser, save_interval=5000, num_epochs=50, batch_size=512, seq2seq_weight=0.5)
    group = parser.add_argument_group("model")
    group.add_argument("--dropout", type=float, default=0.0, help="dropout of decoder and flat head")
    group.add_argument(
        "--decoder-dim-feedforward", type=cli.positive_int, default=None, help="width in the decoder (hidden size)"
    )
    parser.add_argument("--save-each-epoch", action="store_true", help="save after each epoch too")
    cli.add_run_arguments(parser, "train_mixer")
    return parser


def demo_defaults() -> dict[str, Any]:
    """A run on the shipped sample, sized for a laptop's CPU."""
    from histocc.datasets import sample_paths
    from histocc.runs.demo import MIXER_DEMO

    train, val = sample_paths()
    return {
        **MIXER_DEMO,
        "save_dir": "runs/demo-train_mixer",
        "train_data": [str(train)],
        "val_data": [str(val)],
    }


def check_arguments(args: argparse.Namespace) -> None:
    """Raise one UsageError with everything that is wrong with flags, files and their columns."""
    from histocc.dataloader import check_files

    problems = Problems()
    cli.check_mixer_arguments(args, problems)
    cli.check_shares(args, problems, "augmentation_prob", "unk_lang_prob", "dropout")
    if args.save_dir is None:
        problems.add("--save-dir is missing: the folder for checkpoints and logs")
    else:
        problems.run(cli.check_folder, args.save_dir, "--save-dir")
    if args.formatter == "gpf" and not args.target_cols:
        problems.add("--formatter gpf needs --target-cols: the names of the columns that hold the codes")
    if args.key is not None and args.formatter != "gpf":
        problems.add(f"--key is for --formatter gpf; the classes of {args.formatter} are fixed")
    columns = ["occ1", "lang", *_target_columns(args)]
    for flag, paths in (("--train-data", args.train_data), ("--val-data", args.val_data)):
        if paths is None:
            problems.add(f"{flag} is missing: one or more CSV or Parquet files")
        else:
            advice = "Rename columns in the table; --target-cols names its code columns where they are called otherwise"
            check_files(paths, columns, flag=flag, problems=problems, advice=advice)
    problems.raise_if_any()


def _target_columns(args: argparse.Namespace) -> list[str]:
    from histocc.dataloader.mixer_dataset import TARGET_COLUMNS

    if args.target_cols:
        return args.target_cols
    return list(TARGET_COLUMNS.get(args.target_col_naming or args.formatter, ()))


def _formatter(args: argparse.Namespace) -> Any:
    from histocc import formatter

    if args.formatter == "hisco":
        return formatter.hisco_blocky5()
    if args.formatter == "occ1950":
        return formatter.occ1950_blocky2()
    return formatter.construct_general_purpose_formatter(
        args.block_size, args.target_cols, use_within_block_sep=args.use_within_block_sep
    )


def _key(args: argparse.Namespace, formatter: Any, save_dir: Path, processes: Processes) -> dict[str, int] | None:
    """Classes of the codes for gpf: of the save folder, else of --key, else of the training data; None otherwise."""
    if args.formatter != "gpf":
        return None
    from histocc.dataloader.codes import codes_in_order
    from histocc.files.key import read_key

    saved = save_dir / "key.csv"
    if not saved.exists():
        return read_key(args.key) if args.key else codes_in_order(args.train_data, args.target_cols, formatter)
    key = read_key(saved)
    if args.key and processes.is_main and read_key(args.key) != key:
        print(f"{saved} differs from --key {args.key}; the one in the save folder is used, as the model knows it")
    return key


def _make_folder(save_dir: Path, key: Mapping[str, int] | None) -> None:
    """The save folder and, for gpf, its key."""
    from histocc.files.key import write_key

    cli.make_folder(save_dir, "--save-dir")
    if key is not None and not (save_dir / "key.csv").exists():
        write_key(key, save_dir / "key.csv")


def train_mixer(args: argparse.Namespace, processes: Processes) -> int:
    """The script: check, read the data, train."""
    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles
    from histocc.dataloader.words import read_word_frequencies
    from histocc.runs.mixer import MixerTask, run_mixer

    check_arguments(args)
    formatter = _formatter(args)
    save_dir = Path(args.save_dir)
    key = _key(args, formatter, save_dir, processes)
    num_classes = NUM_CLASSES[args.formatter] if key is None else len(key)
    words = None if args.fn_word_freq is None else read_word_frequencies(args.fn_word_freq)

    problems = Problems()
    data = [
        problems.run(
            OccDatasetMixerInMemMultipleFiles,
            paths,
            formatter,
            None,
            args.max_len,
            num_classes,
            training=training,
            alt_prob=args.augmentation_prob,
            n_trans=args.num_transformations,
            unk_lang_prob=args.unk_lang_prob,
            target_cols=_target_columns(args),
            map_code_label=key,
            word_freq_table=words,
            seed=args.seed,
        )
        for paths, training in ((args.train_data, True), (args.val_data, False))
    ]
    problems.raise_if_any()
    # Nobody looks for the key any more, and the data are good: now it can be written.
    processes.gather(None)
    processes.main_first("folder", lambda: _make_folder(save_dir, key))
    code = run_mixer(args, processes, MixerTask(save_dir, formatter, data[0], data[1], num_classes, key))
    if args.demo and code == 0 and processes.is_main:
        print(
            "This was the demo. With data of your own (columns occ1, lang, code1..code5) the full model trains with\n"
            "  python train_mixer.py --save-dir runs/mine --train-data train.csv --val-data val.csv --use-amp\n"
            "and from a table with codes of any system with\n"
            "  python finetune.py --dataset table.csv --target-cols code --save-path runs/finetuned"
        )
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the arguments `argv`, those of the command line by default; return the exit code."""
    args = cli.parse_with_demo(build_parser(), argv, demo_defaults)
    return cli.run_script(train_mixer, args)


if __name__ == "__main__":
    sys.exit(main())
