"""`report.html`: a run on one page that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histocc.report.charts import Curve, chart
from histocc.report.facts import RunFacts
from histocc.report.markup import (
    NOTHING,
    Markup,
    code,
    command,
    escaped,
    folded,
    listed,
    paragraph,
    percent,
    quoted,
    section,
    table,
    whole,
)
from histocc.report.next_steps import next_steps
from histocc.report.record import RunRecord
from histocc.report.verdict import verdict
from histocc.training.reporting import HEAD_NAMES

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #555555; --line: #d0d0d0; --paper: #ffffff; --tint: #f4f4f1; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; border-bottom: 1px solid var(--line); padding-bottom: 0.2rem; }
p { margin: 0.5rem 0; max-width: 45rem; }
.lead { font-size: 1.1rem; }
.soft, figcaption span, .legend { color: var(--soft); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.9em; }
p, li, caption, summary, code, .text, td, th, dt, dd { overflow-wrap: anywhere; }
pre { background: var(--tint); padding: 0.6rem; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; max-width: 48rem; margin: 0.8rem 0; font-size: 0.92rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.4rem; border-bottom: 1px solid var(--line); }
th { font-weight: 500; }
thead th { color: var(--soft); overflow-wrap: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.scroll { overflow-x: auto; }
td ul { margin: 0; padding-left: 1.3rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
figcaption span { font-weight: 400; }
.chart { width: 100%; height: auto; display: block; }
.chart text { font-size: 12px; fill: #555555; }
.grid { stroke: #e3e3e3; stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { list-style: none; margin: 0; padding: 0; font-size: 0.9rem;
  display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; }
.key { width: 28px; height: 10px; vertical-align: middle; }
.key line { stroke-width: 2.5; }
details { margin: 0.6rem 0; }
summary { cursor: pointer; color: #1b5fa8; padding: 0.2rem 0; }
dl { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: 0.15rem 1rem;
  margin: 0.5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
@media (max-width: 30rem) { th, td { padding: 0.25rem; } table { font-size: 0.85rem; } }
@media print { details { display: block; } }
"""

_FIGURES = ("exact_set_acc", "precision", "recall", "f1")
_COLUMNS = ("Rows", "Exact sets", "Precision", "Recall", "F1")
_EXPLAINED = {
    "decoded": "Decoded: codes written token by token, as histocc predict gives them; this is what a user gets.",
    "teacher_forced": "Teacher-forced: each token is predicted from the true ones before it. It flatters the model.",
    "flat": "Flat head: the codes with a probability above one half.",
}
# Charts: title, unit, and (name, column, factor) of each curve.
_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str, float], ...]], ...] = (
    ("Loss", "lower is better", (("training", "train_loss", 1), ("validation", "val_loss", 1))),
    ("Validation loss of the decoder", "unweighted", (("decoder", "val_loss_seq2seq", 1),)),
    ("Validation loss of the flat head", "unweighted", (("flat head", "val_loss_linear", 1),)),
    (
        "Exact sets of codes",
        "percent of rows",
        (
            ("decoded", "decoded_exact_set_acc", 1),
            ("teacher-forced", "exact_set_acc", 1),
            ("flat head", "flat_exact_set_acc", 1),
            ("training, flat head", "train_acc", 100),
        ),
    ),
    (
        "F1 over codes",
        "percent",
        (("decoded", "decoded_f1", 1), ("teacher-forced", "f1", 1), ("flat head", "flat_f1", 1)),
    ),
    (
        "The original's accuracies",
        "percent, teacher-forced",
        (("seq_acc", "seq_acc", 1), ("token_acc", "token_acc", 1)),
    ),
    ("Learning rate", "of the next step", (("learning rate", "lr", 1),)),
    ("Throughput", "training rows a second", (("rows a second", "rows_per_second", 1),)),
)


def report_page(facts: RunFacts, record: RunRecord, details: Mapping[str, Any] | None) -> str:
    """The whole page.

    Parameters
    ----------
    facts
        What the run is.
    record
        Its figures; there is at least one evaluation.
    details
        Those of the last evaluation by group, see `RunRecord.details`; None where there are none.
    """
    last = record.rows[-1]
    step = int(last["step"])
    heads = {} if details is None else details["heads"]
    test = record.test()
    name = record.folder.resolve().name
    done = f"Step {step:,} of {facts.total_steps:,}" if facts.total_steps else f"Step {step:,}"
    sections = [
        f"<h1>{escaped(name)}</h1>",
        paragraph(f"{done}; drawn {time.strftime('%Y-%m-%d %H:%M')} by histocc {facts.versions.get('histocc', '')}."),
        *(Markup(f'<p class="lead">{escaped(sentence)}</p>') for sentence in verdict(facts, record.rows, heads)),
        section("How good it is", "" if test is None else paragraph(tested(test)), *_tables(heads)),
        section(
            "How it learnt",
            _charts(record.rows),
            folded("The last evaluations as a table", f'<div class="scroll" tabindex="0">{_log(record.rows)}</div>'),
        ),
        section("Codes that are confused", *_confused(details)),
        section("Codes that are hardly found", *_worst_covered(details)),
        section("What to run next", *_next_steps(facts, record.folder, step)),
        section("Settings", *_settings(facts)),
    ]
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escaped(name)}: {escaped(done)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def tested(test: Mapping[str, Any]) -> str:
    """What the rows set aside for testing say."""
    return (
        f"Of {test['rows']:,} rows set aside for testing, which played no part in the run, "
        f"{percent(test['exact_set_acc'])} % get exactly their codes (the best weights)."
    )


def _figures(group: Mapping[str, Any]) -> list[str]:
    return [whole(group["rows"]), *(percent(group[name]) for name in _FIGURES)]


def _tables(heads: Mapping[str, Any]) -> list[Markup]:
    if not heads:
        return [paragraph("No figures by group of rows are on file for this evaluation.")]
    parts = [
        paragraph(
            "All figures are in percent, of validation rows. Exact sets are rows that get all their codes and no "
            "others; precision, recall and F1 are over codes."
        ),
        table(
            "All rows",
            ["", *_COLUMNS],
            [[HEAD_NAMES[head].capitalize(), *_figures(figures)] for head, figures in heads.items()],
            range(1, 6),
        ),
        *(paragraph(_EXPLAINED[head]) for head in heads),
    ]
    kinds = (
        ("by_description", "By description: training has it too (seen), or not (unseen)", "Description"),
        ("by_codes", "By number of true codes", "Codes"),
        ("by_language", "By language", "Language"),
    )
    for i, (head, figures) in enumerate(heads.items()):
        tables = []
        for kind, caption, column in kinds:
            groups = figures[kind]
            order = sorted(groups, key=lambda name: -groups[name]["rows"]) if kind == "by_language" else groups
            if groups:
                rows = [[quoted(name), *_figures(groups[name])] for name in order]
                tables.append(table(f"{caption} – {HEAD_NAMES[head]}", [column, *_COLUMNS], rows, range(1, 6)))
        joined = "\n".join(tables)
        parts.append(Markup(joined) if i == 0 else folded(f"The same, {HEAD_NAMES[head]}", joined))
    return parts


def _charts(rows: Sequence[Mapping[str, float]]) -> Markup:
    drawn = []
    for title, unit, columns in _CHARTS:
        curves = [
            Curve(name, [(row["step"], factor * row[column]) for row in rows if column in row])
            for name, column, factor in columns
        ]
        drawn.append(chart(title, unit, curves, from_zero="loss" not in title.lower()))
    return Markup('<div class="charts">\n' + "\n".join(filter(None, drawn)) + "\n</div>")


def _log(rows: Sequence[Mapping[str, float]]) -> Markup:
    columns = {
        "train_loss": "Training loss",
        "val_loss": "Validation loss",
        "decoded_exact_set_acc": "Decoded, %",
        "exact_set_acc": "Teacher-forced, %",
        "flat_exact_set_acc": "Flat head, %",
    }
    there = {column: name for column, name in columns.items() if any(column in row for row in rows)}
    shown = [[whole(row["step"]), *(_logged(row, column) for column in there)] for row in rows[-20:]]
    return table("Exact sets and losses", ["Step", *there.values()], shown, range(1, len(there) + 1))


def _logged(row: Mapping[str, float], column: str) -> str:
    if column.endswith("acc"):
        return percent(row.get(column))
    return f"{row[column]:.4g}" if column in row else NOTHING


def _whose(details: Mapping[str, Any] | None) -> Markup | None:
    if details is None or details["mistakes"] is None:
        return None
    head = details["mistakes"]["head"]
    rows = details["heads"].get(head, {}).get("rows")
    return paragraph(f"From the {HEAD_NAMES[head]} codes of {rows:,} rows." if rows is not None else "")


def _confused(details: Mapping[str, Any] | None) -> list[Markup]:
    whose = _whose(details)
    pairs = [] if whose is None else details["mistakes"]["confused"]
    if not pairs:
        return [paragraph("No pair of codes was confused in this evaluation, or nothing was predicted.")]
    rows = [
        [code(pair["true"]), code(pair["predicted"]), whole(pair["rows"]), listed(pair["examples"])] for pair in pairs
    ]
    columns = ["True code", "Predicted", "Rows", "Examples"]
    return [whose, table("The pairs that are confused most often", columns, rows, [2])]


def _worst_covered(details: Mapping[str, Any] | None) -> list[Markup]:
    whose = _whose(details)
    codes = [] if whose is None else details["mistakes"]["worst_covered"]
    if not codes:
        return [paragraph("No code was missed in this evaluation, or none were counted.")]
    rows = [[code(each["code"]), whole(each["found"]), whole(each["rows"]), listed(each["examples"])] for each in codes]
    columns = ["Code", "Found", "Rows", "Examples that were missed"]
    caption = "The codes of which the smallest share of rows is found, the most frequent first"
    return [whose, table(caption, columns, rows, [1, 2])]


def _next_steps(facts: RunFacts, folder: Path, step: int) -> list[Markup]:
    return [part for what, line in next_steps(facts, folder, step) for part in (paragraph(f"{what}:"), command(line))]


def _settings(facts: RunFacts) -> list[Markup]:
    def pairs(values: Mapping[str, Any]) -> Markup:
        items = "\n".join(f"<dt>{escaped(name)}</dt><dd>{escaped(shown(value))}</dd>" for name, value in values.items())
        return Markup(f"<dl>\n{items}\n</dl>")

    files = {f"{what} files": ", ".join(names) for what, names in facts.tables.items()}
    languages = {"languages": ", ".join(f"{name} {n:,}" for name, n in facts.languages.items())}
    parts = [pairs({**facts.header, **files, **(languages if facts.languages else {})})]
    if facts.changed:
        parts += [
            paragraph("Flags that differ from the defaults:"),
            pairs({flag_name(name): value for name, value in facts.changed.items()}),
        ]
    parts.append(folded("All flags", pairs({flag_name(name): value for name, value in sorted(facts.settings.items())})))
    parts.append(folded("Versions", pairs(facts.versions)))
    return parts


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def shown(value: Any) -> str:
    """The value of a setting, for people."""
    if value is None or value is False:
        return "none" if value is None else "off"
    if value is True:
        return "on"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
