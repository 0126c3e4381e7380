"""`README.md`: the card of a model, for whoever finds it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from histocc.report.facts import RunFacts
from histocc.report.folder_files import describe_files
from histocc.report.markup import percent, visible
from histocc.report.next_steps import evaluate_command, predict_command
from histocc.report.page import flag_name, shown, tested
from histocc.training.reporting import HEAD_NAMES

# By this line a card is known for one that may be written again.
MARK = "<!-- Written by histocc after each evaluation; without this line it stays as it is. -->"
CITATION = """\
Dahl, C. M., Johansen, T., Vedel, C. (2024): Breaking the HISCO Barrier: Automatic Occupational Standardization with
OccCANINE. arXiv:2402.13604.

```bibtex
@article{dahl2024breaking,
  title = {Breaking the {HISCO} Barrier: Automatic Occupational Standardization with {OccCANINE}},
  author = {Dahl, Christian M{\\o}ller and Johansen, Torben and Vedel, Christian},
  journal = {arXiv preprint arXiv:2402.13604},
  year = {2024}
}
```
"""
_MOST_NAMED = 40
_FIGURES = ("exact_set_acc", "precision", "recall", "f1")
_COLUMNS = ("rows", "exact sets", "precision", "recall", "F1")


def model_card(
    facts: RunFacts,
    details: Mapping[str, Any] | None,
    files: set[str],
    place: str,
    *,
    step: int | None = None,
    test: Mapping[str, Any] | None = None,
) -> str:
    """The card.

    Parameters
    ----------
    facts
        What the run was.
    details
        Figures of the evaluation of these weights, see `RunRecord.details`; None where there are none.
    files
        Names in the folder.
    place
        The folder, as commands name it.
    step
        Where the weights stand; None where that is not known.
    test
        Figures on rows that played no part in the run, see `RunRecord.test`; None where there are none.
    """
    parts = [
        f"---\nlibrary_name: histocc\ntags: [occupational coding, CANINE, {facts.system}]\n---",
        MARK,
        "# A model for occupational descriptions",
        _summary(facts, step),
        "## What it was trained on",
        _trained_on(facts),
        "## How it was trained",
        _how(facts),
        "## How good it is",
        _how_good(details, test, evaluate_command(place, facts.settings, facts.languages)),
        "## Use",
        _use(place, predict_command(place, facts.settings, facts.languages)),
        "## Files",
        "\n".join(f"- `{name}`: {what}" for name, what in describe_files(files)),
        "## Cite",
        CITATION + f"\nThe software: histocc {facts.versions.get('histocc', '')}".rstrip() + ".",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _summary(facts: RunFacts, step: int | None) -> str:
    what = {
        "mixer": "a CANINE encoder with a decoder that writes codes token by token, and a flat head",
        "flat": "a CANINE encoder with a flat head: yes or no to each code",
    }.get(facts.kind, "a CANINE encoder with a decoder that writes codes token by token")
    at = "" if step is None else f" These are the weights of step {step:,}."
    return f"Turns occupational descriptions into codes; {what}.{at}"


def _trained_on(facts: RunFacts) -> str:
    lines = [f"- coding system: {facts.system}, {facts.codes:,} codes, up to {facts.codes_a_row} a text"]
    lines += [f"- {what} files: {_named(names)}" for what, names in facts.tables.items() if names]
    lines += [f"- {what} rows: {n:,}" for what, n in facts.rows.items()] or ["- training rows: not noted"]
    languages = [f"{_cell(name)} {n:,}" if n else _cell(name) for name, n in facts.languages.items()]
    many = len(languages) - _MOST_NAMED
    listed = ", ".join(languages[:_MOST_NAMED]) + (f" and {many:,} more" if many > 0 else "")
    lines.append(f"- languages{' (training rows)' if any(facts.languages.values()) else ''}: {listed or 'not noted'}")
    return "\n".join(lines)


def _how(facts: RunFacts) -> str:
    lines = []
    if facts.command:
        lines += ["```bash", _line(facts.command).replace("```", ""), "```", ""]
    lines.append(f"- texts of up to {facts.max_len} characters, with the language in front")
    if facts.encoder:
        lines.append(f"- encoder: {_cell(facts.encoder)}")
    lines += [f"- {name}: {_cell(value)}" for name, value in facts.header.items() if name in _SAID]
    if facts.changed:
        flags = ", ".join(f"`{flag_name(name)}` {_cell(shown(value))}" for name, value in facts.changed.items())
        lines.append(f"- flags that differ from the defaults: {flags}")
    if facts.versions:
        lines.append("- versions: " + ", ".join(f"{name} {_cell(value)}" for name, value in facts.versions.items()))
    return "\n".join(lines)


# Of what a run says at its start, what a card repeats.
_SAID = ("steps", "batch size", "learning rate", "parameters", "device", "precision", "descriptions")


def _how_good(details: Mapping[str, Any] | None, test: Mapping[str, Any] | None, evaluate: str) -> str:
    judge = f"`{_line(evaluate).replace('`', '')}`"
    if not details or not details["heads"]:
        return f"{judge} says so for a table with known codes."
    heads = details["heads"]
    head, leading = next(iter(heads.items()))
    parts = [] if test is None else [tested(test)]
    parts += [
        f"On the validation rows, at step {details['step']:,}, in percent. *Exact sets* are rows that get all their "
        "codes and no others; precision, recall and F1 are over codes.",
        _table("head", ((HEAD_NAMES[name], figures) for name, figures in heads.items())),
    ]
    if "decoded" in heads:
        some = heads["decoded"]["rows"] < max(figures["rows"] for figures in heads.values())
        parts.append(
            f"*Decoded* is what `histocc predict` gives{', on a random part of the validation rows' * some}. "
            "*Teacher-forced* figures predict each token from the true ones before it, and flatter the model."
        )
    groups = [
        ("description", "by_description", {"seen": "seen in training", "unseen": "not seen in training"}),
        ("true codes", "by_codes", {}),
        ("language", "by_language", {}),
    ]
    for column, kind, names in groups:
        members = sorted(leading[kind].items(), key=lambda item: -item[1]["rows"]) if kind == "by_language" else None
        members = list(leading[kind].items()) if members is None else members
        if members:
            parts.append(f"By {column}, {HEAD_NAMES[head]}:")
            parts.append(_table(column, ((names.get(name, name), figures) for name, figures in members[:_MOST_NAMED])))
    if leading["by_description"].get("seen"):
        parts.append("A description that stands in the training data too is easily found: judge by the others.")
    parts.append(f"How good it is on other data says {judge}.")
    return "\n\n".join(parts)


def _table(first: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    lines = [f"| {first} | " + " | ".join(_COLUMNS) + " |", "|---" + "|---:" * len(_COLUMNS) + "|"]
    for name, figures in rows:
        values = [f"{figures['rows']:,}", *(percent(figures[figure]) for figure in _FIGURES)]
        lines.append(f"| {_cell(name)} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _use(place: str, predict: str) -> str:
    return f"""```bash
{_line(predict).replace("```", "")}
```

```python
from histocc import OccCANINE

model = OccCANINE({json.dumps(place, ensure_ascii=False)}, hf=False)
model.predict(["wine and spirit merchant"], lang="en")
```"""


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(f"`{_line(name).replace('`', '')}`" for name in names[:_MOST_NAMED]) + (
        f" and {more:,} more" if more > 0 else ""
    )


def _line(value: Any) -> str:
    return visible(" ".join(str(value).split())) or "(none)"


def _cell(value: Any) -> str:
    """A value in Markdown: one line, in which nothing is markup."""
    text = _line(value)
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", text)
