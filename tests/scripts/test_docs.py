"""The commands and programs of docs/predict.md, run one after the other as they stand there."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import finetune
import train_mixer
from histocc.__main__ import main

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", GUIDE, flags=re.DOTALL)
SCRIPTS = {"histocc": main, "finetune.py": finetune.main, "train_mixer.py": train_mixer.main}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as the guide has it: the package's tables and the demo's run, which here is a few steps long."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "histocc" / "Data", home / "histocc" / "Data")
    flags = ["--max-steps", "2", "--save-dir", str(home / "runs" / "demo-train_mixer")]
    assert train_mixer.main(["--demo", *flags]) == 0
    return home


def tick(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        # As somebody would who corrects the codes: an untrained model's do not fit its own table.
        row.update(code_1=f"{10000 + i % 7}", code_2="", checked="x")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_every_command_of_the_guide_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["python"])
    ran = 0
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "docs/predict.md", "exec"), {})
            continue
        for line in text.strip().splitlines():
            words = shlex.split(line)
            words = words[1:] if words[0] == "python" else words
            if "--input review.csv" in line:
                tick(home / "review.csv")
            assert SCRIPTS[words[0]](words[1:]) == 0, (line, capsys.readouterr().err)
            ran += 1
    assert ran >= 7
    assert {"coded.csv", "coded-for-excel.csv", "judged", "review.csv", "my-model"} <= {p.name for p in home.iterdir()}
