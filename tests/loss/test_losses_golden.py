"""Values and gradients of all losses against those of the original implementation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from histocc.loss import BlockOrderInvariantLoss, LossMixer, OrderInvariantSeq2SeqCrossEntropy, Seq2SeqCrossEntropy

PAD = 1
TOLERANCE = 1e-6


@pytest.fixture(params=range(8))
def case(request, golden):
    """Values and arrays of one case; the arrays' names lose their case number."""
    values = json.loads((golden / "loss_and_metrics.json").read_text())[request.param]
    with np.load(golden / "loss_and_metrics.npz") as arrays:
        prefix = f"{request.param}/"
        tensors = {n.removeprefix(prefix): torch.from_numpy(arrays[n]) for n in arrays.files if n.startswith(prefix)}
    return values, tensors


def block_loss(values, **kwargs):
    return BlockOrderInvariantLoss(PAD, nb_blocks=values["nb_blocks"], block_size=values["block_size"], **kwargs)


def push_to_pad(values):
    return {name: values[name] for name in ("push_to_pad_scale_factor", "push_to_pad_label_smoothing")}


def assert_close(value, expected):
    assert value.item() == pytest.approx(expected, rel=TOLERANCE)


def assert_same_gradient(grad, expected):
    assert grad.shape == expected.shape
    assert torch.linalg.norm(grad - expected) <= TOLERANCE * torch.linalg.norm(expected)


@pytest.mark.parametrize("name", ["block", "order", "seq"])
def test_sequence_losses(case, name):
    values, tensors = case
    loss_fn = {
        "block": block_loss(values, **push_to_pad(values)),
        "order": OrderInvariantSeq2SeqCrossEntropy(
            PAD, nb_blocks=values["nb_blocks"], block_size=values["block_size"], **push_to_pad(values)
        ),
        "seq": Seq2SeqCrossEntropy(PAD),
    }[name]
    yhat = tensors["yhat"].requires_grad_()
    loss = loss_fn(yhat, tensors["target"])
    loss.backward()
    assert_close(loss, values[name])
    assert_same_gradient(yhat.grad, tensors[f"{name}_grad"])


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_mix(case, weight):
    values, tensors = case
    mix = LossMixer(block_loss(values, **push_to_pad(values)), torch.nn.BCEWithLogitsLoss(), seq2seq_weight=weight)
    yhat, out_linear = tensors["yhat"].requires_grad_(), tensors["out_linear"].requires_grad_()
    loss = mix(
        out_seq2seq=yhat,
        out_linear=out_linear,
        target_seq2seq=tensors["target"],
        target_linear=tensors["target_linear"],
    )
    loss.backward()
    assert_close(loss, values[f"mix_{weight}"])
    assert_same_gradient(yhat.grad, tensors[f"mix_{weight}_grad_seq"])
    assert_same_gradient(out_linear.grad, tensors[f"mix_{weight}_grad_lin"])


def test_terms_of_the_block_loss(case):
    values, tensors = case
    loss_fn = block_loss(values, **push_to_pad(values))
    yhat, target = tensors["yhat"][:, :-1].permute(0, 2, 1), tensors["target"][:, 1:-1]
    mask = loss_fn._get_target_mask(target)
    assert_close(loss_fn._order_invariant_loss(yhat, target, mask), values["order_part"])
    assert_close(loss_fn._push_to_pad(yhat, mask), values["pad_part"])
