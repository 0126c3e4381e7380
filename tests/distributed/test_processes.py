"""Several processes give the figures of one, train together, and write each file once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed import work
from tests.running import ENVIRONMENT, PATIENCE_SECONDS, Running, free_port, script, small_encoder, start_ranks, table


class Torchrun:
    """`torchrun` with work.py."""

    def __init__(self, log: Path, *options: object, do: tuple) -> None:
        self.log = log
        arguments = [json.dumps(a) if isinstance(a, list) else str(a) for a in do]
        command = [sys.executable, "-m", "torch.distributed.run", *map(str, options), work.__file__, *arguments]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=work.ROOT, env={**os.environ, **ENVIRONMENT}
            )

    def wait(self) -> int:
        try:
            return self._process.wait(2 * PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    @property
    def output(self) -> str:
        return self.log.read_text()


def assert_all_end(runs: list, *codes: int) -> None:
    ended = [run.wait() for run in runs]
    assert ended == list(codes), "\n".join(run.output for run in runs)


def test_figures_and_gradients_do_not_depend_on_the_number_of_processes(tmp_path):
    small_encoder(tmp_path / "encoder")
    for rows in (7, 64, 790):
        table(tmp_path / f"{rows}.csv", rows)
    for world_size in (1, 2, 3):
        folder = tmp_path / f"of-{world_size}"
        folder.mkdir()
        ranks = start_ranks(work.evaluate_and_differentiate, str(tmp_path), world_size=world_size, folder=folder)
        assert_all_end(ranks, *[0] * world_size)

    alone = figures(tmp_path / "figures_1_0.json")
    assert [alone[rows]["rows"] for rows in ("7", "64", "790")] == [7, 64, 790]
    assert alone["64"]["details/heads/flat/by_description/seen/rows"] == 22
    assert alone["64"]["details/mistakes/worst_covered/0/examples/0"]
    for world_size in (2, 3):
        for rank in range(world_size):
            found = figures(tmp_path / f"figures_{world_size}_{rank}.json")
            for rows, wanted in alone.items():
                texts, numbers = parted(found[rows])
                assert texts == parted(wanted)[0]
                assert numbers == pytest.approx(parted(wanted)[1], rel=1e-12, nan_ok=True)


def parted(figures: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """What is no number, and what is one."""
    texts = {name: value for name, value in figures.items() if value is None or isinstance(value, str)}
    return texts, {name: value for name, value in figures.items() if name not in texts}


def figures(path: Path) -> dict[str, dict[str, Any]]:
    """Figures by number of rows and name, those of groups and mistakes under joined names; times left out."""

    def flat(content: dict, prefix: str = "") -> dict:
        joined = {}
        for name, value in content.items():
            value = dict(enumerate(value)) if isinstance(value, list) else value
            joined |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return joined

    content = {rows: flat(each) for rows, each in json.loads(path.read_text()).items()}
    for each in content.values():
        del each["eval_seconds"]
    return content


@pytest.mark.kills
@pytest.mark.skipif(sys.platform != "linux", reason="slows single threads down as Linux does it")
def test_processes_end_in_order_though_threads_are_late(argv, tmp_path):
    flags = argv(tmp_path / "run", "--max-steps", 2)
    run = Torchrun(tmp_path / "log", "--nproc-per-node", 2, do=("train_with_late_threads", flags))
    assert run.wait() == 0, run.output
    assert "Trained to step 2" in run.output
    assert "terminate called" not in run.output


def test_what_is_registered_for_the_end_runs_on_every_process(argv, tmp_path):
    ranks = start_ranks(work.leave_and_tell, argv(tmp_path / "run", "--max-steps", 1), world_size=2, folder=tmp_path)
    assert_all_end(ranks, 0, 0)
    assert [run.output.count("told of the end") for run in ranks] == [1, 1]


@pytest.mark.kills
def test_two_machines_train_a_model_with_a_frozen_encoder_and_one_process_writes(argv, inputs, tmp_path):
    folder, records = tmp_path / "run", tmp_path / "records"
    records.mkdir()
    port = free_port()
    flags = ["--num-epochs", 1, "--save-interval", 3, "--eval-interval", 3, "--keep-checkpoints", 2]
    agents = [
        Torchrun(
            tmp_path / f"agent{node}.log",
            *("--nnodes", 2, "--node-rank", node, "--nproc-per-node", 1),
            *("--master-addr", "127.0.0.1", "--master-port", port),
            do=("train_frozen", argv(folder, *flags), records),
        )
        for node in (0, 1)
    ]
    assert_all_end(agents, 0, 0)

    assert (records / "0").read_text().count("os.rename") >= 5
    assert (records / "1").read_text() == ""
    assert {p.name for p in folder.iterdir()} == {
        *("args.yaml", "run.log", "logs.csv", "logs_by_group.csv", "6.bin", "7.bin", "last.bin", "best.bin"),
        *("metrics", "report.html", "README.md", "run.json"),
    }
    with (folder / "logs.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6", "7"]
    assert "Trained to step 7" in agents[0].output
    assert "step" not in agents[1].output

    state = torch.load(folder / "last.bin", weights_only=True)
    assert not [name for name in state["model"] if name.startswith("module.")]
    for name, tensor in load_file(inputs / "encoder" / "model.safetensors").items():
        assert torch.equal(state["model"][f"encoder.{name}"], tensor), name
    first = torch.load(folder / "6.bin", weights_only=True)["model"]
    trained = [name for name in first if not torch.equal(first[name], state["model"][name])]
    assert {name.split(".")[0] for name in trained} == {"decoder", "linear_decoder"}


def test_a_resume_with_more_processes_sees_each_remaining_row_once(argv, tmp_path):
    one, three = tmp_path / "one", tmp_path / "three"
    for folder in (one, three):
        (folder / "records").mkdir(parents=True)
    flags = ["--num-epochs", 2, "--save-interval", 5]
    first = Running(work.train_recorded, argv(one / "run", *flags), str(one / "records"), log=tmp_path / "one.log")
    assert first.wait() == 0, first.output
    (three / "run").mkdir()
    shutil.copy(one / "run" / "5.bin", three / "run" / "last.bin")
    ranks = start_ranks(
        work.train_recorded, argv(three / "run", *flags), str(three / "records"), world_size=3, folder=three
    )
    assert_all_end(ranks, 0, 0, 0)

    assert "the run had 1 processes and has 3 now" in ranks[0].output
    before = batches(one / "records" / "0")[:5]
    assert len(flatten(before)) == 40
    # Of 60 rows left, 24 a step; then a whole epoch of 100.
    steps = 5 + 3 + 5
    assert f"Trained to step {steps}." in ranks[0].output
    after = [batches(three / "records" / str(rank)) for rank in range(3)]
    assert [len(each) for each in after] == [8, 8, 8]
    rest = [row for each in after for row in flatten(each[:3])]
    assert sorted(flatten(before) + rest) == list(range(100))
    assert sorted(row for each in after for row in flatten(each[3:])) == list(range(100))


def batches(path: Path) -> list[list[int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def flatten(rows: list[list[int]]) -> list[int]:
    return [row for each in rows for row in each]


def test_a_resume_with_as_many_processes_goes_on_to_the_bit(argv, tmp_path):
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    flags = ["--num-epochs", 2, "--save-interval", 5, "--eval-interval", 6, "--num-workers", 1]
    for folder in (alone, resumed):
        folder.mkdir()
        if folder is resumed:
            shutil.copy(alone / "5.bin", resumed / "last.bin")
        assert_all_end(start_ranks(script, argv(folder, *flags), world_size=2, folder=folder), 0, 0)
    a, b = (torch.load(folder / "last.bin", weights_only=True) for folder in (alone, resumed))
    assert a["step"] == b["step"] == 14
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert a["position"]["loss_sum"] == pytest.approx(b["position"]["loss_sum"], rel=1e-6)


@pytest.mark.kills
def test_a_signal_to_one_process_stops_all_at_the_same_step(argv, inputs, tmp_path):
    folder = tmp_path / "run"
    ranks = start_ranks(script, argv(folder), world_size=2, folder=tmp_path)
    ranks[0].wait_for("step 3 of")
    ranks[1].signal(signal.SIGUSR1)
    assert_all_end(ranks, 0, 0)
    step = int(ranks[0].wait_for(r"Stopped by a signal at step (\d+), all saved")[1])
    assert torch.load(folder / "last.bin", weights_only=True)["step"] == step

    # In an evaluation, of which the other process may be done with its part.
    folder = tmp_path / "other"
    long = argv(folder, "--eval-interval", 1, "--val-data", *[inputs / "train.csv"] * 60)
    again = tmp_path / "again"
    again.mkdir()
    ranks = start_ranks(script, long, world_size=2, folder=again)
    ranks[0].wait_for("step 1 of")
    ranks[1].signal(signal.SIGTERM)
    assert_all_end(ranks, 0, 0)
    assert "Stopped by a signal at step 1, all saved" in ranks[0].output
    assert not (folder / "logs.csv").exists()
