from __future__ import annotations

import pytest
import torch

from histocc.loss import BlockOrderInvariantLoss, LossMixer, Seq2SeqCrossEntropy


def constant(value):
    return lambda output, target: output.sum() * 0 + value


@pytest.fixture
def batch():
    return {
        "out_seq2seq": torch.zeros(2, 3, 4),
        "out_linear": torch.zeros(2, 5),
        "target_seq2seq": torch.full((2, 4), 2),
        "target_linear": torch.zeros(2, 5),
    }


def test_weighs_the_two_losses(batch):
    mix = LossMixer(constant(10.0), constant(2.0), seq2seq_weight=0.25)
    assert mix(**batch).item() == 4.0
    assert [part.item() for part in mix.components(**batch)] == [4.0, 10.0, 2.0]


def test_parts_are_reachable():
    seq2seq, linear = BlockOrderInvariantLoss(1), torch.nn.BCEWithLogitsLoss()
    mix = LossMixer(loss_fn_seq2seq=seq2seq, loss_fn_linear=linear)
    assert (mix.loss_fn_seq2seq, mix.loss_fn_linear, mix.seq2seq_weight) == (seq2seq, linear, 0.5)
    assert not mix.state_dict()


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_refuses_a_weight_that_is_no_share(weight):
    with pytest.raises(ValueError, match="seq2seq_weight must be between 0 and 1"):
        LossMixer(constant(1.0), constant(1.0), seq2seq_weight=weight)


def test_half_precision_logits_are_scored_in_float32(batch):
    generator = torch.Generator().manual_seed(0)
    batch["out_seq2seq"] = torch.randn(2, 3, 4, generator=generator).bfloat16()
    batch["out_linear"] = torch.randn(2, 5, generator=generator).bfloat16()
    mix = LossMixer(Seq2SeqCrossEntropy(1), torch.nn.BCEWithLogitsLoss())
    parts = mix.components(**batch)
    wide = mix.components(**{n: t.float() if t.is_floating_point() else t for n, t in batch.items()})
    assert [part.dtype for part in parts] == [torch.float32] * 3
    assert [part.item() for part in parts] == [part.item() for part in wide]


def test_parts_that_a_subclass_computes_otherwise_count(batch):
    class Halved(LossMixer):
        def components(self, *outputs_and_targets, **named):
            return tuple(part / 2 for part in super().components(*outputs_and_targets, **named))

    mix = Halved(constant(10.0), constant(2.0), seq2seq_weight=0.25)
    assert mix(**batch).item() == 2.0
    assert [part.item() for part in mix.last_parts] == [5.0, 1.0]


def test_cross_entropy_of_the_callers_own_counts(batch):
    loss_fn = Seq2SeqCrossEntropy(1)
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    plain = loss_fn(logits, batch["target_seq2seq"])
    loss_fn.cross_entropy = torch.nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.5)
    assert loss_fn(logits, batch["target_seq2seq"]) != plain
