"""Non-finite numbers stop the run, name the rows, and leave the last good checkpoint as it is."""

from __future__ import annotations

import csv

import pytest
import torch

from histocc.processes.distributed import Processes
from histocc.training.non_finite import FiniteChecks, NonFiniteError, one_if_finite
from tests.running import Running, script


def test_a_loss_that_is_not_finite_stops_the_run(argv, inputs, tmp_path):
    folder = tmp_path / "run"
    good = Running(script, argv(folder, "--max-steps", 2), log=tmp_path / "good")
    assert good.wait() == 0, good.output
    before = (folder / "last.bin").read_bytes()
    state = torch.load(folder / "last.bin", weights_only=True)
    # Weights as a step with far too high a learning rate leaves them.
    state["model"]["linear_decoder.weight"] *= 1e38
    other = tmp_path / "other"
    other.mkdir()
    torch.save(state, other / "last.bin")
    content = (other / "last.bin").read_bytes()

    bad = Running(script, argv(other, "--max-steps", 9, "--unk-lang-prob", 0), log=tmp_path / "bad")
    assert bad.wait() == 1, bad.output
    assert "Error: Step 3: the loss or its gradient is not a finite number (loss " in bad.output
    assert "loss_linear " in bad.output
    assert "the last good checkpoint is untouched" in bad.output
    assert "A longer --warmup-pct" in bad.output
    assert "Traceback" not in bad.output
    assert (other / "last.bin").read_bytes() == content
    assert (folder / "last.bin").read_bytes() == before
    assert not list(other.glob("[0-9]*.bin"))
    with (other / "bad_batch.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (inputs / "train.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        source = table[int(row["row"])]
        assert row["process"] == "0"
        assert row["text"].startswith(source["lang"])
        assert row["classes"].split()[0] == source["code1"]


@pytest.mark.parametrize(
    ("loss", "factor"), [(0.0, 1.0), (-3e38, 1.0), (float("inf"), float("inf")), (float("nan"), float("inf"))]
)
def test_a_loss_that_is_not_finite_shows_in_its_gradient(loss, factor):
    weight = torch.tensor(2.0, requires_grad=True)
    total = 3 * weight + (loss - 6.0)
    (total * one_if_finite(total)).backward()
    assert weight.grad == 3 * factor


BATCH = {
    "input_ids": torch.tensor([[0xE000, ord("a"), 0xE001, 0], [0xE000, 0x1F600, ord("b"), 0xE001]]),
    "targets_classes": torch.tensor([[4, -1], [1, 2]]),
    "rows": torch.tensor([7, 3]),
}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named_with_its_rows(bad, tmp_path):
    checks = FiniteChecks(Processes(), tmp_path)
    loss = {"loss": torch.tensor(0.5), "loss_linear": torch.tensor(0.25)}
    checks.submit(1, torch.tensor(3.0), [loss], [BATCH])
    with pytest.raises(NonFiniteError, match=r"Step 1,002: .*\(loss 0\.5, loss_linear 0\.25\)"):
        checks.submit(1002, torch.tensor(bad), [loss], [BATCH])
    assert (tmp_path / "bad_batch.csv").read_text() == "process,row,text,classes\n0,7,a,4\n0,3,\U0001f600b,1 2\n"


def test_overflows_of_float16_are_only_counted_until_they_are_all_there_is(tmp_path):
    checks = FiniteChecks(Processes(), tmp_path)
    overflow = (torch.tensor(float("inf")), [{"loss": torch.tensor(0.5)}], [BATCH])
    for _ in range(3):
        for step in range(99):
            checks.count_overflow(False, step, *overflow)
        checks.count_overflow(True, 99, *overflow)
    for step in range(99):
        checks.count_overflow(False, step, *overflow)
    with pytest.raises(
        NonFiniteError, match=r"without --use-amp, or a lower --learning-rate usually helps; .* needs a new save folder"
    ):
        checks.count_overflow(False, 99, *overflow)
