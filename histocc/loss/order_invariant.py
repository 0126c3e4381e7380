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

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _CandidateNLL(torch.autograd.Function):
    """Negative log-likelihood of several candidate tokens at each position.

    Forward: logits [B, P', V] and tokens int64 [B, P, N], P <= P', give float32 [B, P, N] (float64 for float64 logits).
    With `uniform`, one more column holds the mean over the whole vocabulary. Positions from P on are not scored.

    Plain autograd would hold three more tensors of the logits' size in backward (for the slice, the softmax, the
    gather) and add them up; here the gradient is written once.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, tokens: Tensor, uniform: bool) -> Tensor:
        # Half precision is too coarse for sums over thousands of classes.
        log_probs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        ctx.save_for_backward(log_probs, tokens)
        ctx.uniform = uniform
        ctx.dtype = logits.dtype
        scored = log_probs[:, : tokens.shape[1]]
        picked = scored.gather(-1, tokens)
        if uniform:
            picked = torch.cat([picked, scored.mean(-1, keepdim=True)], dim=-1)
        return -picked

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_nll: Tensor) -> tuple[Tensor, None, None]:
        log_probs, tokens = ctx.saved_tensors
        grad = log_probs.exp()
        scored = grad[:, : tokens.shape[1]]
        scored.mul_(grad_nll.sum(-1, keepdim=True))
        if ctx.uniform:
            scored.sub_(grad_nll[..., -1:] / grad.shape[-1])
            grad_nll = grad_nll[..., :-1]
        scored.scatter_add_(-1, tokens, -grad_nll)
        grad[:, tokens.shape[1] :].zero_()
        return grad.to(ctx.dtype), None, None


class _BlockCrossEntropy(nn.Module):
    """What the two order-invariant losses share; they differ in which candidate blocks a target block may choose."""

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
        target_mask = self._candidate_mask(target)
        nll = self._nll(yhat, target)
        order_term = self._order_term(nll[..., : self.nb_blocks], target, target_mask)
        return order_term + self.push_to_pad_scale_factor * self._padding_term(nll[..., self.nb_blocks :], target_mask)

    def _candidate_mask(self, target: Tensor) -> Tensor | None:
        """Bool [B, K], True at candidate blocks to be pushed to PAD; None if every block is candidate and pushed."""
        raise NotImplementedError

    def _get_target_mask(self, target: Tensor) -> Tensor:
        """Bool [B, K] from target [B, K*S]: True where block j >= k_b.

        k_b counts the whole blocks in front of row b's first PAD; K stands in for 0. So a row without PAD has
        k_b = K, and so has one that starts with PAD.
        """
        in_front_of_pad = (target != self.pad_idx).cumprod(dim=1).sum(dim=1) // self.block_size
        in_use = torch.where(in_front_of_pad == 0, self.nb_blocks, in_front_of_pad)
        return torch.arange(self.nb_blocks, device=target.device) >= in_use[:, None]

    def _order_invariant_loss(self, yhat: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
        """The order term from logits [B, V, K*S] and target [B, K*S]; candidates True in target_mask [B, K] are out."""
        nll = self._nll(yhat.transpose(1, 2), target)
        return self._order_term(nll[..., : self.nb_blocks], target, target_mask)

    def _push_to_pad(self, yhat: Tensor, target_mask: Tensor | None = None) -> Tensor:
        """The unscaled padding term from logits [B, V, K*S]; only blocks True in target_mask [B, K] cost anything."""
        all_pad = yhat.new_full((yhat.shape[0], yhat.shape[2]), self.pad_idx, dtype=torch.int64)
        nll = self._nll(yhat.transpose(1, 2), all_pad)
        return self._padding_term(nll[..., self.nb_blocks :], target_mask)

    def _nll(self, yhat: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihoods [B, K candidates, S, N] from logits [B, >= K*S, V] and target [B, K*S].

        Column i < K is against the token at the same place of target block i, column K against PAD and, if labels
        are smoothed, column K + 1 against all tokens evenly.
        """
        batch, k, s = target.shape[0], self.nb_blocks, self.block_size
        tokens = target.long().view(batch, 1, k, s).transpose(2, 3).expand(batch, k, s, k)
        pad = tokens.new_full((1,), self.pad_idx).expand(batch, k, s, 1)
        tokens = torch.cat([tokens, pad], dim=-1).view(batch, k * s, k + 1)
        nll = _CandidateNLL.apply(yhat, tokens, self.push_to_pad_label_smoothing != 0)
        return nll.view(batch, k, s, -1)

    def _order_term(self, nll: Tensor, target: Tensor, target_mask: Tensor | None) -> Tensor:
        """Order term from nll [B, K candidates, S, K targets]."""
        is_pad = (target == self.pad_idx).view(-1, self.nb_blocks, self.block_size)
        ce = nll.masked_fill(is_pad.transpose(1, 2)[:, None], 0.0).mean(dim=2)  # [B, candidates, targets]
        if target_mask is not None:
            ce = ce.masked_fill(target_mask[:, :, None], torch.inf)
        # Not amin: among equally good candidates only the first gets the gradient.
        order = ce.min(dim=1).values.mean(dim=0)
        counted = (~is_pad).any(dim=2).any(dim=0).cumprod(dim=0)
        return (order * counted).sum() / counted.sum().clamp(min=1)

    def _padding_term(self, nll: Tensor, target_mask: Tensor | None) -> Tensor:
        """Padding term from nll [B, K candidates, S, 1 or 2]: against PAD and, if labels are smoothed, all tokens."""
        smoothing = self.push_to_pad_label_smoothing
        nll_pad = nll[..., 0] if smoothing == 0 else torch.lerp(nll[..., 0], nll[..., 1], smoothing)
        ce = nll_pad.mean(dim=2)
        return (ce if target_mask is None else ce.masked_fill(~target_mask, 0.0)).mean()


class BlockOrderInvariantLoss(_BlockCrossEntropy):
    """Order-invariant cross entropy in which the first k_b blocks carry the k_b codes of row b, in any order.

    A target block chooses the best among the first k_b candidate blocks; the others are pushed to PAD (the mean is
    over all B*K blocks, those in use counting 0). See the module's docstring for the formulas and `forward` for the
    inputs. `k_b` is the number of whole blocks before the first PAD of row b, or K where that is 0.

    Args:
        pad_idx: index of PAD.
        nb_blocks: K, codes a row may carry.
        block_size: S, tokens a code has.
        push_to_pad_scale_factor: weight of the padding term.
        push_to_pad_label_smoothing: share of the padding target that is spread evenly over the vocabulary.
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
