"""Greedy decoding: at every position the most probable token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from histocc.decoding.memory import DecoderMemory
from histocc.decoding.steps import DecodingSteps
from histocc.formatter import BOS_IDX


class Decoded(NamedTuple):
    """Token sequences.

    Parameters
    ----------
    tokens
        Int64 [..., T], BOS first.
    probabilities
        The model's probability of each token given those before it, float32 [..., T]; 1 for BOS.
    """

    tokens: Tensor
    probabilities: Tensor


@torch.no_grad()
def greedy_decode(
    memory: DecoderMemory,
    length: int,
    forbidden_positions: Tensor | None = None,
    forbidden_tokens: Tensor | None = None,
) -> Decoded:
    """Decode all texts of a batch, always to the full length.

    Parameters
    ----------
    memory
        The texts, B of them.
    length
        T, tokens of a label, BOS and EOS included.
    forbidden_positions, forbidden_tokens
        Int64 [B, R] each: in row b the token `forbidden_tokens[b, r]` is not chosen at position
        `forbidden_positions[b, r]`. The probabilities are those before anything is forbidden.

    Returns
    -------
    Decoded
        Shapes [B, T].
    """
    rows, device = len(memory), memory.device
    tokens = torch.full((rows, length), BOS_IDX, dtype=torch.int64, device=device)
    probabilities = torch.ones(rows, length, device=device)
    positions = torch.arange(length, device=device)
    step = DecodingSteps(memory, length - 1)
    for i in range(length - 1):
        predicted = step(tokens[:, i], positions[i : i + 1]).softmax(-1)
        eligible = predicted
        if forbidden_positions is not None:
            # A column more than there are tokens takes what is forbidden elsewhere.
            elsewhere = predicted.size(1)
            hit = torch.where(forbidden_positions == i + 1, forbidden_tokens, elsewhere)
            eligible = torch.cat([predicted, predicted.new_zeros(rows, 1)], dim=1).scatter(1, hit, -1.0)[:, :elsewhere]
        chosen = eligible.argmax(-1, keepdim=True)
        tokens[:, i + 1] = chosen[:, 0]
        probabilities[:, i + 1] = predicted.gather(1, chosen)[:, 0]
    return Decoded(tokens, probabilities)
