"""Fine-tune the mixer model on a table of your own, with codes of any system.

python finetune.py --dataset table.csv --target-cols code_1 code_2 --save-dir runs/mine
torchrun --nproc_per_node=4 finetune.py --dataset table.csv --target-cols code --save-dir runs/mine
python finetune.py --demo
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the script without a traceback while the libraries are read; `run_script` has an answer of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from histocc.errors import Problems, UsageError
from histocc.files import console, run_folder
from histocc.files.folders import check_folder
from histocc.formatter import BlockyFormatter, CodingSystem, general_system
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.runs.options import FinetuneOptions
from histocc.runs.ranges import RANGES, real_number, whole_number

if TYPE_CHECKING:
    from histocc.dataloader import Descriptions
    from histocc.preparation.report import PreparationReport
    from histocc.runs.mixer import MixerData
    from histocc.runs.start import Start


def build_parser() -> cli.ScriptParser:
    """The command line."""
    parser = cli.script_parser(
        "finetune",
        description=__doc__.splitlines()[0],
        needs="--dataset FILE --target-cols COLUMN ... --save-dir FOLDER",
        examples="  python finetune.py --dataset table.csv --input-col occupation --target-cols code_1 code_2 "
        "--save-dir runs/mine",
        later=["--save-dir", "--epochs", "--checkpoint-path", "--drop-uncoded"],
    )
    parser.flag(
        cli.DATA, "--dataset", default=None, metavar="FILE", help="CSV or Parquet file with descriptions and codes"
    )
    parser.flag(cli.DATA, "--input-col", default="occ1", metavar="COLUMN", help="column of the descriptions")
    parser.flag(
        cli.DATA,
        "--target-cols",
        nargs="+",
        default=None,
        metavar="COLUMN",
        help="columns of the codes, first code first",
    )
    parser.flag(cli.DATA, "--language", default="unk", metavar="CODE", help="language of all rows, as a short code")
    parser.flag(
        cli.DATA,
        "--language-col",
        default=None,
        metavar="COLUMN",
        help="column of the languages, instead of --language",
    )
    parser.flag(
        cli.DATA,
        "--language-map",
        default=None,
        metavar="FILE",
        help="table of two columns: a language as it is spelt, its code",
    )
    cli.add_length(parser)
    parser.flag(
        cli.CODES,
        "--block-size",
        type=whole_number,
        default=5,
        metavar="TOKENS",
        help="characters (or parts) that a code has at most",
    )
    parser.flag(
        cli.CODES, "--use-within-block-sep", action="store_true", help="codes are lists of parts such as 1,13,0,0"
    )
    parser.flag(
        cli.CODES,
        "--allow-codes-shorter-than-block-size",
        action="store_true",
        help="accept codes with fewer characters (parts)",
    )
    parser.flag(
        cli.CODES,
        "--drop-bad-labels",
        action="store_true",
        help="leave rows that do not fit out and list them in a file",
    )
    parser.flag(
        cli.CODES,
        "--drop-uncoded",
        action="store_true",
        help="leave rows without a first code out and list them in a file; otherwise their code is ?",
    )
    parser.flag(
        cli.CODES,
        "--keep-missing-spellings",
        action="store_true",
        help="nan, NA, None, null, ? in code columns are codes",
    )
    parser.flag(
        cli.CODES,
        "--short-codes",
        nargs="+",
        default=[],
        metavar="CODE",
        help="codes that are short on purpose, such as -1 -2",
    )
    parser.flag(
        cli.CODES,
        "--pad-codes",
        action="store_true",
        help="fill codes of digits up to the block size with leading zeros",
    )
    parser.flag(
        cli.CODES,
        "--all-codes-file",
        default=None,
        metavar="FILE",
        help="table of all codes: those the data lack get a class too",
    )
    parser.flag(
        cli.CODES,
        "--all-codes-col",
        default=None,
        metavar="COLUMN",
        help="its column (pst2_1, system_code or code, else the first column)",
    )
    parser.flag(
        cli.PREPARATION,
        "--share-val",
        type=real_number,
        default=0.1,
        metavar="SHARE",
        help="share of the rows for validation",
    )
    parser.flag(
        cli.PREPARATION,
        "--split-by",
        default=None,
        metavar="description|COLUMN",
        help="keep all rows of a description, or of a value of a column, on one side of the split",
    )
    parser.flag(
        cli.PREPARATION,
        "--val-data",
        default=None,
        metavar="FILE",
        help="table of the validation rows; all of --dataset trains then",
    )
    parser.flag(cli.PREPARATION, "--prepare-only", action="store_true", help="write the prepared files and stop")
    parser.flag(
        cli.PREPARATION,
        "--overwrite",
        action="store_true",
        help="prepare the table again; the prepared files that are there are set aside",
    )
    parser.flag(
        cli.PREPARATION,
        "--keep-prepared",
        action="store_true",
        help="use the prepared files although --dataset is another table now",
    )
    parser.flag(
        cli.DESCRIPTIONS,
        "--include-descriptions",
        action="store_true",
        help="join the first code's description to training rows",
    )
    parser.flag(
        cli.DESCRIPTIONS,
        "--description-prob",
        type=real_number,
        default=0.5,
        metavar="SHARE",
        help="share of training rows that get one",
    )
    parser.flag(
        cli.DESCRIPTIONS,
        "--description-template",
        default="{occ} [DESC: {desc}]",
        metavar="TEXT",
        help="how text and description are joined",
    )
    parser.flag(
        cli.DESCRIPTIONS,
        "--descriptions-file",
        default=None,
        metavar="FILE",
        help="CSV or Parquet file of descriptions",
    )
    for name, what in (("code", "codes"), ("text", "descriptions"), ("lang", "languages, if it has one")):
        parser.flag(
            cli.DESCRIPTIONS,
            f"--descriptions-{name}-col",
            default=None,
            metavar="COLUMN",
            help=f"its column of {what}",
        )
    cli.add_mixer_arguments(parser, "finetune", num_epochs=5, batch_size=128, save_interval=1000, seq2seq_weight=0.1)
    parser.flag(cli.MODEL, "--freeze-encoder", action="store_true", help="train decoder and flat head alone")
    return parser


def demo_defaults(given: argparse.Namespace) -> dict[str, Any]:
    """A run on the shipped raw table, sized for a laptop's CPU; `given` are the flags, of which all win."""
    from histocc.datasets import raw_sample_path
    from histocc.runs.demo import FINETUNE_DEMO

    defaults = {**FINETUNE_DEMO, "save_dir": "runs/demo-finetune"}
    if given.dataset is None:
        defaults |= {"dataset": str(raw_sample_path()), "target_cols": ["hisco_1", "hisco_2"]}
        if given.language == "unk":
            defaults["language_col"] = "lang"
    return defaults


def check_arguments(options: FinetuneOptions) -> Descriptions | None:
    """Raise one UsageError with everything that is wrong with the flags; return the descriptions they name, or None."""
    from histocc.files.languages import read_language_map
    from histocc.files.tables import file_fault
    from histocc.preparation import check_arguments as check_preparation
    from histocc.preparation import check_codes, check_overwrite, is_prepared
    from histocc.training.checkpoint import CheckpointFolder

    problems = Problems()
    cli.check_mixer_arguments(options, problems)
    if options.all_codes_col is not None and options.all_codes_file is None:
        problems.add("--all-codes-col names a column of --all-codes-file, which is not given")
    fault = None if options.all_codes_file is None else file_fault(Path(options.all_codes_file))
    if fault is not None:
        problems.add(f"--all-codes-file: {fault}")
    descriptions = None
    if options.include_descriptions and options.descriptions_file is not None:
        descriptions = problems.run(_descriptions, options)
    if options.target_cols is None:
        problems.add("--target-cols is missing: the names of the columns that hold the codes")
    if options.overwrite and options.keep_prepared:
        problems.add("--overwrite prepares the table again and --keep-prepared keeps what is there: give one of them")
    if options.overwrite:
        problems.run(check_overwrite, options.save_dir)
    if is_prepared(options.save_dir) and not options.overwrite:
        problems.run(check_folder, options.save_dir, "--save-dir")
    else:
        checkpoints = []
        # What keeps one from looking into the folder is told with the other arguments.
        with contextlib.suppress(OSError):
            checkpoints = [] if options.prepare_only or options.overwrite else CheckpointFolder(options.folder).files()
        if checkpoints:
            problems.add(
                f"{checkpoints[0]} is from a run whose {', '.join(run_folder.PREPARED_FILES)} are no longer all there: "
                "choose another --save-dir, put the files back, or move the checkpoints away to begin again"
            )
        problems.run(
            check_preparation,
            options.dataset,
            options.input_col,
            options.target_cols or [],
            options.save_dir,
            options.share_val,
            options.language,
            options.language_col,
            split_by=options.split_by,
            val_data=options.val_data,
        )
        if options.language_map is not None:
            problems.run(read_language_map, options.language_map)
        if options.target_cols and RANGES["block_size"].fault(options.block_size) is None:
            problems.run(check_codes, _system(options).formatter, options.short_codes, options.pad_codes)
    problems.raise_if_any()
    return descriptions


def _system(options: FinetuneOptions) -> CodingSystem:
    """The coding system that the flags name, whose codes are still unknown."""
    return general_system(options.block_size, options.target_cols, use_within_block_sep=options.use_within_block_sep)


def _descriptions(options: FinetuneOptions) -> Descriptions:
    from histocc.dataloader.descriptions import Descriptions
    from histocc.files.languages import LanguageNames, read_language_map

    own_languages = None if options.language_map is None else read_language_map(options.language_map)
    descriptions = Descriptions.read(
        options.descriptions_file,
        options.descriptions_code_col,
        options.descriptions_text_col,
        options.descriptions_lang_col,
        prob=options.description_prob,
        template=options.description_template,
    )
    # Preparation gives the rows these codes.
    return descriptions.with_codes_of_languages(LanguageNames(own_languages).code)


def _prepare(options: FinetuneOptions, formatter: BlockyFormatter) -> None:
    """Prepare the table, unless that was done before, and say what came of it."""
    report = _prepare_in(options.folder, options, formatter, overwrite=options.overwrite)
    console.say(report.summary())


def _prepare_in(
    folder: Path, options: FinetuneOptions, formatter: BlockyFormatter, *, overwrite: bool
) -> PreparationReport:
    """Prepare the table in a folder, unless that was done before."""
    from histocc.preparation import prepare

    _, report = prepare(
        options.dataset,
        options.input_col,
        formatter,
        folder,
        options.share_val,
        options.language,
        options.language_col,
        options.drop_bad_labels,
        options.allow_codes_shorter_than_block_size,
        keep_missing_spellings=options.keep_missing_spellings,
        short_codes=options.short_codes,
        pad_codes=options.pad_codes,
        drop_uncoded=options.drop_uncoded,
        all_codes_file=options.all_codes_file,
        all_codes_col=options.all_codes_col,
        language_map=options.language_map,
        split_by=options.split_by,
        val_data=options.val_data,
        overwrite=overwrite,
        keep_prepared=options.keep_prepared,
    )
    return report


@contextlib.contextmanager
def _prepared_elsewhere(options: FinetuneOptions, formatter: BlockyFormatter, notes: list[str]) -> Iterator[Path]:
    """A folder with the prepared table for who may not write into the save folder, which is that one if it has it."""
    from histocc.preparation import is_prepared

    if is_prepared(options.folder) and not options.overwrite:
        notes += _prepare_in(options.folder, options, formatter, overwrite=False).notes
        yield options.folder
        return
    with tempfile.TemporaryDirectory(prefix="histocc-") as name:
        try:
            notes += _prepare_in(Path(name), options, formatter, overwrite=False).notes
        except UsageError as error:
            # The list of rejected rows goes with the folder.
            kept = [line for line in str(error).splitlines() if name not in line]
            raise UsageError("\n".join(kept)) from error
        yield Path(name)


def _read_data(
    start: Start[FinetuneOptions],
    system: CodingSystem,
    descriptions: Descriptions | None,
    processes: Processes,
) -> MixerData:
    """Prepare the table, now that the run is known to start, and read what came of it."""
    options = start.options
    if options.print_config:
        with _prepared_elsewhere(options, system.formatter, start.notes) as folder:
            return _data_in(folder, start, system, descriptions)
    processes.main_first("preparation", lambda: _prepare(options, system.formatter))
    return _data_in(options.folder, start, system, descriptions)


def _data_in(
    folder: Path, start: Start[FinetuneOptions], system: CodingSystem, descriptions: Descriptions | None
) -> MixerData:
    """Read the prepared files of a folder."""
    from histocc.files.key import read_key
    from histocc.preparation import made_with, setup_finetuning_datasets
    from histocc.runs.mixer import MixerData

    start.options = options = start.options.in_force(**made_with(folder, start.options.shown()))
    key = read_key(folder / run_folder.KEY)
    train_data, val_data = setup_finetuning_datasets(
        options.target_cols,
        folder,
        system.formatter,
        None,
        len(key),
        key,
        max_input_len=options.max_len,
        seed=options.seed,
        descriptions=descriptions,
    )
    facts = {"encoder": f"{options.encoder}, {'frozen' if options.freeze_encoder else 'trained'}"}
    if descriptions is not None:
        described = sum(code in descriptions.texts for code in key)
        facts["descriptions"] = (
            f"of {described:,} of {len(key):,} codes, joined to {descriptions.prob:.0%} of their training rows"
        )
    elif options.include_descriptions:
        start.notes.append("Warning: --include-descriptions without --descriptions-file: no descriptions are joined")
    return MixerData(train_data, val_data, system.with_key(key), options.folder / run_folder.VALIDATION_ROWS, facts)


def finetune(options: FinetuneOptions, processes: Processes) -> int:
    """The script: check, prepare the table, read the data, train."""
    from histocc.runs.mixer import run_mixer
    from histocc.runs.shared import own_folder

    descriptions = check_arguments(options)
    system = _system(options)
    with own_folder(options, processes):
        if options.prepare_only and not options.print_config:
            processes.main_first("preparation", lambda: _prepare(options, system.formatter))
            if processes.is_main:
                console.say("To train on these files, also after edits, repeat the command without --prepare-only.")
            return 0
        code = run_mixer(options, processes, system, lambda start: _read_data(start, system, descriptions, processes))
    if options.demo and not options.print_config and code == 0 and processes.is_main:
        console.say(
            "This was the demo. With a table of your own the full model trains with\n"
            "  python finetune.py --dataset table.csv --input-col text --target-cols code --save-dir runs/mine\n"
            "and starts from the published HISCO model with --initial-checkpoint occ-canine-v1."
        )
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the arguments `argv`, those of the command line by default; return the exit code."""
    args = cli.read_command_line(build_parser(), argv, demo_defaults)
    options = FinetuneOptions.from_namespace(args).with_command(build_parser(), argv)
    return cli.run_script(finetune, options, options.start_timeout)


if __name__ == "__main__":
    sys.exit(main())
