"""The lines that say what to do next fit the run's own tables."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import finetune
from histocc.report.facts import RunFacts
from histocc.report.next_steps import next_steps, predict_command
from histocc.runs import evaluate, export, predict

PREPARED = {"train_data": ["a.csv"], "num_epochs": 9, "max_steps": None}
OWN = {"input_col": "Occupation text", "language": "unk", "language_col": None, "num_epochs": 5}


@pytest.mark.parametrize(
    ("settings", "languages", "flags"),
    [
        (PREPARED, {"da", "en"}, {"input_col": "occ1", "language_col": "lang", "language": None}),
        (PREPARED, set(), {"language_col": "lang"}),
        (PREPARED, {"unk"}, {"language_col": None}),
        (OWN, {"unk"}, {"input_col": "Occupation text", "language_col": None, "language": None}),
        ({**OWN, "language": "da"}, {"da"}, {"language": "da", "language_col": None}),
        ({**OWN, "language_col": "språk"}, {"da"}, {"language_col": "språk", "language": None}),
    ],
)
def test_a_table_like_the_runs_own_is_read(settings, languages, flags):
    words = shlex.split(predict_command("runs/my parish", settings, languages))
    options = predict.build_parser().parse_args(words[2:])
    assert options.model == "runs/my parish"
    assert {name: getattr(options, name) for name in flags} == flags


def facts(command: str, **settings) -> RunFacts:
    return RunFacts("mixer", "own", 3, 1, 48, command=command, total_steps=100, settings={**OWN, **settings})


def test_each_line_is_understood():
    parsers = {"predict": predict, "evaluate": evaluate, "export": export}
    for step in (50, 100):
        lines = [line for _, line in next_steps(facts("python finetune.py --dataset t.csv"), Path("runs/a b"), step)]
        assert len(lines) == 4
        for line in lines:
            words = shlex.split(line)
            if words[0] == "histocc":
                parsers[words[1]].build_parser().parse_args(words[2:])


@pytest.mark.parametrize(
    ("command", "settings", "name", "number"),
    [
        ("python finetune.py --dataset t.csv", {}, "num_epochs", 10),
        ("python finetune.py --epochs 5 --dataset t.csv", {}, "num_epochs", 10),
        ("python finetune.py --dataset t.csv --num-epochs=5", {}, "num_epochs", 10),
        ("python finetune.py --max-steps 70 --dataset t.csv", {"max_steps": 70}, "max_steps", 140),
    ],
)
def test_a_complete_run_is_made_longer(command, settings, name, number):
    assert ("Resume the run if it was interrupted", command) in next_steps(facts(command, **settings), Path("a"), 50)
    (line,) = [line for what, line in next_steps(facts(command, **settings), Path("a"), 100) if "longer" in what]
    words = shlex.split(line)
    options = finetune.build_parser().parse_args(words[2:])
    assert getattr(options, name) == number
    assert options.dataset == "t.csv"
    assert sum("epochs" in word or "max-steps" in word for word in words) == 1
