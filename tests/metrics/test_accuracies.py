from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from histocc.metrics.accuracies import (
    Averager,
    flat_rows_correct,
    order_invariant_accuracy,
    order_invariant_hits,
    seq2seq_sequence_accuracy,
)

PAD = 1


@pytest.fixture(params=range(8))
def case(request, golden):
    values = json.loads((golden / "loss_and_metrics.json").read_text())[request.param]
    with np.load(golden / "loss_and_metrics.npz") as arrays:
        output, target = (torch.from_numpy(arrays[f"{request.param}/{n}"]) for n in ("metric_output", "target"))
    return values, output, target[:, 1:]


def test_order_invariant_accuracy_matches_the_original(case):
    values, output, target = case
    seq_acc, token_acc = order_invariant_accuracy(
        output=output, target=target, pad_idx=PAD, nb_blocks=values["nb_blocks"], block_size=values["block_size"]
    )
    assert float(seq_acc) == pytest.approx(values["seq_acc"], rel=1e-6)
    assert float(token_acc) == pytest.approx(values["token_acc"], rel=1e-6)


def test_five_blocks_of_five_tokens_unless_said_otherwise():
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(8, 26, 9, generator=generator), torch.randint(5, 9, (8, 26), generator=generator)
    assert order_invariant_accuracy(output, target, PAD) == order_invariant_accuracy(output, target, PAD, 5, 5)


def test_sequence_accuracy_matches_the_original(case):
    values, output, target = case
    seq_acc, token_acc = seq2seq_sequence_accuracy(output, target, PAD)
    assert float(seq_acc) == pytest.approx(values["s2s_seq_acc"], rel=1e-6)
    assert float(token_acc) == pytest.approx(values["s2s_token_acc"], rel=1e-6)


def test_sequence_accuracy_counts_rows_that_are_right_up_to_padding():
    target = torch.tensor([[7, 8, 3, PAD], [7, 8, 9, 3]])
    output = torch.nn.functional.one_hot(torch.tensor([[7, 8, 3, 5], [7, 8, 5, 3]]), 10).float()
    seq_acc, token_acc = seq2seq_sequence_accuracy(output, target, PAD)
    assert float(seq_acc) == 50
    assert float(token_acc) == pytest.approx(100 * 6 / 7)


def test_hits_of_batches_add_up_to_the_accuracy_of_all_rows():
    generator = torch.Generator().manual_seed(1)
    pred, target = torch.randint(5, 8, (2, 40, 6), generator=generator)
    pred[:10] = target[:10].view(-1, 3, 2).flip(1).view(-1, 6)  # The right blocks in another order.
    parts = [order_invariant_hits(pred[rows], target[rows], 3, 2) for rows in (slice(0, 7), slice(7, 40))]
    rows_correct, hit_sum = (sum(part) for part in zip(*parts))

    hits = np.zeros((40, 3))
    for b in range(40):
        for i in range(3):
            shares = [(pred[b, 2 * j : 2 * j + 2] == target[b, 2 * i : 2 * i + 2]).float().mean() for j in range(3)]
            hits[b, i] = max(shares)
    assert int(rows_correct) == (hits == 1).all(axis=1).sum() >= 10
    assert float(hit_sum) == pytest.approx(hits.sum(), rel=1e-12)


def test_flat_rows_need_exactly_their_classes():
    target = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    out = torch.tensor([[2.0, -1, 0.1], [2, 0.1, -1], [-1, 0, -3], [-1, -1, -1]])
    assert int(flat_rows_correct(out, target)) == 2
    assert int(flat_rows_correct(out.bfloat16(), target.long())) == 2


def test_averager_is_a_weighted_mean():
    averager = Averager()
    assert averager.avg == 0
    averager.update(val=2.0, num=3)
    averager.update(6.0)
    assert (averager.sum, averager.count, averager.avg) == (12.0, 4, 3.0)


def test_averager_takes_tensors():
    averager = Averager()
    averager.update(torch.tensor(2.0), 3)
    averager.update(torch.tensor(6.0), 1)
    assert averager.avg.item() == 3.0
