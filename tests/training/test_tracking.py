"""Tracking with Weights & Biases: optional, and no reason for a run to end."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from histocc.training.reporting import LogFile
from tests.running import Running, script

PACKAGE = """
import json
run = None

class errors:
    class Error(Exception): pass

class util:
    generate_id = staticmethod(lambda: "abc123")

def init(mode="online", **options):
    global run
    note({"init": mode, "id": options["id"], "resume": options["resume"], "project": options["project"]})
    if REACHABLE or mode == "offline":
        run = object()
    else:
        raise errors.Error("Run initialization has timed out after 90.0 sec.")

def log(row, step):
    note({"step": step, "val_loss": row["val_loss"]})

def note(entry):
    with open(RECORDS, "a") as file:
        file.write(json.dumps(entry) + "\\n")
"""


def tracked(argv: list[str], folder: str) -> int:
    """Target: a run that finds the package in `folder`."""
    sys.path.insert(0, folder)
    return script(argv)


def without_wandb(argv: list[str]) -> int:
    """Target: a run on a machine without the package."""
    sys.modules["wandb"] = None
    return script(argv)


@pytest.mark.parametrize("reachable", [True, False])
def test_figures_are_tracked_online_or_else_offline(reachable, argv, tmp_path):
    records = tmp_path / "records"
    package = f"REACHABLE, RECORDS = {reachable}, {str(records)!r}\n" + PACKAGE
    (tmp_path / "wandb.py").write_text(package)
    flags = ["--log-wandb", "--wandb-project-name", "mine", "--eval-interval", 2]
    for last_step in (2, 4):
        command = argv(tmp_path / "run", *flags, "--max-steps", last_step)
        run = Running(tracked, command, str(tmp_path), log=tmp_path / f"{last_step}.log")
        assert run.wait() == 0, run.output
        warning = (
            "Warning: Weights & Biases cannot be reached (Run initialization has timed out after 90.0 sec.); "
            "tracking goes on offline"
        )
        assert run.output.count(warning) == (not reachable)
    notes = [json.loads(line) for line in records.read_text().splitlines()]
    started = {"id": "abc123", "resume": "allow", "project": "mine"}
    modes = ["online"] if reachable else ["online", "offline"]
    assert [note for note in notes if "init" in note] == [{"init": mode, **started} for mode in modes * 2]
    assert [note["step"] for note in notes if "step" in note] == [2, 4]


def test_without_the_package_the_figures_go_to_the_log_alone(argv, tmp_path):
    run = Running(without_wandb, argv(tmp_path / "run", "--log-wandb", "--max-steps", 1), log=tmp_path / "log")
    assert run.wait() == 0, run.output
    assert run.output.count("--log-wandb is given but wandb is not installed (pip install 'histocc[wandb]')") == 1
    assert Path(tmp_path / "run" / "logs.csv").exists()


def test_a_figure_that_is_undefined_is_an_empty_cell_and_read_as_such(tmp_path):
    log = LogFile(tmp_path / "logs.csv")
    log.append({"step": 1, "val_loss": 0.5, "precision": float("nan")})
    log.append({"step": 2, "val_loss": float("nan"), "precision": 50.0, "lr": 0.1})
    assert log.path.read_text() == "step,val_loss,precision,lr\n1,0.5,,\n2,,50.0,0.1\n"
    assert log.numbers("step") == [(1.0,), (2.0,)]
    (first, _), (_, second) = log.numbers("val_loss", "precision")
    assert (first, second) == (0.5, 50.0)
    assert all(math.isnan(value) for value in (log.numbers("precision")[0][0], log.numbers("val_loss")[1][0]))
