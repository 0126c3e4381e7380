"""Cross entropy of a sequence, position by position."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Seq2SeqCrossEntropy(nn.Module):
    """Plain cross entropy over the tokens after BOS: mean over all positions of the batch that are not PAD.

    Parameters
    ----------
    pad_idx
        Index of PAD.
    """

    def __init__(self, pad_idx: int) -> None:
        super().__init__()
        self.pad_idx = pad_idx
        self.cross_entropy = nn.CrossEntropyLoss(ignore_index=pad_idx)

    def forward(self, yhat: Tensor, target: Tensor) -> Tensor:
        """Scalar loss, float32 or wider, from logits yhat [B, T-1, V] and tokens target [B, T] (BOS, ..., EOS)."""
        logits = yhat.to(torch.promote_types(yhat.dtype, torch.float32))
        return self.cross_entropy(logits.flatten(0, 1), target[:, 1:].long().flatten())
