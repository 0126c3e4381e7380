"""The engine on the original's own runs, and what it leaves on disk."""

import csv

import numpy as np
import pytest
import torch

from histocc.seq2seq_mixer_engine import evaluate, mixer_loss, train, train_one_epoch
from histocc.training.reporting import LOG_COLUMNS
from tests.golden_runs import Run, without_key_bias

CPU = torch.device("cpu")


@pytest.fixture(params=["hisco_no_warmup", "pst_warmup_10pct"])
def run(request, golden, tiny_canine_config):
    return Run(golden / "trajectories", request.param, tiny_canine_config)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense classes", "class indices"])
def test_the_engine_follows_the_original(run, sparse, tmp_path, capsys):
    model, loss_fn, optimizer, scheduler = run.arguments()
    loaders = {"data_loader_train": run.batches("train", sparse), "data_loader_val": run.batches("val", sparse)}

    train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path, run.total_steps, log_interval=1)

    rates = [
        float(line.split("lr ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines() if ": loss" in line
    ]
    assert rates[:-1] == pytest.approx(run.expected["lrs_used"][1:], rel=1e-3)
    for name, wanted in run.final.items():
        if (wanted := without_key_bias(name, wanted)) is not None:
            distance = (without_key_bias(name, model.state_dict()[name]) - wanted).norm()
            assert distance <= 1e-5 * wanted.norm(), name
    (row,) = csv.DictReader((tmp_path / "logs.csv").open())
    assert tuple(row)[: len(LOG_COLUMNS)] == LOG_COLUMNS
    assert float(row["train_loss"]) == pytest.approx(np.mean(run.expected["losses"]), rel=1e-5)
    renamed = {"val_loss": "loss", "val_loss_linear": "loss_linear", "val_loss_seq2seq": "loss_seq2seq"}
    for column in ("val_loss", "val_loss_linear", "val_loss_seq2seq", "seq_acc", "token_acc", "flat_acc"):
        assert float(row[column]) == pytest.approx(run.expected["evaluate"][renamed.get(column, column)], rel=1e-5)


def test_evaluate_returns_the_six_figures_in_order(run):
    run.model.load_state_dict(run.final)
    figures = evaluate(run.model, run.batches("val"), run.loss_fn, CPU)
    names = ("loss", "loss_linear", "loss_seq2seq", "seq_acc", "token_acc", "flat_acc")
    assert figures == pytest.approx([run.expected["evaluate"][name] for name in names], rel=1e-5)


def test_evaluate_refuses_to_judge_without_rows(run):
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        evaluate(run.model, [], run.loss_fn, CPU)


def test_train_one_epoch_returns_the_step_reached(run, tmp_path):
    model, loss_fn, optimizer, scheduler = run.arguments()
    batches = run.batches("train")[:5]
    step = train_one_epoch(
        model, batches, loss_fn, optimizer, CPU, scheduler, 7, save_interval=4, save_dir=tmp_path, total_steps=100
    )
    assert step == 12
    assert sorted(p.name for p in tmp_path.glob("*.bin")) == ["12.bin", "8.bin", "last.bin"]


def test_checkpoints_hold_the_entries_of_the_original(run, tmp_path):
    model, loss_fn, optimizer, scheduler = run.arguments()
    loaders = {"data_loader_train": run.batches("train"), "data_loader_val": run.batches("val")}
    train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path, 5, eval_interval=2, save_interval=2)
    assert {p.name for p in tmp_path.glob("*.bin")} == {"2.bin", "4.bin", "5.bin", "last.bin", "best.bin"}
    state = torch.load(tmp_path / "last.bin", weights_only=True)
    assert {"model", "optimizer", "scheduler", "step", "key"} <= state.keys()
    assert state["step"] == 5
    assert state["model"].keys() == run.final.keys()
    assert (tmp_path / "last.bin").samefile(tmp_path / "5.bin")
    rows = list(csv.DictReader((tmp_path / "logs.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert torch.load(tmp_path / "best.bin", weights_only=True)["step"] == int(best["step"])


def test_accumulated_batches_make_one_step_of_their_mean_gradient(run):
    model, loss_fn, *_ = run.arguments()
    batches = run.batches("train")[:3]
    start = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = []
    for batch in batches:
        model.zero_grad()
        mixer_loss(model, batch, loss_fn)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    wanted = torch.stack(gradients).mean(0)

    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    train(model, {"data_loader_train": batches}, loss_fn, sgd, CPU, None, None, 1, grad_accum_steps=3)
    moved = torch.cat([(start[n] - p.detach()).flatten() for n, p in model.named_parameters()])
    clipped = wanted / max(1.0, float(wanted.norm()))
    assert float((moved - clipped).norm() / clipped.norm()) < 1e-4
