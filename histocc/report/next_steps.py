"""What to do next with a run and its model, as command lines that fit the run's own tables."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.report.facts import RunFacts

# What prepared files call them; the commands take the first of these without being told.
_TEXT, _LANGUAGE = "occ1", "lang"
# Flags that say how long a run is, the spelling to write first.
_LENGTHS = {"max_steps": ("--max-steps",), "num_epochs": ("--num-epochs", "--epochs")}


def predict_command(place: str | Path, settings: Mapping[str, Any], languages: Collection[str]) -> str:
    """The line that codes a table like those that a run was trained on.

    Parameters
    ----------
    place
        The run's folder, or another in which its model is.
    settings
        The flags in force, by name.
    languages
        Those of the training rows; empty where they are not known.
    """
    flags = _text_flags(settings, languages)
    return shlex.join(["histocc", "predict", "--model", str(place), "--input", "TABLE.csv", *flags]) + (
        " --output CODED.csv"
    )


def evaluate_command(place: str | Path, settings: Mapping[str, Any], languages: Collection[str]) -> str:
    """The line that judges the model on a table like those that it was trained on; arguments as for the other."""
    flags = _text_flags(settings, languages)
    return shlex.join(["histocc", "evaluate", "--model", str(place), "--input", "TABLE.csv", *flags]) + (
        " --output judged"
    )


def next_steps(facts: RunFacts, folder: Path, step: int) -> list[tuple[str, str]]:
    """What to do, and the command line for it."""
    steps = []
    if facts.command and step < facts.total_steps:
        steps.append(("Resume the run if it was interrupted", facts.command))
    arguments = (folder, facts.settings, facts.languages)
    steps += [
        ("Code a table", predict_command(*arguments)),
        (
            "Judge the model on a table whose codes are known (--target-cols names their columns where they are called "
            "otherwise than in training)",
            evaluate_command(*arguments),
        ),
        (
            "Make a folder of it that can be passed on",
            shlex.join(["histocc", "export", "--model", str(folder), "--output", "my-model"]),
        ),
    ]
    if facts.command and step >= facts.total_steps:
        steps.append(("Train longer, twice as long for example", _longer(facts)))
    return steps


def _text_flags(settings: Mapping[str, Any], languages: Collection[str]) -> list[str]:
    """The flags that say where texts and languages stand in a table like the run's."""
    column = settings.get("input_col") or _TEXT
    flags = [] if column == _TEXT else ["--input-col", column]
    if settings.get("language_col"):
        return [*flags, "--language-col", settings["language_col"]]
    language = settings.get("language") or UNKNOWN_LANGUAGE
    if language != UNKNOWN_LANGUAGE:
        return [*flags, "--language", language]
    of_prepared_files = "language_col" not in settings
    if of_prepared_files and (not languages or set(languages) - {UNKNOWN_LANGUAGE}):
        flags += ["--language-col", _LANGUAGE]
    return flags


def _longer(facts: RunFacts) -> str:
    """The run's own command, for twice as long."""
    name = "max_steps" if facts.settings.get("max_steps") else "num_epochs"
    number = facts.settings.get(name)
    if not isinstance(number, int):
        return facts.command
    words = shlex.split(facts.command)
    kept = [
        word
        for word, before in zip(words, ["", *words])
        if before not in _LENGTHS[name] and word.split("=")[0] not in _LENGTHS[name]
    ]
    return shlex.join([*kept, _LENGTHS[name][0], str(2 * number)])
