"""Accuracies of the decoder and of the flat head, and a running mean.

The decoder's accuracies flatter the model: its tokens are predicted with the true ones in front of them
(teacher forcing), a spurious extra code does not count against a row, and PAD blocks count like any other, so that
predicting nothing scores most tokens. `histocc.metrics.code_sets` has figures without these weaknesses.

Letters: B rows, K blocks (codes) a row, S tokens a block, V tokens in the vocabulary, T = K*S + 2, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Averager:
    """Running weighted mean of numbers or of scalar tensors (which then stay on their device).

    Attributes
    ----------
    sum
        Weighted sum of the values so far.
    count
        Sum of the weights so far.
    avg
        `sum / count`; 0.0 before the first value.
    """

    def __init__(self) -> None:
        self.sum: float | Tensor = 0.0
        self.count = 0

    @property
    def avg(self) -> float | Tensor:
        return self.sum / self.count if self.count else 0.0

    def update(self, val: float | Tensor, num: int = 1) -> None:
        """Add a value that stands for `num` rows."""
        self.sum = self.sum + val * num
        self.count += num


def order_invariant_hits(
    pred_tokens: Tensor, target_tokens: Tensor, nb_blocks: int, block_size: int
) -> tuple[Tensor, Tensor]:
    """Counts behind `order_invariant_accuracy`, without a host synchronisation.

    A target block's hit is the best share of equal tokens over all candidate blocks; PAD blocks count like others.

    Parameters
    ----------
    pred_tokens
        Predicted tokens, integer [B, K*S].
    target_tokens
        True tokens, integer [B, K*S].
    nb_blocks
        K.
    block_size
        S.

    Returns
    -------
    tuple[Tensor, Tensor]
        Rows whose every hit is 1 (int64) and the sum of all B*K hits (float64; float32 on devices without it),
        0-dimensional tensors on the inputs' device.
    """
    candidates = pred_tokens.view(-1, nb_blocks, 1, block_size)
    targets = target_tokens.view(-1, 1, nb_blocks, block_size)
    equal_tokens = (candidates == targets).sum(dim=3).amax(dim=1)  # [B, K]
    rows_correct = (equal_tokens == block_size).all(dim=1).sum()
    wide = torch.float32 if pred_tokens.device.type == "mps" else torch.float64
    return rows_correct, equal_tokens.sum().to(wide) / block_size


def order_invariant_accuracy(
    output: Tensor, target: Tensor, pad_idx: int, nb_blocks: int = 5, block_size: int = 5
) -> tuple[Tensor, Tensor]:
    """Accuracy of rows and of tokens, in percent, whatever order the codes come in.

    Parameters
    ----------
    output
        Logits [B, T-1, V]; the first K*S positions count.
    target
        True tokens after BOS, integer [B, T-1]; the first K*S positions count.
    pad_idx
        Not used, since PAD counts like any other token; part of the signature for the callers' sake.
    nb_blocks
        K.
    block_size
        S.

    Returns
    -------
    tuple[Tensor, Tensor]
        Share of rows whose every target block is predicted exactly by some block, and the mean over target blocks of
        the best share of equal tokens; 0-dimensional tensors on the inputs' device.
    """
    length = nb_blocks * block_size
    pred_tokens = output[:, :length].argmax(dim=2)
    rows_correct, hit_sum = order_invariant_hits(pred_tokens, target[:, :length], nb_blocks, block_size)
    n_rows = len(target)
    return 100 * rows_correct / n_rows, 100 * hit_sum / (n_rows * nb_blocks)


def seq2seq_sequence_accuracy(output: Tensor, target: Tensor, pad_idx: int) -> tuple[Tensor, Tensor]:
    """Accuracy of rows and of tokens, in percent, position by position; PAD is left out, EOS counts.

    Parameters
    ----------
    output
        Logits [B, T-1, V].
    target
        True tokens after BOS, integer [B, T-1].
    pad_idx
        Index of PAD.

    Returns
    -------
    tuple[Tensor, Tensor]
        Share of rows right at every position that is not PAD, and share of such positions that are right;
        0-dimensional float32 tensors on the inputs' device.
    """
    counted = target != pad_idx
    correct = (output.argmax(dim=2) == target) & counted
    rows_correct = (correct == counted).all(dim=1).sum()
    return 100 * rows_correct / len(target), 100 * correct.sum() / counted.sum()


def flat_rows_correct(out_linear: Tensor, target_linear: Tensor) -> Tensor:
    """Rows whose predicted classes (sigmoid over 0.5) are exactly the true ones, an int64 0-dimensional tensor.

    Parameters
    ----------
    out_linear
        Logits [B, C].
    target_linear
        Multi-hot classes [B, C], any dtype.
    """
    # In at least float32: a logit just above 0 has a sigmoid of exactly one half in half precision.
    logits = out_linear.to(torch.promote_types(out_linear.dtype, torch.float32))
    return ((logits.sigmoid() > 0.5) == target_linear.bool()).all(dim=1).sum()
