"""The weighted sum of the decoder's loss and the flat head's loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LossMixer(nn.Module):
    """`w * seq2seq + (1 - w) * linear`, w = `seq2seq_weight`.

    Parameters
    ----------
    loss_fn_seq2seq
        Called with (out_seq2seq, target_seq2seq).
    loss_fn_linear
        Called with (out_linear, target_linear), usually `torch.nn.BCEWithLogitsLoss()`.
    seq2seq_weight
        w, in 0..1.

    Raises
    ------
    ValueError
        The weight is outside 0..1.
    """

    def __init__(self, loss_fn_seq2seq: nn.Module, loss_fn_linear: nn.Module, seq2seq_weight: float = 0.5) -> None:
        super().__init__()
        if not 0 <= seq2seq_weight <= 1:
            raise ValueError(f"seq2seq_weight must be between 0 and 1, got {seq2seq_weight}")
        self.loss_fn_seq2seq = loss_fn_seq2seq
        self.loss_fn_linear = loss_fn_linear
        self.seq2seq_weight = seq2seq_weight
        self.last_parts: tuple[Tensor, Tensor] | None = None

    def forward(self, out_seq2seq: Tensor, out_linear: Tensor, target_seq2seq: Tensor, target_linear: Tensor) -> Tensor:
        """The mixed loss, a scalar; arguments as in `components`.

        The unweighted losses of decoder and flat head are left in `last_parts`, detached.
        """
        loss, seq2seq, linear = self.components(out_seq2seq, out_linear, target_seq2seq, target_linear)
        self.last_parts = seq2seq.detach(), linear.detach()
        return loss

    def components(
        self, out_seq2seq: Tensor, out_linear: Tensor, target_seq2seq: Tensor, target_linear: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three scalars: the mixed loss and, unweighted, the decoder's and the flat head's.

        | argument       | shape       | dtype    | meaning                              |
        |----------------|-------------|----------|--------------------------------------|
        | out_seq2seq    | [B, T-1, V] | floating | logits of the tokens after BOS       |
        | out_linear     | [B, C]      | floating | logits of the classes                |
        | target_seq2seq | [B, T]      | integer  | BOS, K blocks of S tokens, EOS       |
        | target_linear  | [B, C]      | floating | 1 at the classes of the row, else 0  |
        """
        seq2seq = self.loss_fn_seq2seq(out_seq2seq, target_seq2seq)
        # Logits from mixed precision are widened, for sums over thousands of classes.
        linear = self.loss_fn_linear(out_linear.to(torch.promote_types(out_linear.dtype, torch.float32)), target_linear)
        return self.seq2seq_weight * seq2seq + (1 - self.seq2seq_weight) * linear, seq2seq, linear
