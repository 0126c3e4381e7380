"""Runs that are killed, stopped and resumed end where a run that was left alone ends, to the bit."""

from __future__ import annotations

import csv
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.running import Running, contents, script


def final_state(folder: Path) -> dict:
    return torch.load(folder / "last.bin", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    a, b = final_state(one), final_state(other)
    assert a["step"] == b["step"]
    assert a["best_val_loss"] == b["best_val_loss"]
    assert a["scheduler"] == b["scheduler"]
    assert a["precision"] == b["precision"]
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    for index, moments in a["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, b["optimizer"]["state"][index][name]), (index, name)
    assert logged(one) == logged(other)


def logged(folder: Path) -> list[dict[str, str]]:
    times = {"batch_time", "batch_time_data", "rows_per_second", "eval_seconds", "train_loss"}
    with (folder / "logs.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader(file)]


@pytest.mark.kills
def test_a_run_killed_ten_times_ends_as_one_left_alone(argv, tmp_path):
    flags = ["--num-epochs", 8, "--save-interval", 2, "--eval-interval", 5, "--keep-checkpoints", 2]
    left_alone = Running(script, argv(tmp_path / "alone", *flags), log=tmp_path / "alone.log")
    folder = tmp_path / "killed"
    moments = random.Random(7)
    killed_in_a_write = 0
    for kill in range(10):
        run = Running(script, argv(folder, *flags), log=tmp_path / f"{kill}.log")
        run.wait_for(r"start +step")
        if kill % 2:
            # A new temporary file is there: the checkpoint is being written, flushed, renamed or linked.
            run.wait_for(r"step \d+ of")
            seen = set(folder.glob(".*.bin.*.tmp")) if kill % 4 == 1 else first_of(folder, set())
            first_of(folder, seen)
            killed_in_a_write += 1
        else:
            time.sleep(moments.uniform(0.0, 0.1))
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, run.output
    assert killed_in_a_write == 5
    last = Running(script, argv(folder, *flags), log=tmp_path / "last.log")
    assert last.wait() == 0, last.output
    assert left_alone.wait() == 0, left_alone.output
    assert "from " in last.wait_for(r"start +(.*)")[1], "no kill left a checkpoint to resume from"
    assert_same_run(tmp_path / "alone", folder)
    assert not list(folder.glob(".*")), "leftovers of killed writes"
    assert {p.name for p in folder.glob("*.bin")} == {p.name for p in (tmp_path / "alone").glob("*.bin")}


def first_of(folder: Path, seen: set[Path]) -> set[Path]:
    """Wait until the folder has a temporary file that is not among `seen`; return all that it has."""
    deadline = time.monotonic() + 30
    while not (found := set(folder.glob(".*.bin.*.tmp"))) - seen:
        assert time.monotonic() < deadline, "no checkpoint is being written"
    return found


SETTINGS = {
    "workers and float16": ["--num-workers", 2, "--use-amp", "--amp-dtype", "float16"],
    "accumulation, bfloat16, trimmed": ["--grad-accum-steps", 2, "--use-amp", "--trim-padding"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_resumed_in_an_epoch_goes_on_to_the_bit(name, argv, tmp_path):
    flags = ["--num-epochs", 2, "--eval-interval", 6, "--save-interval", 5, *SETTINGS[name]]
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    first = Running(script, argv(alone, *flags), log=tmp_path / "first.log")
    assert first.wait() == 0, first.output
    resumed.mkdir()
    shutil.copy(alone / "5.bin", resumed / "last.bin")
    position = final_state(resumed)["position"]
    assert 0 < position["rows_done"] < 100
    second = Running(script, argv(resumed, *flags), log=tmp_path / "second.log")
    assert second.wait() == 0, second.output
    assert_same_run(alone, resumed)


def test_a_run_killed_before_its_first_save_goes_on_from_its_best_state(argv, tmp_path):
    flags = ["--num-epochs", 3, "--eval-interval", 5, "--save-interval", 10_000]
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    left_alone = Running(script, argv(alone, *flags), log=tmp_path / "alone.log")
    run = Running(script, argv(folder, *flags), log=tmp_path / "first.log")
    run.wait_for("evaluation at step 5")
    run.signal(signal.SIGKILL)
    run.wait()
    while not (folder / "best.bin").exists():  # killed before it was written
        run = Running(script, argv(folder, *flags), log=tmp_path / "again.log")
        run.wait_for("evaluation at step 5")
        time.sleep(0.2)
        run.signal(signal.SIGKILL)
        run.wait()
    assert not (folder / "last.bin").exists()
    second = Running(script, argv(folder, *flags), log=tmp_path / "second.log")
    assert second.wait() == 0, second.output
    assert re.search(r"start +step \d+, from .*best\.bin", second.output)
    assert left_alone.wait() == 0, left_alone.output
    assert_same_run(alone, folder)


def test_figures_of_another_run_are_set_aside(argv, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "logs.csv").write_text("step,val_loss\n7,0.5\n")
    (folder / "metrics").mkdir()
    (folder / "metrics" / "7.json").write_text("{}")
    run = Running(script, argv(folder, "--max-steps", 2), log=tmp_path / "log")
    assert run.wait() == 0, run.output
    assert [path.name for path in (folder / "metrics").iterdir()] == ["2.json"]
    assert [path.name for path in (folder / "metrics.1").iterdir()] == ["7.json"]
    assert (folder / "logs.1.csv").read_text() == "step,val_loss\n7,0.5\n"
    assert [row["step"] for row in logged(folder)] == ["2"]


def test_flags_that_cannot_change_are_refused_and_leave_the_folder_as_it_was(argv, tmp_path):
    folder = tmp_path / "run"
    run = Running(script, argv(folder, "--max-steps", 2), log=tmp_path / "log")
    assert run.wait() == 0, run.output
    before = contents(folder)
    (folder / "logs.csv").write_text("garbage\n,,\n")
    garbled = Running(script, argv(folder, "--max-steps", 3), log=tmp_path / "garbled")
    assert garbled.wait() == 2
    assert "logs.csv is no table of figures by 'step' any more" in garbled.output
    (folder / "logs.csv").write_bytes(before["logs.csv"])
    for number, (flags, message) in enumerate(
        [
            (["--max-len", 99_999], "--max-len is 99999, but the encoder"),
            (["--max-len", 1], "--max-len is 1; it must lie in 4.."),
        ]
    ):
        refused = Running(script, argv(folder, "--max-steps", 3, *flags), log=tmp_path / str(number))
        assert refused.wait() == 2, refused.output
        assert message in refused.output
        assert contents(folder) == before


def test_every_flag_that_changes_is_told(argv, tmp_path):
    folder = tmp_path / "run"
    run = Running(script, argv(folder, "--max-steps", 2), log=tmp_path / "log")
    assert run.wait() == 0, run.output
    again = Running(
        script,
        argv(folder, "--max-steps", 3, "--augmentation-prob", 0.9, "--max-val-samples", 3, "--warmup-pct", 0.05),
        log=tmp_path / "again",
    )
    assert again.wait() == 0, again.output
    assert "--augmentation-prob 0.9 differs from the checkpoint's 0.3; the flag's is used" in again.output
    assert "--max-val-samples 3 differs from the checkpoint's None; the flag's is used" in again.output
    assert "--warmup-pct" not in again.output


def test_a_run_that_is_complete_stays_as_it_is_and_can_be_made_longer(argv, tmp_path):
    folder = tmp_path / "run"

    def run(log: str, *flags: object) -> str:
        running = Running(script, argv(folder, *flags), log=tmp_path / log)
        assert running.wait() == 0, running.output
        return running.output

    run("first", "--num-epochs", 1, "--save-each-epoch")
    before = (folder / "last.bin").read_bytes()
    assert "The run is complete (step 13 of 13). More --num-epochs would" in run("again", "--num-epochs", 1)
    assert "The run is complete (step 13 of 9). More --max-steps would" in run("more", "--max-steps", 9)
    assert (folder / "last.bin").read_bytes() == before

    longer = run("longer", "--num-epochs", 2, "--learning-rate", 5e-4, "--batch-size", 16, "--seed", 1)
    assert "--num-epochs 2 differs from the checkpoint's 1; the flag's is used" in longer
    assert "--batch-size 16 differs from the checkpoint's 8; the flag's is used" in longer
    assert "--learning-rate 0.0005 differs from the checkpoint's 0.001; the checkpoint's is used" in longer
    assert "--seed 1 differs from the checkpoint's 42; the checkpoint's is used" in longer
    state = final_state(folder)
    assert state["step"] == 13 + 7
    assert state["position"]["epoch"] == 2
    assert state["optimizer"]["param_groups"][0]["initial_lr"] == 1e-3
    assert [row["step"] for row in logged(folder)] == ["13", "20"]
    first_rate = float(longer.split("step 14 of 20: ")[1].split("lr ")[1].split(",")[0])
    assert first_rate == pytest.approx(1e-3 * 6 / 19, rel=1e-3), "the rate does not follow the longer schedule"


def test_the_evaluation_owed_by_a_killed_run_is_made_up_for(argv, tmp_path):
    folder = tmp_path / "run"
    flags = ["--num-epochs", 1, "--save-interval", 13]
    first = Running(script, argv(folder, *flags), log=tmp_path / "first.log")
    assert first.wait() == 0, first.output
    wanted = logged(folder)
    # As if it had been killed between its last checkpoint and its last evaluation.
    (folder / "logs.csv").unlink()
    (folder / "best.bin").unlink()
    state = final_state(folder)
    state["best_val_loss"] = float("inf")
    torch.save(state, folder / "last.bin")
    second = Running(script, argv(folder, *flags), log=tmp_path / "second.log")
    assert second.wait() == 0, second.output
    assert logged(folder) == wanted
    assert torch.load(folder / "best.bin", weights_only=True)["step"] == 13
