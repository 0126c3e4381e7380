"""Cross entropy over blocks of tokens whose order does not matter.

Letters: B rows, K blocks (codes) a row, S tokens a block, V tokens in the vocabulary, T = K*S + 2 (BOS, blocks, EOS).

With `ce(b, i, j)` the mean over the S positions of the cross entropy of candidate block j against target block i of
row b, where positions whose target is PAD count 0:

    order_i = mean_b  min_{j < k_b} ce(b, i, j)
    order   = mean of order_i over the target blocks before the first that is PAD in every row of the batch
    padding = mean of the cross entropy of candidate positions against PAD
    loss    = order + push_to_pad_scale_factor * padding

Because `order` averages over blocks that are in use somewhere in the batch, the loss of a batch is not the mean of
the losses of its rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _BlockTerms(torch.autograd.Function):
    """Order term and padding term of a batch, with a gradient that is written once.

    Autograd over the single operations would hold several tensors of the logits' size in backward (for the slice, the
    softmax, the gathers) and add them up. Here the forward pass finds which candidate each target block chooses, so
    that either term is a sum of log-probabilities with known weights.
    """

    @staticmethod
    def forward(
        ctx,
        logits: Tensor,
        target: Tensor,
        target_mask: Tensor | None,
        pad_idx: int,
        nb_blocks: int,
        label_smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        """Two scalars from logits [B, >= K*S, V], target [B, K*S] and target_mask [B, K].

        Blocks True in the mask are no candidates and pushed to PAD; None: all are both. Everything is float32
        (float64 for float64 logits), half precision being too coarse for sums over thousands of classes.
        """
        batch, k, s = target.shape[0], nb_blocks, target.shape[1] // nb_blocks
        log_probs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        n_tokens = log_probs.shape[-1]
        scored = log_probs[:, : k * s].view(batch, k, s * n_tokens)
        is_pad = target == pad_idx

        # Each candidate block is scored against the tokens of all target blocks, place by place.
        place = torch.arange(k * s, device=target.device) % s
        picked = scored.gather(2, (place * n_tokens + target)[:, None].expand(batch, k, k * s))
        picked = picked.masked_fill_(is_pad[:, None], 0.0).view(batch, k, k, s)
        ce = picked.sum(dim=3).div_(-s)  # [B, K candidates, K targets]
        ce_pad = scored[:, :, pad_idx::n_tokens].mean(dim=2).neg_()  # [B, K candidates]
        if label_smoothing:
            ce_pad = torch.lerp(ce_pad, scored.mean(dim=2).neg_(), label_smoothing)
        if target_mask is not None:
            ce.masked_fill_(target_mask[:, :, None], torch.inf)
            ce_pad.masked_fill_(~target_mask, 0.0)

        # Among equally good candidates the first is chosen and gets all of the gradient.
        best, choice = ce.min(dim=1)
        in_use = (~is_pad).any(dim=0).view(k, s).any(dim=1).cumprod(dim=0)
        share = in_use.to(ce.dtype) / (batch * in_use.sum().clamp(min=1))  # What one row's target block i counts.

        ctx.save_for_backward(log_probs, target, target_mask, choice, share)
        ctx.pad_idx, ctx.label_smoothing, ctx.dtype = pad_idx, label_smoothing, logits.dtype
        return (best * share).sum(), ce_pad.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_order: Tensor, grad_padding: Tensor) -> tuple[Tensor | None, ...]:
        log_probs, target, target_mask, choice, share = ctx.saved_tensors
        batch, k = choice.shape
        length, n_tokens = target.shape[1], log_probs.shape[-1]
        s = length // k

        # Weights in the loss: of the target's tokens, at the positions of the chosen blocks, and of PAD.
        weight = (share * (grad_order / s)).repeat_interleave(s).masked_fill(target == ctx.pad_idx, 0.0)
        position = (choice[:, :, None] * s + torch.arange(s, device=choice.device)).view(batch, length)
        push = (grad_padding / (batch * length)).expand(batch, k)
        if target_mask is not None:
            push = push * target_mask
        push = push.repeat_interleave(s, dim=1)

        grad = log_probs.exp()
        scored = grad[:, :length]
        scored.mul_(push.scatter_add(1, position, weight)[..., None])
        if ctx.label_smoothing:
            scored.sub_((push * (ctx.label_smoothing / n_tokens))[..., None])
        scored[..., ctx.pad_idx].sub_(push * (1 - ctx.label_smoothing))
        grad.view(batch, -1).scatter_add_(1, position * n_tokens + target, -weight)
        grad[:, length:].zero_()
        return grad.to(ctx.dtype), None, None, None, None, None


# The steps of a loss that a subclass, or one object, may replace.
_STEPS = ("_get_target_mask", "_order_invariant_loss", "_push_to_pad")


class _BlockCrossEntropy(nn.Module):
    """What the two order-invariant losses share; they differ in which candidate blocks a target block may choose.

    Where one of the `_STEPS` is replaced, `forward` goes through them one by one; else it computes all at once.
    """

    _steps_replaced = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = next(base for base in cls.__mro__ if base.__module__ == __name__)
        cls._steps_replaced = any(getattr(cls, step) is not getattr(own, step) for step in _STEPS)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("cross_entropy", "padding_cross_entropy"):
            raise AttributeError(
                f"{name} cannot be replaced, since the loss is computed in one piece: override "
                f"_order_invariant_loss or _push_to_pad of {type(self).__name__}"
            )
        super().__setattr__(name, value)
        if name in _STEPS:
            self._steps_replaced = True

    def __init__(
        self,
        pad_idx: int,
        nb_blocks: int,
        block_size: int,
        push_to_pad_scale_factor: float,
        push_to_pad_label_smoothing: float,
    ) -> None:
        super().__init__()
        self.pad_idx = pad_idx
        self.nb_blocks = nb_blocks
        self.block_size = block_size
        self.push_to_pad_scale_factor = push_to_pad_scale_factor
        self.push_to_pad_label_smoothing = push_to_pad_label_smoothing

    def extra_repr(self) -> str:
        return (
            f"pad_idx={self.pad_idx}, nb_blocks={self.nb_blocks}, block_size={self.block_size}, "
            f"push_to_pad_scale_factor={self.push_to_pad_scale_factor}, "
            f"push_to_pad_label_smoothing={self.push_to_pad_label_smoothing}"
        )

    def forward(self, yhat: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        | argument | shape        | dtype    | meaning                                                         |
        |----------|--------------|----------|-----------------------------------------------------------------|
        | yhat     | [B, T-1, V]  | floating | logits of the tokens after BOS; the last position, EOS, is unused |
        | target   | [B, T]       | integer  | BOS, K blocks of S tokens (unused blocks hold PAD), EOS         |

        Returns a scalar, float32 also for half-precision logits. Raises ValueError if a length is not that of K
        blocks of S tokens.
        """
        length = self.nb_blocks * self.block_size
        if target.shape[1] != length + 2 or yhat.shape[1] != length + 1:
            raise ValueError(
                f"{self.nb_blocks} blocks of {self.block_size} tokens need a target of length {length + 2} and logits "
                f"for {length + 1} positions, got {target.shape[1]} and {yhat.shape[1]}: "
                "nb_blocks and block_size must be the formatter's"
            )
        target = target[:, 1:-1]
        if self._steps_replaced:
            order_term, padding_term = self._step_by_step(yhat[:, :length].transpose(1, 2), target)
        else:
            order_term, padding_term = self._terms(yhat, target, self._candidate_mask(target))
        return order_term + self.push_to_pad_scale_factor * padding_term

    @property
    def cross_entropy(self) -> nn.CrossEntropyLoss:
        """Of tokens against those of a code, position by position, 0 where the code has PAD; for use in own steps."""
        return nn.CrossEntropyLoss(ignore_index=self.pad_idx, reduction="none")

    @property
    def padding_cross_entropy(self) -> nn.CrossEntropyLoss:
        """Of tokens against PAD, with label smoothing, position by position; for use in own steps."""
        return nn.CrossEntropyLoss(label_smoothing=self.push_to_pad_label_smoothing, reduction="none")

    def _step_by_step(self, yhat: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Order term and padding term from logits [B, V, K*S] and target [B, K*S], through the `_STEPS`."""
        raise NotImplementedError

    def _candidate_mask(self, target: Tensor) -> Tensor | None:
        """Bool [B, K], True at candidate blocks to be pushed to PAD; None if every block is candidate and pushed."""
        raise NotImplementedError

    def _get_target_mask(self, target: Tensor) -> Tensor:
        """Bool [B, K] from target [B, K*S]: True where block j >= k_b.

        k_b counts the whole blocks in front of row b's first PAD; K stands in for 0. So a row without PAD has
        k_b = K, and so has one that starts with PAD.
        """
        in_front_of_pad = (target != self.pad_idx).cumprod(dim=1).sum(dim=1) // self.block_size
        # Not torch.where: with a number it makes a tensor on the host and waits for its copy.
        in_use = in_front_of_pad.masked_fill(in_front_of_pad == 0, self.nb_blocks)
        return torch.arange(self.nb_blocks, device=target.device) >= in_use[:, None]

    def _order_invariant_loss(self, yhat: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
        """The order term from logits [B, V, K*S] and target [B, K*S]; candidates True in target_mask [B, K] are out."""
        return self._terms(yhat.transpose(1, 2), target, target_mask)[0]

    def _push_to_pad(self, yhat: Tensor, target_mask: Tensor | None = None) -> Tensor:
        """The unscaled padding term from logits [B, V, K*S]; only blocks True in target_mask [B, K] cost anything."""
        all_pad = yhat.new_full((yhat.shape[0], yhat.shape[2]), self.pad_idx, dtype=torch.int64)
        return self._terms(yhat.transpose(1, 2), all_pad, target_mask)[1]

    def _terms(self, yhat: Tensor, target: Tensor, target_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return _BlockTerms.apply(
            yhat, target, target_mask, self.pad_idx, self.nb_blocks, self.push_to_pad_label_smoothing
        )


class BlockOrderInvariantLoss(_BlockCrossEntropy):
    """Order-invariant cross entropy in which the first k_b blocks carry the k_b codes of row b, in any order.

    A target block chooses the best among the first k_b candidate blocks; the others are pushed to PAD (the mean is
    over all B*K blocks, those in use counting 0). See the module's docstring for the formulas and `forward` for the
    inputs. `k_b` is the number of whole blocks before the first PAD of row b, or K where that is 0.

    Parameters
    ----------
    pad_idx
        Index of PAD.
    nb_blocks
        K, codes a row may carry.
    block_size
        S, tokens a code has.
    push_to_pad_scale_factor
        Weight of the padding term.
    push_to_pad_label_smoothing
        Share of the padding target that is spread evenly over the vocabulary.
    """

    def __init__(
        self,
        pad_idx: int,
        nb_blocks: int = 5,
        block_size: int = 5,
        push_to_pad_scale_factor: float = 1.0,
        push_to_pad_label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(pad_idx, nb_blocks, block_size, push_to_pad_scale_factor, push_to_pad_label_smoothing)

    def _candidate_mask(self, target: Tensor) -> Tensor:
        return self._get_target_mask(target)

    def _step_by_step(self, yhat: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        target_mask = self._get_target_mask(target)
        return self._order_invariant_loss(yhat, target, target_mask), self._push_to_pad(yhat, target_mask)


class OrderInvariantSeq2SeqCrossEntropy(_BlockCrossEntropy):
    """Order-invariant cross entropy in which a code may be spelt out in any block.

    A target block chooses the best among all K candidate blocks (k_b = K), and all positions are pushed to PAD, hence
    the small default weight. Arguments as in `BlockOrderInvariantLoss`.
    """

    def __init__(
        self,
        pad_idx: int,
        nb_blocks: int = 5,
        block_size: int = 5,
        push_to_pad_scale_factor: float = 0.05,
        push_to_pad_label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(pad_idx, nb_blocks, block_size, push_to_pad_scale_factor, push_to_pad_label_smoothing)

    def _candidate_mask(self, target: Tensor) -> None:
        return None

    def _step_by_step(self, yhat: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self._order_invariant_loss(yhat, target), self._push_to_pad(yhat)
