"""Signals: the first saves and ends at the next step, in good order; a second one ends at once."""

from __future__ import annotations

import signal
import time

import pytest
import torch

from tests.running import Running, script


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGUSR1", 0), ("SIGINT", 130)])
def test_a_signal_saves_at_the_next_step(name, code, argv, tmp_path):
    # Workers get signals too, of schedulers and terminals that send them to whole groups; they must not mind.
    run = Running(script, argv(tmp_path / "run", "--num-workers", 1), log=tmp_path / "log")
    run.wait_for("step 2 of")
    number = getattr(signal, name)
    for _ in range(2):  # the same request, passed on by scheduler and launcher
        run.signal_family(number)
    assert run.wait() == code, run.output
    step = int(run.wait_for(rf"Stopped by {name} at step (\d+), all saved; the same command resumes it")[1])
    assert run.output.count(f"{name}: ending at the next step, with a save") == 1
    assert "Traceback" not in run.output
    state = torch.load(tmp_path / "run" / "last.bin", weights_only=True)
    assert state["step"] == step
    shown = [line for line in run.output.splitlines() if line.startswith("step ")]
    assert len(shown) == step, "steps were made after the save"


@pytest.mark.kills
def test_a_signal_in_an_evaluation_ends_it_and_a_second_one_ends_at_once(argv, inputs, tmp_path):
    folder = tmp_path / "run"
    slow = argv(folder, "--eval-interval", 2, "--val-data", *[inputs / "train.csv"] * 300)
    run = Running(script, slow, log=tmp_path / "log")
    run.wait_for("step 2 of")
    time.sleep(0.5)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.output
    assert "Stopped by SIGTERM at step 2, all saved" in run.output
    assert torch.load(folder / "last.bin", weights_only=True)["step"] == 2
    assert not (folder / "logs.csv").exists()

    # The evaluation is still owed, and comes first.
    run = Running(stopped_deaf, slow, log=tmp_path / "again")
    run.wait_for("deaf")
    run.signal(signal.SIGINT)
    run.wait_for("A second signal ends at once")
    time.sleep(1.1)
    run.signal(signal.SIGINT)
    assert run.wait(10) == 128 + signal.SIGINT, run.output
    assert "Second signal: ending at once, without a save" in run.output
    assert "step 3 of" not in run.output


def stopped_deaf(argv: list[str]) -> int:
    """Target: a run that does not look whether it is asked to stop, as in a very long step."""
    from histocc.processes.signals import StopSignals

    StopSignals.requested = property(lambda self: print("deaf"))
    return script(argv)
