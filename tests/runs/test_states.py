"""Resuming a run of the original where it was left, and starting from its weights."""

import csv

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from histocc.errors import UsageError
from histocc.seq2seq_mixer_engine import train
from histocc.training.schedule import linear_schedule
from histocc.utils import load_states, update_summary
from tests.golden_runs import Run, without_key_bias

CPU = torch.device("cpu")
HALFWAY = 10


@pytest.fixture
def golden_run(golden, tiny_canine_config):
    """Makes the original's HISCO run, always from its start."""
    return lambda: Run(golden / "trajectories", "hisco_no_warmup", tiny_canine_config)


@pytest.fixture
def left_halfway(golden_run, tmp_path):
    """A save folder as the original leaves it: five entries, a plain optimizer, transformers' schedule."""
    run = golden_run()
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=run.expected["learning_rate"])
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, run.total_steps)
    loaders = {"data_loader_train": run.batches("train")[:HALFWAY]}
    train(run.model, loaders, run.loss_fn, optimizer, CPU, scheduler, None, HALFWAY)
    state = {
        "model": run.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "step": HALFWAY,
        "key": None,
    }
    torch.save(state, tmp_path / "last.bin")
    return tmp_path


def test_a_run_of_the_original_goes_on_to_its_own_end(left_halfway, golden_run):
    run = golden_run()
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    scheduler = linear_schedule(run.optimizer, 0, run.total_steps)

    step = load_states(left_halfway, run.model, run.optimizer, scheduler, initial_checkpoint="is not read")

    assert step == HALFWAY
    rest = {"data_loader_train": run.batches("train")[HALFWAY:]}
    train(run.model, rest, run.loss_fn, run.optimizer, CPU, scheduler, None, run.total_steps, current_step=step)
    assert run.optimizer.param_groups[0]["fused"]
    for name, wanted in run.final.items():
        if (wanted := without_key_bias(name, wanted)) is not None:
            distance = (without_key_bias(name, run.model.state_dict()[name]) - wanted).norm()
            assert distance <= 1e-5 * wanted.norm(), name


@pytest.mark.parametrize("only_encoder", [False, True])
def test_an_initial_checkpoint_gives_weights_and_step_0(left_halfway, golden_run, tmp_path, only_encoder):
    run = golden_run()
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    source = left_halfway / "last.bin"
    saved = torch.load(source, weights_only=True)["model"]
    (tmp_path / "new").mkdir()

    assert load_states(tmp_path / "new", run.model, run.optimizer, run.scheduler, str(source), only_encoder) == 0

    for name, tensor in run.model.state_dict().items():
        taken = saved if name.startswith("encoder.") or not only_encoder else before
        assert torch.equal(tensor, taken[name]), name


def test_an_empty_folder_is_a_run_that_has_not_begun(golden_run, tmp_path):
    run = golden_run()
    assert load_states(tmp_path, run.model, run.optimizer, run.scheduler) == 0


def test_a_damaged_file_is_named(golden_run, tmp_path):
    (tmp_path / "last.bin").write_bytes(b"")
    run = golden_run()
    with pytest.raises(UsageError, match=r"last\.bin.*empty"):
        load_states(tmp_path, run.model, run.optimizer, run.scheduler)


def test_figures_are_appended_under_one_header(tmp_path):
    update_summary(10, {"val_loss": 1.5}, tmp_path / "summary.csv")
    update_summary(20, {"val_loss": 1.25, "f1": 80.0}, tmp_path / "summary.csv")
    rows = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert rows == [{"step": "10", "val_loss": "1.5", "f1": ""}, {"step": "20", "val_loss": "1.25", "f1": "80.0"}]
