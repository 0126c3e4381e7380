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
from histocc.files.review import CHECKED, SAMPLE, is_review, is_ticked
from histocc.files.spreadsheet_text import unmarked_text
from histocc.files.tables import column_names, columns_fault, file_fault, read_chunks
from histocc.metrics.predictions import (
    best_threshold,
    count_sets,
    grouped_figures,
    interval,
    leading_digits,
    reliability,
    same_answer,
)
from histocc.metrics.row_groups import figures_of
from histocc.prediction.coder import Coded
from histocc.prediction.coders import DEFAULT_THRESHOLDS, ModelCoder, make_coder
from histocc.prediction.languages import KnownLanguages
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.loading import check_name
from histocc.prediction.pairs import NO_TEXT, Pairs
from histocc.prediction.review import RANDOM
from histocc.prediction.threshold_table import ALL_LANGUAGES, STALE_THRESHOLDS, Threshold, write_thresholds
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
    unused_languages,
)
from histocc.runs.parser import ScriptParser
from histocc.runs.ranges import check_numbers, real_number, whole_number
from histocc.training.precision import Precision

# Fewer rows of a language say too little about its threshold.
_FEWEST_ROWS = 30
# The column of descriptions in prepared files.
_TEXT = "occ1"
_NO_CODES = frozenset({"", "?"})
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


@dataclass
class Labelled:
    """A table with its true codes.

    Attributes
    ----------
    pairs
        Distinct pairs of text and language.
    pair_of_row
        Of each judged row, int32 [N].
    true
        The true codes of each judged row.
    samples
        In a review table, how each row was chosen; else empty.
    left_out
        Rows that are not judged, by reason.
    """

    pairs: Pairs
    pair_of_row: np.ndarray
    true: list[tuple[str, ...]]
    samples: list[str]
    left_out: dict[str, int]


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


def read_labelled(options: EvaluateOptions, loaded: LoadedModel, known: KnownLanguages) -> Labelled:
    """Read the table; codes that the system writes as class indices are turned into codes.

    Raises
    ------
    UsageError
        A column is missing, a cell holds no code, or no row can be judged.
    """
    source = Path(options.input)
    names = column_names(source)
    targets = list(options.target_cols or loaded.system.columns)
    fault = columns_fault(str(source), names, targets, "Name the columns of the true codes with --target-cols")
    if fault:
        raise UsageError(fault)
    holds_classes = loaded.system.holds_classes and set(targets) <= set(loaded.system.columns)
    reviewed = is_review(names)
    language_col = options.language_col or ("lang" if reviewed else None)
    columns = [options.input_col, *targets, *([language_col] if language_col else [])]
    pairs, numbers, true, samples = Pairs(known), [], [], []
    left_out = {"without a text": 0, "without a true code": 0, "not ticked": 0}
    for chunk in read_chunks(source, list(dict.fromkeys(columns + ([CHECKED, SAMPLE] if reviewed else [])))):
        own = pairs.number(chunk, options.input_col, language_col, options.language or "unk")
        codes = list(zip(*(chunk[name].tolist() for name in targets)))
        ticked = chunk[CHECKED].tolist() if reviewed else None
        sample = chunk[SAMPLE].tolist() if reviewed else None
        for i, (number, cells) in enumerate(zip(own.tolist(), codes)):
            found = tuple(
                _code(unmarked_text(cell.strip()), holds_classes, loaded, source, int(chunk.row_numbers[i]))
                for cell in cells
                if unmarked_text(cell.strip()) not in _NO_CODES
            )
            if ticked is not None and not is_ticked(ticked[i]):
                left_out["not ticked"] += 1
            elif number == NO_TEXT:
                left_out["without a text"] += 1
            elif not found:
                left_out["without a true code"] += 1
            else:
                numbers.append(number)
                true.append(found)
                if sample is not None:
                    samples.append(sample[i])
    if not true:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "it has no rows"
        raise UsageError(f"no row of {source} can be judged: {reasons}")
    return Labelled(pairs, np.array(numbers, dtype=np.int32), true, samples, {k: v for k, v in left_out.items() if v})


def _code(cell: str, holds_classes: bool, loaded: LoadedModel, source: Path, row: int) -> str:
    if not holds_classes:
        return cell
    try:
        return loaded.system.formatter.code_from_class(int(float(cell)))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{source}, row {row}: {cell!r} is no class index of {loaded.system.name}: {error}") from error


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
    table = read_labelled(options, loaded, known)
    coded = _code_all(table.pairs, coder, options.batch_size)
    result, thresholds = judge(options, table, coder, coded)
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


def judge(
    options: EvaluateOptions, table: Labelled, coder: ModelCoder, coded: Coded
) -> tuple[dict[str, Any], dict[str, Threshold]]:
    """All figures, and the best threshold of each language with enough rows.

    Parameters
    ----------
    options
        The flags.
    table
        The rows to judge.
    coder
        What made the predictions; its thresholds are applied.
    coded
        The predictions for all pairs, without thresholds; perhaps with more codes than a text may have.
    """
    languages = [table.pairs.languages[i] for i in table.pair_of_row.tolist()]
    top_k = _top_k(Coded(*(array[table.pair_of_row] for array in coded)), table.true, options.top_k)
    coded = coded.first(coder.loaded.system.formatter.max_num_codes)
    of_rows = Coded(*(array[table.pair_of_row] for array in coded))
    kept = coder.above_thresholds(of_rows, languages)
    predicted = kept.sets()
    counts = count_sets(predicted, table.true)
    groups: dict[str, Sequence[Any]] = {
        "language": languages,
        "codes": [min(len(set(codes)), 3) for codes in table.true],
    }
    if options.training_data:
        seen = _texts_of(options)
        groups["in_training"] = [
            "seen" if table.pairs.texts[i] in seen else "unseen" for i in table.pair_of_row.tolist()
        ]
    if table.samples:
        groups["sample"] = table.samples
    by = grouped_figures(counts, groups)
    by["codes"] = {{"3": "3+"}.get(name, name): figures for name, figures in by["codes"].items()}
    exact = counts[:, 1].astype(bool)
    result: dict[str, Any] = {
        "model": options.model,
        "table": options.input,
        "method": coder.method,
        **figures_of(counts.sum(axis=0)),
        "top_k": top_k,
        "left_out": table.left_out,
        "by": by,
        "reliability": reliability(of_rows.confidence[:, 0], exact),
    }
    digits = _hierarchy(table.true)
    if digits:
        result["by"]["leading_digits"] = {
            str(n): figures_of(
                count_sets(
                    [leading_digits(codes, n) for codes in predicted],
                    [leading_digits(codes, n) for codes in table.true],
                ).sum(axis=0)
            )
            for n in range(1, digits + 1)
        }
    if table.samples:
        at_random = [i for i, sample in enumerate(table.samples) if sample == RANDOM]
        low, high = interval(int(exact[at_random].sum()), len(at_random))
        share = 100 * float(exact[at_random].mean()) if at_random else float("nan")
        result["accuracy_of_the_source"] = {"rows": len(at_random), "right": share, "from": low, "to": high}
    answer, share = same_answer(coded.sets() if coder.method != "flat" else _first_codes(coded))
    result["most_frequent_answer"] = {"codes": "&".join(answer), "share_of_texts": 100 * share}
    result["unknown_codes"] = _unknown_codes(table.true, coder.loaded.system.codes)
    found = _thresholds(of_rows, table.true, languages)
    others: dict[str, Mapping[str, float]] = {}
    if coder.stored.by_language:
        others["all rows, without thresholds.csv"] = coder.usual
    if options.thresholds and found:
        others["all rows, with the new thresholds"] = {
            language: threshold.threshold for language, threshold in found.items()
        }
    result["with_other_thresholds"] = {
        name: figures_of(count_sets(coder.above_thresholds(of_rows, languages, them).sets(), table.true).sum(axis=0))
        for name, them in others.items()
    }
    return result, found


def _unknown_codes(true: Sequence[tuple[str, ...]], known: Sequence[str] | None) -> dict[str, Any]:
    """True codes that a model with these codes cannot give: how many, in how many rows, and one of them."""
    if known is None:
        return {"codes": 0, "rows": 0, "example": None, "meant": None}
    codes = set(known)
    lengths = {len(code) for code in codes}
    unknown = sorted({code for row in true for code in row} - codes)
    meant = {code: full for code in unknown for n in lengths if (full := code.zfill(n)) in codes}
    example = next(iter(meant), unknown[0] if unknown else None)
    return {
        "codes": len(unknown),
        "rows": sum(not codes.issuperset(row) for row in true),
        "example": example,
        "meant": meant.get(example),
    }


def _first_codes(coded: Coded) -> list[tuple[str, ...]]:
    return [(code,) for code in coded.codes[:, 0, 0].tolist()]


def _texts_of(options: EvaluateOptions) -> set[str]:
    """The descriptions of the tables that were trained on, which have them in `occ1` once they are prepared."""
    texts: set[str] = set()
    for path in options.training_data or ():
        prepared = options.training_col is None and _TEXT in column_names(path)
        column = _TEXT if prepared else options.training_col or options.input_col
        for chunk in read_chunks(path, [column]):
            texts.update(chunk[column].tolist())
    return texts


def _top_k(coded: Coded, true: Sequence[tuple[str, ...]], k: int) -> dict[str, float]:
    """Share of rows, in percent, whose true codes are all among the first k codes that the model thinks of."""
    ordered = coded.codes.reshape(len(true), -1).tolist()
    found = [set(codes) <= set(list(dict.fromkeys(filter(None, row)))[:k]) for row, codes in zip(ordered, true)]
    return {"k": k, "all_codes_found": 100 * float(np.mean(found))}


def _hierarchy(true: Sequence[tuple[str, ...]]) -> int | None:
    """Digits of the codes where all have the same number of them; None where the system is no hierarchy of digits."""
    distinct = {code for codes in true for code in codes if not code.startswith("-")}
    lengths = {len(code) for code in distinct}
    if len(lengths) != 1 or not all(code.isascii() and code.isdigit() for code in distinct):
        return None
    return lengths.pop()


def _thresholds(coded: Coded, true: Sequence[tuple[str, ...]], languages: Sequence[str]) -> dict[str, Threshold]:
    """The best threshold over all rows, and for each language with enough of them."""
    codes = coded.codes[:, 0]
    right = np.array([[code in wanted for code in row] for row, wanted in zip(codes.tolist(), map(set, true))])
    there = np.isfinite(coded.code_confidence[:, 0])
    numbers = np.array([len(set(wanted)) for wanted in true])
    found = {}
    names = np.array(languages, dtype=object)
    for language in (ALL_LANGUAGES, *sorted(set(languages))):
        rows = np.ones(len(true), dtype=bool) if language == ALL_LANGUAGES else names == language
        if rows.sum() >= _FEWEST_ROWS:
            cells = there & rows[:, None]
            threshold, f1 = best_threshold(coded.code_confidence[:, 0][cells], right[cells], int(numbers[rows].sum()))
            found[language] = Threshold(threshold, f1, int(rows.sum()))
    return found


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    groups = [
        {"by": kind, "group": name, **figures}
        for kind, members in {"all": {"": figures_of_result(result)}, **result["by"]}.items()
        for name, figures in members.items()
    ]
    for name, content in (
        ("groups.csv", _csv(groups)),
        ("reliability.csv", _csv(result["reliability"])),
        ("evaluation.json", json_text(result)),
    ):
        write_atomically(folder / name, lambda file, content=content: file.write(content.encode()))


def figures_of_result(result: Mapping[str, Any]) -> dict[str, float]:
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
    cells = [("", "rows", "exact sets", "precision", "recall", "F1"), _cells("all rows", figures_of_result(result))]
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
