"""The order-invariant losses against a loop over block pairs, and what holds of them beyond numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from histocc.loss import BlockOrderInvariantLoss, OrderInvariantSeq2SeqCrossEntropy
from tests.oracles.order_invariant_loop import loss_parts
from tests.rounding import assert_equal_but_for_rounding

PAD = 1
LOSSES = [BlockOrderInvariantLoss, OrderInvariantSeq2SeqCrossEntropy]


def make_batch(n_codes, k, s, v=9, seed=0, dtype=torch.float32):
    """Logits [B, K*S+1, V] that want a gradient and target [B, K*S+2], row b holding n_codes[b] random codes."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(5, v, (len(n_codes), k, s), generator=generator)
    target[torch.arange(k) >= torch.tensor(n_codes)[:, None]] = PAD
    target = torch.nn.functional.pad(target.flatten(1), (1, 1), value=2)
    target[:, -1] = 3
    yhat = 3 * torch.randn(len(n_codes), k * s + 1, v, generator=generator, dtype=dtype)
    return yhat.requires_grad_(), target


def value_and_gradient(loss, yhat):
    (grad,) = torch.autograd.grad(loss, yhat)
    return loss.item(), grad


def assert_like_the_loop(cls, yhat, target, k, s, scale=0.7, smoothing=0.0):
    loss_fn = cls(PAD, k, s, push_to_pad_scale_factor=scale, push_to_pad_label_smoothing=smoothing)
    value, grad = value_and_gradient(loss_fn(yhat, target), yhat)
    order, padding = loss_parts(yhat, target, PAD, k, s, smoothing, any_block=cls is OrderInvariantSeq2SeqCrossEntropy)
    expected_value, expected_grad = value_and_gradient(order + scale * padding, yhat)
    assert value == pytest.approx(expected_value, rel=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), cls=st.sampled_from(LOSSES), smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 999))
def test_random_batches(data, cls, smoothing, seed):
    k, s = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    n_codes = data.draw(st.lists(st.integers(0, k), min_size=1, max_size=6))
    yhat, target = make_batch(n_codes, k, s, seed=seed, dtype=torch.float64)
    assert_like_the_loop(cls, yhat, target, k, s, smoothing=smoothing)


@settings(max_examples=40, deadline=None)
@given(cls=st.sampled_from(LOSSES), seed=st.integers(0, 999))
def test_padding_anywhere(cls, seed):
    """Gaps between codes, blocks begun and not finished: no formatter writes them, the formulas cover them."""
    yhat, target = make_batch([4, 4, 4], 4, 3, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    target[:, 1:-1][torch.rand(3, 12, generator=generator) < 0.4] = PAD
    assert_like_the_loop(cls, yhat, target, 4, 3)


@pytest.mark.parametrize("cls", LOSSES)
def test_equally_good_candidates(cls):
    yhat, target = make_batch([3, 2, 1], 3, 2, dtype=torch.float64)
    yhat = yhat.detach()[:, :1].expand(3, 7, 9).clone().requires_grad_()
    assert_like_the_loop(cls, yhat, target, 3, 2)


@pytest.mark.parametrize("cls", LOSSES)
def test_batch_without_any_code_is_only_pushed_to_padding(cls):
    yhat, target = make_batch([0, 0], 3, 2)
    loss_fn = cls(PAD, 3, 2)
    logits = yhat[:, :-1].transpose(1, 2)
    assert loss_fn._order_invariant_loss(logits, target[:, 1:-1]).item() == 0
    loss = loss_fn(yhat, target)
    loss.backward()
    assert loss.isfinite()
    assert yhat.grad.isfinite().all()


def test_padding_starts_behind_the_last_code():
    _, target = make_batch([1, 2, 3, 0], 3, 2)
    mask = BlockOrderInvariantLoss(PAD, 3, 2)._get_target_mask(target[:, 1:-1])
    assert mask.tolist() == [[False, True, True], [False, False, True], [False] * 3, [False] * 3]


def test_order_of_codes_does_not_matter():
    yhat, target = make_batch([3, 3, 3], 3, 2)
    loss_fn = BlockOrderInvariantLoss(PAD, 3, 2)
    turned = target.clone()
    turned[:, 1:-1] = target[:, 1:-1].view(3, 3, 2).roll(1, dims=1).flatten(1)
    assert loss_fn(yhat, turned).item() == pytest.approx(loss_fn(yhat, target).item(), rel=1e-6)


def test_last_position_plays_no_part():
    yhat, target = make_batch([1, 2], 2, 2)
    with torch.no_grad():
        yhat[:, -1] = torch.nan
    loss = BlockOrderInvariantLoss(PAD, 2, 2)(yhat, target)
    loss.backward()
    assert loss.isfinite()
    assert (yhat.grad[:, -1] == 0).all()
    assert yhat.grad.isfinite().all()


def test_impossible_tokens_cost_nothing_where_they_are_not_wanted():
    yhat, target = make_batch([1, 2], 2, 2)
    with torch.no_grad():
        yhat[:, :, 4] = -torch.inf
    loss = BlockOrderInvariantLoss(PAD, 2, 2)(yhat, target)
    loss.backward()
    assert loss.isfinite()
    assert (yhat.grad[:, :, 4] == 0).all()


def test_gradient_can_be_taken_twice_from_one_graph():
    yhat, target = make_batch([1, 2], 2, 2)
    loss = BlockOrderInvariantLoss(PAD, 2, 2)(yhat, target)
    (first,) = torch.autograd.grad(loss, yhat, retain_graph=True)
    (second,) = torch.autograd.grad(loss, yhat)
    assert torch.equal(first, second)


def zero_padding_term(self, yhat, target_mask=None):
    return yhat.sum() * 0


def doubled_order_term(self, yhat, target, target_mask=None):
    return 2 * super(type(self), self)._order_invariant_loss(yhat, target, target_mask)


def every_block_a_candidate(self, target):
    return torch.zeros(len(target), self.nb_blocks, dtype=torch.bool)


def written_out(self, yhat, target, target_mask=None):
    """The order term as one would write it, with the loss's own cross entropy."""
    k, s = self.nb_blocks, self.block_size
    blocks = [slice(i * s, (i + 1) * s) for i in range(k)]
    order = []
    for i in blocks:
        if (target[:, i] == self.pad_idx).all():
            break
        costs = torch.stack([self.cross_entropy(yhat[:, :, j], target[:, i]).mean(dim=1) for j in blocks], dim=1)
        order.append((costs if target_mask is None else costs.masked_fill(target_mask, torch.inf)).amin(dim=1).mean())
    return torch.stack(order).mean()


def pad_written_out(self, yhat, target_mask=None):
    all_pad = torch.full((len(yhat), yhat.shape[2]), self.pad_idx)
    costs = self.padding_cross_entropy(yhat, all_pad).view(len(yhat), self.nb_blocks, -1).mean(dim=2)
    return (costs if target_mask is None else costs * target_mask).mean()


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("whole_class", [True, False])
def test_a_step_that_is_replaced_counts(cls, whole_class):
    yhat, target = make_batch([1, 2, 3], 3, 2, dtype=torch.float64)
    any_block = cls is OrderInvariantSeq2SeqCrossEntropy
    order, padding = (part.item() for part in loss_parts(yhat, target, PAD, 3, 2, 0.1, any_block=any_block))

    def loss_with(**steps):
        arguments = PAD, 3, 2, 0.5, 0.1
        if whole_class:
            return type("Own", (cls,), steps)(*arguments)(yhat, target).item()
        loss_fn = type("Plain", (cls,), {})(*arguments)
        for name, step in steps.items():
            setattr(loss_fn, name, step.__get__(loss_fn))
        return loss_fn(yhat, target).item()

    assert loss_with() == pytest.approx(order + 0.5 * padding, rel=1e-12)
    assert loss_with(_push_to_pad=zero_padding_term) == pytest.approx(order, rel=1e-12)
    assert loss_with(_order_invariant_loss=doubled_order_term) == pytest.approx(2 * order + 0.5 * padding, rel=1e-12)
    own = {"_order_invariant_loss": written_out, "_push_to_pad": pad_written_out}
    assert loss_with(**own) == pytest.approx(order + 0.5 * padding, rel=1e-12)
    if not any_block:
        free, _ = loss_parts(yhat, target, PAD, 3, 2, any_block=True)
        assert loss_with(_get_target_mask=every_block_a_candidate) == pytest.approx(free.item(), rel=1e-12)


@pytest.mark.parametrize("cls", LOSSES)
def test_a_subclass_with_the_steps_as_they_are_computes_all_at_once(cls, monkeypatch):
    yhat, target = make_batch([1, 2, 3], 3, 2)
    own = type("Own", (cls,), {"extra_repr": lambda self: "own"})(PAD, 3, 2)
    monkeypatch.setattr(cls, "_step_by_step", None)
    assert own(yhat, target).item() == cls(PAD, 3, 2)(yhat, target).item()


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("name", ["cross_entropy", "padding_cross_entropy"])
def test_what_cannot_be_replaced_says_what_can(cls, name):
    with pytest.raises(AttributeError, match=rf"{name} cannot be replaced.* override _order_invariant_loss or _push"):
        setattr(cls(PAD), name, torch.nn.CrossEntropyLoss(reduction="none"))


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_scored_in_float32(cls, dtype):
    yhat, target = make_batch([1, 2, 4, 0], 4, 3)
    half = yhat.detach().to(dtype).requires_grad_()
    wide = half.detach().float().requires_grad_()
    loss_fn = cls(PAD, 4, 3, push_to_pad_label_smoothing=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(half, target)
    expected = loss_fn(wide, target)
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    assert half.grad.dtype == dtype
    assert torch.equal(half.grad, wide.grad.to(dtype))


@pytest.mark.compiler
@pytest.mark.parametrize("cls", LOSSES)
def test_one_graph_under_compile(cls):
    yhat, target = make_batch([1, 2, 3], 3, 2)
    loss_fn = cls(PAD, 3, 2, push_to_pad_label_smoothing=0.1)
    compiled = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    value, grad = value_and_gradient(compiled(yhat, target), yhat)
    expected_value, expected_grad = value_and_gradient(loss_fn(yhat, target), yhat)
    assert value == pytest.approx(expected_value, rel=1e-6)
    assert_equal_but_for_rounding(grad, expected_grad)


class NoHostSynchronisation(TorchDispatchMode):
    """Refuses the operations that wait for a device: reading a value, and shapes that depend on values."""

    waiting = (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.equal.default,
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in self.waiting, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cls", LOSSES)
def test_nothing_waits_for_the_device(cls):
    yhat, target = make_batch([1, 0, 3], 3, 2)
    with NoHostSynchronisation():
        cls(PAD, 3, 2, push_to_pad_label_smoothing=0.1)(yhat, target).backward()
    assert yhat.grad is not None


@pytest.mark.parametrize("cls", LOSSES)
def test_wrong_lengths_are_refused(cls):
    yhat, target = make_batch([1, 2], 3, 2)
    with pytest.raises(ValueError, match=r"5 blocks of 5 tokens need a target of length 27 .* got 8 and 7"):
        cls(PAD)(yhat, target)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", LOSSES)
def test_same_on_a_gpu_without_waiting(cls):
    yhat, target = make_batch([1, 0, 3, 2], 3, 2)
    loss_fn = cls(PAD, 3, 2, push_to_pad_label_smoothing=0.1)
    value, grad = value_and_gradient(loss_fn(yhat, target), yhat)
    on_gpu, target_on_gpu = yhat.detach().cuda().requires_grad_(), target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = loss_fn(on_gpu, target_on_gpu)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.item() == pytest.approx(value, rel=1e-6)
    assert_equal_but_for_rounding(on_gpu.grad.cpu(), grad)
