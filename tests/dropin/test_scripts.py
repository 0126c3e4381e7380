"""Whole scripts as users of the original wrote them, each with the figures that the original gives.

Nothing but the original's (or OCCPAST's) names, positions and keywords is used in the scripts themselves.
"""

import argparse
import json
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from histocc import OccDatasetMixerInMemMultipleFiles
from histocc.formatter import hisco_blocky5
from histocc.seq2seq_mixer_engine import evaluate, train, train_one_epoch
from histocc.utils import Averager, create_mask, order_invariant_accuracy, update_summary, wandb_init
from tests.golden_runs import Run, without_key_bias

FIGURES = ("loss", "loss_linear", "loss_seq2seq", "seq_acc", "token_acc", "flat_acc")


@pytest.fixture(params=["hisco_no_warmup", "pst_warmup_10pct"])
def run(request, golden, tiny_canine_config):
    return Run(golden / "trajectories", request.param, tiny_canine_config)


class Rows(Dataset):
    """A data set of one's own: the tensors that the original's gives."""

    def __init__(self, run, part):
        self.arrays = {k.removeprefix(f"{part}_"): v for k, v in run.arrays.items() if k.startswith(part)}
        self.map_code_label = {"1": 0}

    def __len__(self):
        return len(self.arrays["input_ids"])

    def __getitem__(self, index):
        item = {name: array[index] for name, array in self.arrays.items()}
        return {**item, "occ1": f"row {index}", "targets_linear": item["targets_linear"].float()}


class OwnLoss(nn.Module):
    """The mixed loss written out by a user, with the two parts under the original's names."""

    def __init__(self, loss_fn_seq2seq, seq2seq_weight):
        super().__init__()
        self.loss_fn_seq2seq, self.loss_fn_linear = loss_fn_seq2seq, nn.BCEWithLogitsLoss()
        self.weight = seq2seq_weight
        self.losses = []

    def forward(self, out_seq2seq, out_linear, target_seq2seq, target_linear):
        seq2seq = self.loss_fn_seq2seq(out_seq2seq, target_seq2seq)
        linear = self.loss_fn_linear(out_linear, target_linear)
        loss = self.weight * seq2seq + (1 - self.weight) * linear
        if torch.is_grad_enabled():
            self.losses.append(loss.item())
        return loss


def loaders_of(run):
    size = run.expected["batch_size"]
    return {
        "data_loader_train": DataLoader(Rows(run, "train"), batch_size=size, shuffle=False),
        "data_loader_val": DataLoader(Rows(run, "val"), batch_size=run.expected["val_batch_size"], shuffle=False),
    }


def own_loop(run, folder):
    """No engine at all: the parts of the package in a loop of one's own."""
    model, loss_fn, optimizer, scheduler = run.arguments()
    device = "cpu"
    loaders = loaders_of(run)
    losses = []
    model.train()
    averager = Averager()
    for batch in loaders["data_loader_train"]:
        optimizer.zero_grad()
        target_input = batch["targets_seq2seq"][:, :-1]
        target_mask, target_padding_mask = create_mask(target_input, 1, device)
        out_seq2seq, out_linear = model(
            batch["input_ids"].to(device), batch["attention_mask"], target_input, target_mask, target_padding_mask
        )
        loss = loss_fn(out_seq2seq, out_linear, batch["targets_seq2seq"], batch["targets_linear"])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        averager.update(loss.item(), out_linear.size(0))
        losses.append(loss.item())
    seq_acc = Averager()
    model.eval()
    with torch.no_grad():
        for batch in loaders["data_loader_val"]:
            target_input = batch["targets_seq2seq"][:, :-1]
            masks = create_mask(target_input, 1, device)
            out_seq2seq, _ = model(batch["input_ids"], batch["attention_mask"], target_input, *masks)
            accuracies = order_invariant_accuracy(
                out_seq2seq,
                batch["targets_seq2seq"][:, 1:],
                1,
                loss_fn.loss_fn_seq2seq.nb_blocks,
                loss_fn.loss_fn_seq2seq.block_size,
            )
            seq_acc.update(accuracies[1].item(), out_seq2seq.size(0))
    update_summary(len(losses), {"train_loss": averager.avg, "token_acc": seq_acc.avg}, str(folder / "own.csv"))
    (row,) = pd.read_csv(folder / "own.csv").to_dict("records")
    assert row["step"] == run.total_steps
    assert row["train_loss"] == pytest.approx(np.mean(run.expected["losses"]), rel=1e-5)
    assert row["token_acc"] == pytest.approx(run.expected["evaluate"]["token_acc"], rel=1e-5)
    return losses


def own_loss(run, folder):
    """The engine by position, a loss of one's own."""
    model, loss_fn, optimizer, scheduler = run.arguments()
    mine = OwnLoss(loss_fn.loss_fn_seq2seq, run.expected["seq2seq_weight"])
    train(model, loaders_of(run), mine, optimizer, torch.device("cpu"), scheduler, str(folder), run.total_steps)
    assert evaluate(model, loaders_of(run)["data_loader_val"], mine, "cpu") == pytest.approx(
        [run.expected["evaluate"][name] for name in FIGURES], rel=1e-5
    )
    return mine.losses


def engine_of_occpast(run, folder):
    """OCCPAST's keywords, a sampler with epochs, one epoch at a time with its gradient scaler."""
    model, loss_fn, optimizer, scheduler = run.arguments()
    loss_fn = OwnLoss(loss_fn.loss_fn_seq2seq, run.expected["seq2seq_weight"])
    loaders = loaders_of(run)
    half = len(Rows(run, "train")) // 2 // run.expected["batch_size"] * run.expected["batch_size"]
    parts = [range(half), range(half, len(Rows(run, "train")))]
    step = 0
    for epoch, rows in enumerate(parts):
        loader = DataLoader(torch.utils.data.Subset(Rows(run, "train"), rows), run.expected["batch_size"])
        step = train_one_epoch(
            model=model,
            data_loader=loader,
            loss_fn=loss_fn,
            optimizer=optimizer,
            device=torch.device("cpu"),
            scheduler=scheduler,
            current_step=step,
            epoch=epoch,
            log_interval=10,
            eval_interval=None,
            save_interval=None,
            save_each_epoch=True,
            save_dir=str(folder),
            data_loader_eval=loaders["data_loader_val"],
            log_wandb=False,
            distributed=False,
            is_main_process=True,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
        )
    assert step == run.total_steps
    saved = torch.load(folder / "last.bin", weights_only=True)
    assert (saved["step"], saved["key"]) == (step, {"1": 0})
    return loss_fn.losses


def model_of_ones_own(run, folder):
    """A module around the model that asks for its arguments by keyword and freezes nothing."""

    class Logged(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.calls = 0

        def forward(self, **inputs):
            self.calls += 1
            return self.model(**inputs)

    model, loss_fn, optimizer, scheduler = run.arguments()
    logged = Logged(model)
    mine = OwnLoss(loss_fn.loss_fn_seq2seq, run.expected["seq2seq_weight"])
    train(
        model=logged,
        data_loaders=loaders_of(run),
        loss_fn=mine,
        optimizer=optimizer,
        device="cpu",
        scheduler=scheduler,
        save_dir=str(folder),
        total_steps=run.total_steps,
        log_interval=100,
        eval_interval=None,
        save_interval=None,
    )
    assert logged.calls >= run.total_steps
    return mine.losses


@pytest.mark.parametrize("script", [own_loop, own_loss, engine_of_occpast, model_of_ones_own])
def test_losses_and_weights_are_the_originals(run, script, tmp_path):
    assert script(run, tmp_path) == pytest.approx(run.expected["losses"], rel=1e-5)
    weights = run.model.state_dict()
    for name, wanted in run.final.items():
        if (wanted := without_key_bias(name, wanted)) is not None:
            distance = (without_key_bias(name, weights[name]) - wanted).norm()
            assert distance <= 1e-5 * wanted.norm(), name


def test_figures_sent_to_weights_and_biases_are_the_originals(run, tmp_path, monkeypatch):
    """A script with `wandb_init` from its arguments; the package is a stand-in that notes what it is sent."""
    sent, started = [], {}
    stand_in = types.ModuleType("wandb")
    stand_in.run = object()
    stand_in.errors = types.SimpleNamespace(Error=RuntimeError)
    stand_in.util = types.SimpleNamespace(generate_id=lambda: "abc123")
    stand_in.init = lambda **options: started.update(options)
    stand_in.log = lambda row, step=None: sent.append((step, dict(row)))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    arguments = argparse.Namespace(save_dir=str(tmp_path), wandb_project_name="histco-v2-mixer", batch_size=8)

    wandb_init(
        output_dir=arguments.save_dir,
        project=arguments.wandb_project_name,
        name="a run",
        resume="auto",
        config=arguments,
    )
    model, loss_fn, optimizer, scheduler = run.arguments()
    train(
        model=model,
        data_loaders=loaders_of(run),
        loss_fn=loss_fn,
        optimizer=optimizer,
        device=torch.device("cpu"),
        scheduler=scheduler,
        save_dir=arguments.save_dir,
        total_steps=run.total_steps,
        eval_interval=run.total_steps,
        log_wandb=True,
    )

    assert (started["project"], started["mode"], started["config"]) == ("histco-v2-mixer", "online", vars(arguments))
    ((step, row),) = sent
    assert step == run.total_steps
    wanted = run.expected["evaluate"]
    for name, column in zip(FIGURES, ("val_loss", "val_loss_linear", "val_loss_seq2seq", *FIGURES[3:])):
        assert row[column] == pytest.approx(wanted[name], rel=1e-5), column
    assert row["train_loss"] == pytest.approx(np.mean(run.expected["losses"]), rel=1e-5)


def test_rows_of_a_loader_of_ones_own_are_the_originals_in_every_epoch(golden, make_dataset, rows_csv):
    """Contents are the original's, and the order of each epoch is the one that torch draws from its seed."""
    expected = json.loads((golden / "dataset_expected.json").read_text(encoding="utf-8"))
    dataset = make_dataset(rows_csv, training=False)
    assert isinstance(dataset, OccDatasetMixerInMemMultipleFiles)
    assert dataset.formatter.num_classes == hisco_blocky5().num_classes
    torch.manual_seed(11)
    loader = DataLoader(dataset, batch_size=7, shuffle=True)
    epochs = [list(loader) for _ in range(3)]
    torch.manual_seed(11)
    plain = DataLoader(TensorDataset(torch.arange(len(expected))), batch_size=7, shuffle=True)
    orders = [torch.cat([rows for (rows,) in plain]).tolist() for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    for batches, order in zip(epochs, orders):
        wanted = [expected[index] for index in order]
        assert [text for batch in batches for text in batch["occ1"]] == [row["occ1"] for row in wanted]
        joined = {
            name: torch.cat([batch[name] for batch in batches])
            for name in ("input_ids", "attention_mask", "targets_seq2seq", "targets_linear")
        }
        assert joined["input_ids"].tolist() == [row["input_ids"] for row in wanted]
        assert joined["attention_mask"].sum(1).tolist() == [row["attention_mask_sum"] for row in wanted]
        assert joined["targets_seq2seq"].tolist() == [row["targets_seq2seq"] for row in wanted]
        assert [row.nonzero().flatten().tolist() for row in joined["targets_linear"]] == [
            sorted(row["targets_linear_on"]) for row in wanted
        ]
