"""`--print-config` foretells what the run then does, and writes nothing."""

from __future__ import annotations

import csv
import importlib
import re

import pytest

from tests.running import small_encoder, table

FEW = ["--batch-size", "8", "--max-len", "32", "--log-interval", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    small_encoder(folder / "encoder")
    table(folder / "train.csv", 60)
    table(folder / "val.csv", 10)
    jobs = "farmer,61110", "smith,83110", "baker,77610"
    rows = [f"{job},{language}" for job in jobs for language in ("en", "da", "Danish", "se")]
    (folder / "own.csv").write_text("\n".join(["occ1,code,lang", *rows, "cooper,8,en"]) + "\n")
    return folder


def arguments(world, script, *more):
    data = {
        "train_mixer": ["--train-data", world / "train.csv", "--val-data", world / "val.csv"],
        "train": ["--train-data", world / "train.csv", "--model-name", "m"],
        "finetune": ["--dataset", world / "own.csv", "--target-cols", "code", "--language-col", "lang"],
    }[script]
    return [str(a) for a in (*data, "--encoder", world / "encoder", *FEW, *more)]


def plan(capsys, script, argv):
    """The lines that foretell, by their name, and all that is printed."""
    assert importlib.import_module(script).main([*argv, "--print-config"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    return dict(re.findall(r"^#   ([\w -]+?)  +(.*)$", out, re.MULTILINE)), out


@pytest.mark.parametrize(
    ("script", "flags", "foretold"),
    [
        (
            "train_mixer",
            ["--max-steps", "10", "--eval-interval", "4", "--save-interval", "5", "--save-each-epoch"],
            {"steps": "10 (8 an epoch)", "evaluations": "3, every 4 steps and at the end", "checkpoints": "3, "},
        ),
        (
            "train",
            ["--num-epochs", "2", "--save-interval", "3"],
            {"steps": "14 (7 an epoch)", "evaluations": "2, after each epoch and at the end", "checkpoints": "6, "},
        ),
    ],
)
def test_a_run_does_what_was_foretold(world, tmp_path, capsys, script, flags, foretold):
    argv = arguments(world, script, "--save-dir", tmp_path / "run", *flags, "--keep-checkpoints", "99")
    said, out = plan(capsys, script, argv)
    assert not (tmp_path / "run").exists()
    for name, start in foretold.items():
        assert said[name].startswith(start), (name, said)

    # What is printed is itself a file for --config.
    (tmp_path / "settings.yaml").write_text(out, encoding="utf-8")
    module = importlib.import_module(script)
    assert module.main(["--config", str(tmp_path / "settings.yaml")]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    rows = list(csv.DictReader((run / "logs.csv").open()))
    assert len(rows) == int(said["evaluations"].split(",")[0])
    saved = [path for path in run.glob("*.bin") if path.stem.isdigit()]
    assert len(saved) == int(said["checkpoints"].split(",")[0])
    megabytes = float(re.match(r"([\d.]+) MB", said["size on disk"])[1])
    # Beside its tensors a file has their names and places, a kilobyte or so for each.
    assert saved[0].stat().st_size / 1e6 - 0.2 < megabytes < saved[0].stat().st_size / 1e6

    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said, _ = plan(capsys, script, [*argv, "--max-steps", "20"])
    assert said["start"].startswith(f"step {rows[-1]['step']}, from ")
    assert int(said["evaluations"].split(",")[0]) < int(said["steps"].split(" ")[0])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_table_is_prepared_elsewhere(world, tmp_path, capsys):
    argv = arguments(world, "finetune", "--save-dir", tmp_path / "run", "--share-val", "0.25")
    argv_short = [*argv, "--allow-codes-shorter-than-block-size"]
    said, out = plan(capsys, "finetune", argv_short)
    assert (said["training rows"], said["validation rows"], said["classes"]) == ("10", "3", "4")
    assert "'Danish' as 'da'" in out
    assert all(line.startswith("# ") or re.match(r"\w+: ", line) for line in out.splitlines())
    assert importlib.import_module("finetune").main([*argv, "--print-config"]) == 2
    err = capsys.readouterr().err
    assert "row 14, column 'code': '8' (1 character" in err
    assert "rejected_rows.csv" not in err, "that list is gone with its folder"
    assert list(tmp_path.iterdir()) == []

    assert importlib.import_module("finetune").main([*argv_short, "--prepare-only"]) == 0
    capsys.readouterr()
    before = sorted((tmp_path / "run").iterdir())
    said, out = plan(capsys, "finetune", argv_short)
    assert said["training rows"] == "10"
    assert "are used as they are, with any edits" in out
    assert sorted((tmp_path / "run").iterdir()) == before
