"""One process fails: all are gone soon, with an exit code, and the reason is said once."""

from __future__ import annotations

import csv
import signal
import time

import pytest

from tests.distributed import work
from tests.distributed.test_processes import Torchrun
from tests.running import start_ranks, table

SOON_SECONDS = 30.0
LOST = "Error: another process of this run has ended without a word"


def ends(runs: list, seconds: float = SOON_SECONDS) -> list[int]:
    deadline = time.monotonic() + seconds
    return [run.wait(max(0.1, deadline - time.monotonic())) for run in runs]


def outputs(runs: list) -> str:
    return "".join(run.output for run in runs)


@pytest.mark.kills
def test_a_process_that_hangs_leaves_when_another_is_killed(argv, tmp_path):
    ranks = start_ranks(work.train_until, argv(tmp_path / "run"), "hang", world_size=2, folder=tmp_path)
    ranks[0].wait_for("hanging")
    ranks[1].signal(signal.SIGKILL)
    assert ends(ranks) == [1, -signal.SIGKILL]
    assert outputs(ranks).count(LOST) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_of_one_process_is_said_once(argv, tmp_path, workers):
    flags = argv(tmp_path / "run", "--num-workers", workers)
    ranks = start_ranks(work.train_until, flags, "raise", world_size=2, folder=tmp_path)
    assert ends(ranks) == [1, 1]
    assert ranks[1].output.startswith("[process 1 of 2] Traceback (most recent call last)")
    assert outputs(ranks).count("ArithmeticError: rank 1 has had enough") == 1
    assert "Traceback" not in ranks[0].output
    assert LOST not in outputs(ranks)


def test_a_command_that_all_processes_refuse_is_answered_once(argv, tmp_path):
    flags = argv(tmp_path / "run", "--max-len", 999)
    ranks = start_ranks(work.refuse_late, flags, world_size=2, folder=tmp_path)
    assert ends(ranks) == [2, 2]
    assert "Error: --max-len is 999, but the encoder" in ranks[0].output
    assert ranks[0].output.count("\n") == 1
    assert ranks[1].output == "", "torch speaks of a store that is gone"


def test_data_that_only_one_process_finds_bad_is_said_once(argv, inputs, tmp_path):
    table(tmp_path / "0.csv", 100)
    (tmp_path / "1.csv").write_text((tmp_path / "0.csv").read_text() + "baker,en,notacode,,,,\n")
    ranks = start_ranks(work.train_on_own_data, argv(tmp_path / "run"), str(tmp_path), world_size=2, folder=tmp_path)
    assert ends(ranks, 60) == [1, 2]
    assert ranks[1].output.startswith("[process 1 of 2] Error: ")
    assert "notacode" in ranks[1].output
    assert ranks[0].output == ""


@pytest.mark.parametrize(
    ("what", "batches", "reason"),
    [
        ("not a number", 1, "Step 3: the loss or its gradient is not a finite number (process 1: loss nan"),
        ("infinite", 1, "Step 3: the loss or its gradient is not a finite number (process 1: loss inf"),
        # The third batch is the first of the second step.
        ("infinite", 2, "Step 2: the loss or its gradient is not a finite number (process 1: loss inf"),
    ],
)
def test_a_loss_that_is_bad_on_one_process_stops_all_and_names_its_rows(argv, tmp_path, what, batches, reason):
    folder = tmp_path / "run"
    flags = argv(folder, "--grad-accum-steps", batches)
    ranks = start_ranks(work.train_until, flags, what, world_size=2, folder=tmp_path)
    assert ends(ranks, 60) == [1, 1]
    assert outputs(ranks).count(f"Error: {reason}") == 1
    with (folder / "bad_batch.csv").open() as file:
        assert [row["process"] for row in csv.DictReader(file)] == ["1"] * 8
    assert not list(folder.glob("*.bin"))


@pytest.mark.kills
def test_torchrun_ends_when_one_of_its_processes_is_killed(argv, tmp_path):
    run = Torchrun(tmp_path / "log", "--nproc-per-node", 2, do=("train_until", argv(tmp_path / "run"), "die"))
    started = time.monotonic()
    while "step 2 of" not in run.output:
        assert time.monotonic() - started < 100, run.output
        time.sleep(0.1)
    died = time.monotonic()
    assert run.wait() == 1
    assert time.monotonic() - died < SOON_SECONDS
    assert run.output.count(LOST) == 1
