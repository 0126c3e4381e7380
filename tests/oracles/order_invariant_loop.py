"""The order-invariant losses written out from their formulas, one pair of blocks at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def blocks_in_use(target: Tensor, pad_idx: int, nb_blocks: int, block_size: int) -> Tensor:
    """k_b [B] from target [B, K*S]: index of the first PAD // S, 0 if there is none; K where that is 0."""
    k = (target == pad_idx).int().argmax(dim=1) // block_size
    return k.masked_fill(k == 0, nb_blocks)


def block_ce(yhat: Tensor, target: Tensor, **kwargs) -> Tensor:
    """[B]: mean over the S positions of the cross entropy of yhat [B, S, V] against target [B, S]."""
    ce = cross_entropy(yhat.reshape(-1, yhat.shape[-1]), target.reshape(-1), reduction="none", **kwargs)
    return ce.view(target.shape).mean(dim=1)


def loss_parts(
    yhat: Tensor,
    target: Tensor,
    pad_idx: int,
    nb_blocks: int,
    block_size: int,
    label_smoothing: float = 0.0,
    any_block: bool = False,
) -> tuple[Tensor, Tensor]:
    """Order term and unscaled padding term of a batch: yhat [B, T-1, V], target [B, T].

    `any_block` gives those of `OrderInvariantSeq2SeqCrossEntropy`, else those of `BlockOrderInvariantLoss`.
    """
    target, yhat = target[:, 1:-1], yhat[:, :-1]
    if any_block:
        in_use = torch.full((len(target),), nb_blocks, device=target.device)
    else:
        in_use = blocks_in_use(target, pad_idx, nb_blocks, block_size)
    block = [slice(i * block_size, (i + 1) * block_size) for i in range(nb_blocks)]

    order = []
    for i in range(nb_blocks):
        if (target[:, block[i]] == pad_idx).all():
            break
        candidates = []
        for j in range(nb_blocks):
            ce = block_ce(yhat[:, block[j]], target[:, block[i]], ignore_index=pad_idx)
            candidates.append(ce.masked_fill(j >= in_use, torch.inf))
        order.append(torch.stack(candidates).min(dim=0).values.mean())
    order_term = torch.stack(order).mean() if order else yhat.sum() * 0

    padding = []
    for j in range(nb_blocks):
        ce = block_ce(yhat[:, block[j]], torch.full_like(target[:, block[j]], pad_idx), label_smoothing=label_smoothing)
        padding.append(ce if any_block else ce.masked_fill(j < in_use, 0.0))
    return order_term, torch.stack(padding).mean()
