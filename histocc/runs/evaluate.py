"""`histocc evaluate`: how good a model is on a table whose codes are known."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histocc.errors import Problems, UsageError
from histocc.files import console, run_folder
from histocc.files.atomic import write_atomically
from histocc.files.folders import check_folder
from histocc.files.json_files import json_text
from histocc.files.tables import column_names, columns_fault, file_fault
from histocc.prediction.coder import Coded
from histocc.prediction.coders import DEFAULT_THRESHOLDS, ModelCoder, make_coder
from histocc.prediction.judging import judge
from histocc.prediction.labelled import Labelled, read_labelled, texts_of
from histocc.prediction.loading import check_name
from histocc.prediction.pairs import Pairs
from histocc.prediction.threshold_table import STALE_THRESHOLDS, write_thresholds
from histocc.prediction.work import ShrinkingBatches
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
from histocc.training.precision import Precision

_MOST_SHOWN = 10
# What the groups of a kind are called where people read it.
_GROUP: Mapping[str, Callable[[str], str]] = {
    "language": "language {}".format,
    "codes": lambda name: f"{name} code{'s' * (name != '1')}",
    "in_training": "text {} in training".format,
    "sample": "sample {}".format,
    "leading_digits": lambda name: f"first {name} digits" if name != "1" else "first digit",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(TableOptions):
    """The flags of `histocc evaluate`; names are those of the flags."""

    training_data: list[str] | None = None
    training_col: str | None = None
    top_k: int = 5
    thresholds: bool = True


def build_parser() -> ScriptParser:
    """The command line."""
    parser = ScriptParser(
        "histocc evaluate",
        description="Judge a model on a table whose codes are known.",
        needs="--model FOLDER --input FILE --output FOLDER",
        groups=GROUPS,
        examples="  histocc evaluate --model runs/mine --input test.csv --target-cols code_1 --output judged",
        later=LATER,
    )
    add_text_flags(parser)
    parser.flag(
        TABLE,
        "--target-cols",
        nargs="+",
        default=None,
        metavar="COLUMN",
        help="columns of the true codes (the model's own)",
    )
    parser.flag(
        TABLE,
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for evaluation.json, groups.csv and reliability.csv",
    )
    parser.flag(TABLE, "--overwrite", action="store_true", help="replace an evaluation that is there")
    parser.flag(
        TABLE,
        "--training-data",
        nargs="+",
        default=None,
        metavar="FILE",
        help="tables that were trained on: tells texts seen and unseen apart",
    )
    parser.flag(
        TABLE,
        "--training-col",
        default=None,
        metavar="COLUMN",
        help="their column of descriptions (occ1, else --input-col)",
    )
    add_model_flags(parser, target_cols=False)
    add_method_flags(parser)
    parser.flag(ANSWER, "--threshold", type=real_number, default=None, metavar="SHARE", help="as for histocc predict")
    parser.flag(
        ANSWER,
        "--top-k",
        type=whole_number,
        default=5,
        metavar="NUMBER",
        help="flat, full: how many of the best codes count as found",
    )
    parser.flag(
        ANSWER,
        "--thresholds",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the thresholds with the best F1 beside the model (thresholds.csv), where histocc predict uses them",
    )
    return parser


def check_options(options: EvaluateOptions) -> None:
    """Raise one UsageError with all that is wrong with flags and files, as far as it shows without the model."""
    problems = Problems()
    problems.run(check_name, options.model)
    columns = [options.input_col, *([options.language_col] if options.language_col else [])]
    _check_columns(problems, "--input", options.input, columns, "Name them with --input-col and --language-col")
    for path in options.training_data or ():
        columns = [options.training_col] if options.training_col else []
        _check_columns(problems, "--training-data", path, columns, "Name it with --training-col")
    folder = Path(options.output)
    problems.run(check_folder, folder, "--output")
    if (folder / "evaluation.json").exists() and not options.overwrite:
        problems.add(f"{folder / 'evaluation.json'} is there already: --overwrite replaces it")
    check_numbers(vars(options), problems)
    problems.raise_if_any()


def _check_columns(problems: Problems, flag: str, path: str, wanted: Sequence[str], advice: str) -> None:
    fault = file_fault(Path(path))
    if fault is None:
        names = problems.run(column_names, path)
        fault = None if names is None else columns_fault(str(path), names, wanted, advice)
    if fault:
        problems.add(f"{flag}: {fault}")


def evaluate(options: EvaluateOptions, processes: Processes) -> int:
    """The command: check, load the model, read the table, code its texts, judge, write."""
    if processes.world_size > 1:
        raise UsageError("histocc evaluate runs in one process: start it without torchrun")
    check_options(options)
    loaded = load(options, processes, processes.device, own=["--target-cols"])
    coder = make_coder(
        loaded,
        options.method,
        threshold=options.threshold,
        ranked=options.top_k,
        autocast=Precision(processes.device, options.use_amp, options.amp_dtype).autocast,
    )
    known = known_languages(loaded, options.language_map)
    table = read_labelled(
        Path(options.input),
        options.input_col,
        options.target_cols,
        options.language_col,
        options.language or "unk",
        loaded,
        known,
    )
    refuse_strange(known, loaded, options)
    coded = _code_all(table.pairs, coder, options.batch_size)
    training = options.training_data
    figures, thresholds = judge(
        table,
        coder,
        coded,
        top_k=options.top_k,
        seen=texts_of(training, options.training_col, options.input_col) if training else None,
        try_new_thresholds=options.thresholds,
    )
    result = {"model": options.model, "table": options.input, **figures}
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, result)
    notes = (known.note(), None if table.samples else unused_languages(options, column_names(options.input), loaded))
    lines = [*_summary(result, table, coder, folder), *filter(None, notes)]
    if options.thresholds and thresholds and loaded.folder is not None:
        path = loaded.folder / run_folder.THRESHOLDS
        try:
            write_thresholds(path, coder.method, loaded.weights_mark, thresholds)
            usual = DEFAULT_THRESHOLDS.get(coder.method)
            lines.append(
                f"Thresholds with the best F1, which histocc predict and evaluate use from now on: {path}. With "
                "--threshold 0 no code is left out; without the file, "
                + ("none either" if usual is None else f"those that are no surer than {usual:g}")
            )
        except (OSError, UsageError) as error:
            # A colleague's model, perhaps: the figures are there all the same.
            reason = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else error
            lines.append(
                f"Warning: the thresholds with the best F1 are not kept. {reason} (--no-thresholds keeps none)"
            )
    console.say("\n".join(lines))
    return 0


def _code_all(pairs: Pairs, coder: ModelCoder, batch_size: int) -> Coded:
    from tqdm.auto import tqdm

    order = pairs.longest_first()
    shrinking = ShrinkingBatches(coder, console.say)
    lots = []
    with tqdm(total=len(order), unit=" texts", desc="Coding", disable=None) as bar:
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            lots.append(shrinking([pairs.texts[i] for i in part], [pairs.languages[i] for i in part]))
            bar.update(len(part))
    back = np.argsort(order)
    return Coded(*(np.concatenate(arrays)[back] for arrays in zip(*lots)))


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    groups = [
        {"by": kind, "group": name, **figures}
        for kind, members in {"all": {"": _of_all_rows(result)}, **result["by"]}.items()
        for name, figures in members.items()
    ]
    for name, content in (
        ("groups.csv", _csv(groups)),
        ("reliability.csv", _csv(result["reliability"])),
        ("evaluation.json", json_text(result)),
    ):
        write_atomically(folder / name, lambda file, content=content: file.write(content.encode()))


def _of_all_rows(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures over all rows."""
    return {name: result[name] for name in ("rows", "exact_set_acc", "precision", "recall", "f1")}


def _cells(name: str, figures: Mapping[str, float]) -> tuple[str, ...]:
    # Precision where nothing is predicted is undefined.
    shares = (figures[key] for key in ("exact_set_acc", "precision", "recall", "f1"))
    return (name, f"{figures['rows']:,}", *("-" if share != share else f"{share:.1f} %" for share in shares))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {n: "" if v != v else round(v, 4) if isinstance(v, float) else v for n, v in row.items()} for row in rows
        )
    return text.getvalue()


def _summary(result: Mapping[str, Any], table: Labelled, coder: ModelCoder, folder: Path) -> list[str]:
    cells = [("", "rows", "exact sets", "precision", "recall", "F1"), _cells("all rows", _of_all_rows(result))]
    cells += [_cells(name, figures) for name, figures in result["with_other_thresholds"].items()]
    for kind, members in result["by"].items():
        cells += [_cells(_GROUP[kind](name), figures) for name, figures in list(members.items())[:_MOST_SHOWN]]
        hidden = len(members) - _MOST_SHOWN
        if hidden > 0:
            cells.append((f"... and {hidden:,} more in groups.csv", *[""] * 5))
    file = coder.loaded.thresholds_file
    left_out = f", without codes that are not sure enough for {file}" if coder.stored.by_language else ""
    lines = [f"{result['table']}, coded by the method {coder.method}{left_out}:", *console.aligned(cells, numbers=True)]
    if table.left_out:
        lines.append("not judged: " + ", ".join(f"{count:,} rows {why}" for why, count in table.left_out.items()))
    unknown = result["unknown_codes"]
    if unknown["codes"]:
        meant = f" (it has {unknown['meant']!r}: are zeros lost?)" if unknown["meant"] else ""
        lines.append(
            f"Warning: {unknown['codes']:,} true codes, in {unknown['rows']:,} rows, are none of the model's codes, "
            f"such as {unknown['example']!r}{meant}: no answer to these rows can be right"
        )
    if coder.stored.stale:
        lines.append(f"Warning: {STALE_THRESHOLDS.format(file)}")
    source = result.get("accuracy_of_the_source")
    if source and source["rows"]:
        lines.append(
            f"Of {source['rows']:,} rows drawn at random {source['right']:.1f} % are right; of the whole source it is, "
            f"with 95 % confidence, {source['from']:.1f} to {source['to']:.1f} %."
        )
    lines.append(f"All figures are in {folder}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv`; return the exit code."""
    return cli.run_script(evaluate, EvaluateOptions.from_namespace(build_parser().parse_args(argv)))
