"""`histocc predict`: a table of descriptions in, the same table with codes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histocc.errors import Problems, UsageError
from histocc.files import console
from histocc.files.folders import check_folder
from histocc.files.languages import read_language_map
from histocc.files.tables import FOREIGN_SUFFIXES, OPENERS, column_names, columns_fault, file_fault, read_chunks
from histocc.metrics.predictions import same_answer
from histocc.prediction.coder import Coded
from histocc.prediction.coders import ModelCoder, make_coder
from histocc.prediction.loaded import GREEDY, LoadedModel
from histocc.prediction.loading import check_name
from histocc.prediction.output import is_parquet, new_columns, write_predictions
from histocc.prediction.pairs import Pairs, collect_pairs
from histocc.prediction.review import write_review
from histocc.prediction.threshold_table import STALE_THRESHOLDS
from histocc.prediction.work import Work, code_pairs
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.runs.model_flags import (
    ANSWER,
    GROUPS,
    LATER,
    TABLE,
    TableOptions,
    add_method_flags,
    add_model_flags,
    add_text_flags,
    known_languages,
    load,
    refuse_strange,
    unused_languages,
)
from histocc.runs.parser import ScriptParser
from histocc.runs.ranges import check_numbers, real_number, whole_number
from histocc.stored_model import describe_model
from histocc.training.precision import Precision

# Past this share of one answer among distinct texts a model has learnt nothing that helps.
_ONE_ANSWER, _FEWEST_TEXTS = 0.9, 50


@dataclass(frozen=True, kw_only=True)
class PredictOptions(TableOptions):
    """The flags of `histocc predict`; names are those of the flags."""

    top_k: int = 1
    keep_cols: list[str] | None = None
    descriptions: str | None = None
    for_spreadsheets: bool = False
    review: str | None = None
    review_rows: int = 300


def build_parser() -> ScriptParser:
    """The command line."""
    parser = ScriptParser(
        "histocc predict",
        description="Code a table of occupational descriptions with a trained model.",
        needs="--model FOLDER --input FILE --output FILE",
        groups=GROUPS,
        examples="  histocc predict --model runs/mine --input census.csv --input-col occupation --language da "
        "--output coded.csv",
        later=LATER,
    )
    add_text_flags(parser)
    parser.flag(TABLE, "--output", required=True, metavar="FILE", help="file to write, CSV or Parquet by its ending")
    parser.flag(
        TABLE, "--keep-cols", nargs="*", default=None, metavar="COLUMN", help="columns of the table to keep (all)"
    )
    parser.flag(TABLE, "--overwrite", action="store_true", help="replace an output that is there")
    parser.flag(
        TABLE,
        "--for-spreadsheets",
        action="store_true",
        help='CSV: write codes as ="01110", so that zeros are not eaten',
    )
    parser.flag(
        TABLE,
        "--descriptions",
        default=None,
        metavar="FILE",
        help="table with the columns system_code, desc: adds desc_1, ... to the output",
    )
    add_model_flags(parser)
    add_method_flags(parser)
    parser.flag(
        ANSWER,
        "--threshold",
        type=real_number,
        default=None,
        metavar="SHARE",
        help="codes with less confidence are left out (thresholds.csv beside the model; else flat: those by language "
        "of published models, 0.5 for others; full 0.25, greedy 0)",
    )
    parser.flag(
        ANSWER,
        "--top-k",
        type=whole_number,
        default=1,
        metavar="NUMBER",
        help="greedy: so many alternatives for each text, best first",
    )
    parser.flag(ANSWER, "--review", default=None, metavar="FILE", help="also write a table of rows to check by hand")
    parser.flag(ANSWER, "--review-rows", type=whole_number, default=300, metavar="ROWS", help="its rows")
    return parser


def check_options(options: PredictOptions) -> list[str]:
    """Raise one UsageError with all that is wrong with flags and files; return the table's columns to keep."""
    problems = Problems()
    source, target = Path(options.input), Path(options.output)
    kept: list[str] = []
    problems.run(check_name, options.model)
    fault = file_fault(source)
    if fault:
        problems.add(f"--input: {fault}")
    else:
        names = problems.run(column_names, source) or []
        wanted = [options.input_col, *([options.language_col] if options.language_col else [])]
        if names:
            fault = columns_fault(str(source), names, wanted, "Name them with --input-col and --language-col")
            if fault:
                problems.add(fault)
            # A column comes out once, however often it is named.
            kept = names if options.keep_cols is None else list(dict.fromkeys(options.keep_cols))
            fault = columns_fault(str(source), names, kept, "Name columns that it has with --keep-cols")
            if fault:
                problems.add(fault)
    review = None if options.review is None else Path(options.review)
    for flag, path in (("--output", target), *([("--review", review)] if review is not None else [])):
        if path.suffix.lower() in FOREIGN_SUFFIXES:
            problems.add(
                f"{flag} {path}: what is written is CSV or Parquet, not {path.suffix}: give it the ending .csv "
                "(spreadsheets open it, with all zeros where --for-spreadsheets is given)"
            )
        elif path.suffix.lower() in OPENERS:
            problems.add(f"{flag} {path}: what is written is not compressed: give it the ending .csv, and compress it")
        if path.exists() and (path.is_dir() or not options.overwrite):
            what = "is a folder: name a file" if path.is_dir() else "is there already: --overwrite replaces it"
            problems.add(f"{flag} {path} {what}")
        problems.run(check_folder, path.parent, flag)
        if path.resolve() == source.resolve():
            problems.add(f"{flag} {path} is the input itself: give another file")
    if review is not None and review.resolve() == target.resolve():
        problems.add(f"--review {review} is the output itself: give another file")
    check_numbers(vars(options), problems)
    if options.for_spreadsheets and is_parquet(target):
        problems.add("--for-spreadsheets is for CSV; a Parquet file keeps codes as text anyway")
    problems.raise_if_any()
    return kept


def read_descriptions(path: str) -> dict[str, str]:
    """Description of each code, from the columns system_code and desc of a table; the first of each code counts.

    Raises
    ------
    UsageError
        The table cannot be read or lacks one of them.
    """
    known: dict[str, str] = {}
    for chunk in read_chunks(path, ["system_code", "desc"]):
        for code, text in zip(chunk["system_code"].tolist(), chunk["desc"].tolist()):
            known.setdefault(code, text)
    return known


def predict(options: PredictOptions, processes: Processes) -> int:
    """The command: check, load the model, find the distinct texts, code them, write."""
    kept = check_options(options)
    descriptions = None if options.descriptions is None else read_descriptions(options.descriptions)
    loaded = load(options, processes, processes.device)
    known = known_languages(loaded, options.language_map)
    coder = make_coder(
        loaded,
        options.method,
        threshold=options.threshold,
        alternatives=options.top_k,
        autocast=Precision(processes.device, options.use_amp, options.amp_dtype).autocast,
    )
    clash = [name for name in _new_columns(coder, descriptions) if name in kept]
    if clash:
        raise UsageError(
            f"{options.input} has a column {clash[0]!r}, which the output needs for itself: rename it, or name the "
            f"columns to keep without it (--keep-cols)"
        )
    source, target = Path(options.input), Path(options.output)
    note = unused_languages(options, column_names(source), loaded)
    if note and processes.is_main:
        console.say(note)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.partial")
    task = _task(options, loaded, coder)
    processes.main_first("work", lambda: Work(folder, task))
    work = Work(folder, task)
    rows_file = work.rows_file if processes.is_main else Path("/dev/null")
    pairs, rows = collect_pairs(
        source, options.input_col, options.language_col, options.language or "unk", rows_file, known
    )
    refuse_strange(known, loaded, options)
    if not rows:
        raise UsageError(f"{source} has no rows: there is nothing below its header")

    code_pairs(pairs, coder, options.batch_size, work, processes, warn=console.say)
    processes.meet("coded")
    processes.main_first("output", lambda: _finish(options, coder, pairs, work, kept, descriptions, known.note()))
    return 0


def _finish(
    options: PredictOptions,
    coder: ModelCoder,
    pairs: Pairs,
    work: Work,
    kept: list[str],
    descriptions: Mapping[str, str] | None,
    note: str | None,
) -> None:
    """Write output and review from the work of all processes, and say what came of it."""
    every_code = work.results(len(pairs), coder)
    coded = coder.above_thresholds(every_code, pairs.languages)
    added = new_columns(coded, coder.method, descriptions, for_spreadsheets=options.for_spreadsheets)
    pair_of_row = np.memmap(work.rows_file, dtype=np.int32, mode="r")
    source, target = Path(options.input), Path(options.output)
    try:
        write_predictions(source, target, kept, pair_of_row, added, for_spreadsheets=options.for_spreadsheets)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror or error}. What is coded so far is kept in {work.folder}, "
            "and used when the same command is given again"
        ) from error
    blank = int((pair_of_row < 0).sum())
    lines = [
        f"{len(pair_of_row):,} rows coded ({len(pairs):,} distinct texts) by the method {coder.method}: {target}",
        *([] if note is None else [note]),
    ]
    if blank:
        lines.append(f"{blank:,} rows have no text in {options.input_col!r}, and no code")
    answers = coded.sets()
    empty = sum(rows for rows, found in zip(pairs.rows, answers) if not found)
    if empty:
        by_file = f"for {coder.loaded.thresholds_file} (--threshold 0 leaves out none)"
        enough = by_file if coder.stored.by_language else "(--threshold)"
        lines.append(f"{empty:,} rows have a text and no code: no code was sure enough {enough}")
    if coder.stored.stale:
        lines.append(f"Warning: {STALE_THRESHOLDS.format(coder.loaded.thresholds_file)}")
    # What the model thinks of, however sure it has to be: of rows that no code was sure enough for too.
    guesses = every_code if coder.method == GREEDY else coded.or_first(every_code)
    warning = _one_answer(guesses.sets(), coder)
    if warning:
        lines.append(warning)
    if options.review is not None:
        number = write_review(
            Path(options.review),
            pairs,
            pair_of_row,
            guesses,
            options.review_rows,
            for_spreadsheets=options.for_spreadsheets,
        )
        lines.append(
            f"{number:,} rows to check by hand: {options.review}. Correct the codes, tick the rows in the column "
            "'checked', and give the table to histocc evaluate and finetune.py"
        )
    console.say("\n".join(lines))
    work.remove()


def _one_answer(answers: list[tuple[str, ...]], coder: ModelCoder) -> str | None:
    """A warning where nearly all distinct texts get the same codes; None where they do not."""
    if len(answers) < _FEWEST_TEXTS:
        return None
    answer, share = same_answer(answers)
    if share < _ONE_ANSWER:
        return None
    instead = "use --method greedy" if coder.method == "flat" and coder.has_decoder else "train it longer"
    what = "head" if coder.method == "flat" else "model"
    return (
        f"Warning: {share:.0%} of the distinct texts get one and the same answer, {'&'.join(answer) or 'no code'}: "
        f"this {what} has learnt next to nothing. Do not use its codes; {instead}"
    )


def _new_columns(coder: ModelCoder, descriptions: Mapping[str, str] | None) -> list[str]:
    shape = (0, coder.alternatives, coder.max_codes)
    nothing = Coded(np.empty(shape, dtype=object), np.empty(shape), np.empty(shape[:2]))
    return list(new_columns(nothing, coder.method, descriptions))


def _task(options: PredictOptions, loaded: LoadedModel, coder: ModelCoder) -> dict[str, Any]:
    """All that the predictions depend on."""
    status = Path(options.input).stat()
    return {
        "input": str(Path(options.input).absolute()),
        "state": [status.st_size, status.st_mtime_ns],
        "columns": [options.input_col, options.language_col, options.language],
        "language_map": None if options.language_map is None else read_language_map(options.language_map),
        "model": loaded.identity,
        # Which a file of the original does not say itself: flags and files beside it do.
        **describe_model(loaded.system, loaded.settings),
        "coder": coder.identity,
        "batch_size": options.batch_size,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv`; return the exit code."""
    return cli.run_script(predict, PredictOptions.from_namespace(build_parser().parse_args(argv)))
