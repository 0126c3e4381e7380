"""The benchmark of training steps runs, agrees with the plain loop, and counts what it says."""

import csv

import pytest

from tests.benchmarks import training_step


def test_the_table_compares_with_the_plain_loop(tmp_path, capsys):
    path = tmp_path / "table.csv"
    sizes = {"rows": 300, "batch-size": 16, "max-len": 32, "rounds": 2, "seconds": 0.2, "eval-seconds": 0.2}
    argv = ["--device", "cpu", *(str(part) for name, value in sizes.items() for part in (f"--{name}", value))]
    rows = training_step.main([*argv, "--compile", "off", "--csv", str(path)])
    assert [row["setting"] for row in rows] == ["plain loop, float32", "float32", "float32, trimmed"]
    assert all(row["rows_per_second"] > 0 and row["tflops"] > 0 and row["eval_speedup"] > 0 for row in rows)
    assert rows[0]["speedup"] == 1
    with path.open() as file:
        assert [row["setting"] for row in csv.DictReader(file)] == [row["setting"] for row in rows]
    assert "x plain" in capsys.readouterr().out


def test_a_row_of_the_full_model_takes_36_7_gflop():
    assert training_step.flops_per_row("canine-s", 128) == pytest.approx(36.7e9, rel=0.01)


def test_the_choices_for_a_gpu():
    args = training_step.build_parser().parse_args(["--device", "cuda"])
    args = training_step.fill_in(args)
    assert (args.encoder, args.batch_size, args.max_len, args.rounds) == ("canine-s", 512, 128, 1)
    names = [setting.name for setting in training_step.settings_of(args)]
    assert names[:2] == ["plain loop, float32", "plain loop, bfloat16"]
    assert {"float32", "tf32", "bfloat16", "bfloat16, trimmed", "float32, compiled"} < set(names)
    first_compiled = next(name for name in names if "compiled" in name)
    assert first_compiled == "bfloat16, compiled"
