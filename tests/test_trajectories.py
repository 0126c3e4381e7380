"""Whole training runs, step by step, against the original's: the plain loop, from the package's parts."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from histocc.formatter import PAD_IDX
from histocc.layers.masking import create_mask
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.metrics.accuracies import order_invariant_accuracy
from histocc.model_assets import Seq2SeqMixerOccCANINE
from tests.golden_runs import without_key_bias


@pytest.fixture(params=["hisco_no_warmup", "pst_warmup_10pct"])
def run(request, golden):
    folder = golden / "trajectories"
    expected = json.loads((folder / f"{request.param}.json").read_text())
    with np.load(folder / f"{request.param}_batches.npz") as arrays:
        batches = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in arrays}
    weights = {name: load_file(folder / f"{request.param}_{name}.safetensors") for name in ("init", "final")}
    return expected, batches, weights


def build(expected, config, fast_encoder):
    model = Seq2SeqMixerOccCANINE(
        "Multilingual_CANINE",
        expected["num_classes"],
        expected["num_classes_flat"],
        None,
        expected["decoder_dim_feedforward"],
        encoder=config,
        fast_encoder=fast_encoder,
    )
    loss_fn = LossMixer(
        BlockOrderInvariantLoss(PAD_IDX, nb_blocks=expected["max_num_codes"], block_size=expected["block_size"]),
        nn.BCEWithLogitsLoss(),
        seq2seq_weight=expected["seq2seq_weight"],
    )
    return model, loss_fn


def cut(batches, part, size):
    """The batches of one part, in order."""
    arrays = {name.removeprefix(part): a for name, a in batches.items() if name.startswith(part)}
    for start in range(0, len(arrays["input_ids"]), size):
        yield {name: a[start : start + size] for name, a in arrays.items()}


def forward(model, loss_fn, batch):
    target = batch["targets_seq2seq"]
    masks = create_mask(target[:, :-1], PAD_IDX, "cpu")
    out_seq2seq, out_linear = model(batch["input_ids"], batch["attention_mask"], target[:, :-1], *masks)
    targets = {"target_seq2seq": target, "target_linear": batch["targets_linear"].float()}
    return out_seq2seq, out_linear, loss_fn(out_seq2seq=out_seq2seq, out_linear=out_linear, **targets)


@pytest.mark.parametrize("fast_encoder", [True, False])
def test_mixer_trajectory(run, tiny_canine_config, fast_encoder):
    expected, batches, weights = run
    model, loss_fn = build(expected, tiny_canine_config, fast_encoder)
    model.load_state_dict(weights["init"])  # strict: the names are those of published checkpoints
    total, warmup = expected["total_steps"], expected["warmup_steps"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=expected["learning_rate"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: step / warmup if step < warmup else (total - step) / (total - warmup)
    )

    losses, rates, norms = [], [], []
    for batch in cut(batches, "train_", expected["batch_size"]):
        optimizer.zero_grad()
        *_, loss = forward(model, loss_fn, batch)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())

    assert losses == pytest.approx(expected["losses"], rel=1e-5)
    assert rates == pytest.approx(expected["lrs_used"], rel=1e-12)
    assert norms == pytest.approx(expected["grad_norms_before_clip"], rel=1e-5)
    final = model.state_dict()
    assert final.keys() == weights["final"].keys()
    for name, golden_tensor in weights["final"].items():
        if (wanted := without_key_bias(name, golden_tensor)) is not None:
            distance = (without_key_bias(name, final[name]) - wanted).norm()
            assert distance <= 1e-5 * wanted.norm(), name

    model.eval()
    sums, rows = np.zeros(6), 0
    with torch.no_grad():
        for batch in cut(batches, "val_", expected["val_batch_size"]):
            out_seq2seq, out_linear, loss = forward(model, loss_fn, batch)
            target = batch["targets_seq2seq"]
            linear = loss_fn.loss_fn_linear(out_linear, batch["targets_linear"].float())
            seq_acc, token_acc = order_invariant_accuracy(
                out_seq2seq, target[:, 1:], PAD_IDX, expected["max_num_codes"], expected["block_size"]
            )
            flat_acc = ((out_linear > 0) == batch["targets_linear"].bool()).all(dim=1).float().mean()
            values = loss, linear, loss_fn.loss_fn_seq2seq(out_seq2seq, target), seq_acc, token_acc, flat_acc
            sums += len(target) * np.array([float(value) for value in values])
            rows += len(target)
    names = "loss", "loss_linear", "loss_seq2seq", "seq_acc", "token_acc", "flat_acc"
    assert dict(zip(names, sums / rows)) == pytest.approx(expected["evaluate"], rel=1e-5)
