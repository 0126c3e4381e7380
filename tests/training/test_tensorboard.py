"""Figures of evaluations for TensorBoard."""

import csv

import pytest

from histocc.errors import UsageError
from histocc.training import tensorboard
from tests.running import Running, script


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_figures_of_every_evaluation_arrive_also_after_a_resume(argv, tmp_path):
    for steps in (4, 6):
        flags = ["--tensorboard", "--eval-interval", 2, "--max-steps", steps]
        run = Running(script, argv(tmp_path / "run", *flags), log=tmp_path / f"{steps}.log")
        assert run.wait() == 0, run.output
    shown = scalars(tmp_path / "run")
    with (tmp_path / "run" / "logs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [step for step, _ in shown["val_loss"]] == [2, 4, 6] == [int(row["step"]) for row in rows]
    for name in ("val_loss", "seq_acc", "lr"):
        assert [value for _, value in shown[name]] == pytest.approx([float(row[name]) for row in rows], rel=1e-6)


def test_without_the_package_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--tensorboard needs the package tensorboard: pip install 'histocc\[tensorbo"
    ):
        tensorboard.check_tensorboard()
