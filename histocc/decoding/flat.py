"""The flat head: a logit for every class from the pooled encoding alone."""

from __future__ import annotations

import torch
from torch import Tensor

from histocc.layers.canine import encode_pooled
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE

Model = CANINEOccupationClassifier | Seq2SeqOccCANINE


@torch.no_grad()
def pooled_encodings(model: Model, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The pooled encoding [B, hidden] of int64 ids and mask [B, L].

    L may be anything from the longest text rounded up to a multiple of 4; the numbers are those of full padding.
    """
    encoder = model.basemodel if isinstance(model, CANINEOccupationClassifier) else model.encoder
    return encode_pooled(encoder, input_ids, attention_mask)


@torch.no_grad()
def flat_logits(model: CANINEOccupationClassifier | Seq2SeqMixerOccCANINE, pooled: Tensor) -> Tensor:
    """Logits, float32 [B, C], from pooled encodings [B, hidden]; no dropout."""
    head = model.out if isinstance(model, CANINEOccupationClassifier) else model.linear_decoder
    return head(pooled).float()
