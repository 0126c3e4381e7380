"""Losses for a decoder that spells out codes in blocks and a flat head that scores them."""

from histocc.loss.mixer import LossMixer
from histocc.loss.order_invariant import BlockOrderInvariantLoss, OrderInvariantSeq2SeqCrossEntropy
from histocc.loss.sequence_loss import Seq2SeqCrossEntropy

__all__ = ["BlockOrderInvariantLoss", "LossMixer", "OrderInvariantSeq2SeqCrossEntropy", "Seq2SeqCrossEntropy"]
