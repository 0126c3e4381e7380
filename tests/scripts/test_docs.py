"""The commands and programs of docs/predict.md, run one after the other as they stand there."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

import finetune
import train_mixer
from histocc.__main__ import main
from tests.scripts.documented import DOCS, ROOT, run

BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (DOCS / "predict.md").read_text(encoding="utf-8"), flags=re.DOTALL)
SMALL = ["--encoder", "demo", "--max-len", "48", "--max-steps", "2"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder as the guide has it: the demo's run and one of a table of one's own, which here are a few steps long."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "histocc" / "Data", tmp_path / "histocc" / "Data")
    assert train_mixer.main(["--demo", "--max-steps", "2"]) == 0
    rows = [f"text {i},{10000 + i % 4},{'en' if i % 2 else 'da'}" for i in range(40)]
    Path("table.csv").write_text("\n".join(["occ1,code,lang", *rows]) + "\n")
    flags = ["--dataset", "table.csv", "--language-col", "lang", "--target-cols", "code", "--save-dir", "runs/mine"]
    assert finetune.main([*flags, *SMALL]) == 0
    argv = ["predict", "--model", "runs/mine", "--input", "table.csv", "--language-col", "lang", "--output", "c.csv"]
    assert main([*argv, "--review", "review.csv", "--review-rows", "10"]) == 0
    return tmp_path


def correct(path):
    """As somebody would who corrects the codes of a review: an untrained model's do not fit its own table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row.update(code_1=f"{10000 + i % 4}", checked="x", **({"code_2": ""} if "code_2" in row else {}))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_every_command_of_the_guide_runs(home, capsys):
    ran = 0
    correct(home / "review.csv")
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "docs/predict.md", "exec"), {})
            continue
        for line in text.strip().splitlines():
            if "--input demo-review.csv" in line:
                correct(home / "demo-review.csv")
            words = [word for word in shlex.split(line) if word != "python"]
            small = SMALL if "--initial-checkpoint" not in words else SMALL[2:]
            assert run(words, *small) == 0, (line, capsys.readouterr().err)
            ran += 1
    assert ran >= 7
    made = {"demo-coded.csv", "demo-for-excel.csv", "demo-judged", "demo-review.csv", "my-model", "more.csv"}
    assert made <= {path.name for path in home.iterdir()}
    with Path("runs/mine-2/data_train.csv").open(encoding="utf-8") as file:
        again = len(list(csv.DictReader(file)))
    with Path("runs/mine/data_train.csv").open(encoding="utf-8") as file:
        assert again == len(list(csv.DictReader(file))) + 10
    for name in ("data_val.csv", "key.csv"):
        assert Path("runs/mine-2", name).read_text() == Path("runs/mine", name).read_text()
