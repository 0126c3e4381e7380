"""Greedy decoding in rounds, each of which must leave one token of the round before."""

from __future__ import annotations

import torch
from torch import Tensor

from histocc.decoding.greedy import Decoded, greedy_decode
from histocc.decoding.memory import DecoderMemory
from histocc.formatter import PAD_IDX


@torch.no_grad()
def greedy_top_k(memory: DecoderMemory, length: int, rounds: int) -> Decoded:
    """Decode a batch several times over.

    After each round, in every row, the token of which the model was least sure is forbidden at its position in all
    later rounds; PADs after the first do not count. Where the model was sure of everything (BOS, which has the
    probability 1, is then the first), the row stays as it is.

    Parameters
    ----------
    memory, length
        As for `greedy_decode`.
    rounds
        How many.

    Returns
    -------
    Decoded
        Shapes [rounds, B, T].
    """
    positions = torch.empty(len(memory), 0, dtype=torch.int64, device=memory.device)
    tokens = positions
    decoded = []
    for _ in range(rounds):
        decoded.append(greedy_decode(memory, length, positions, tokens))
        least_sure = _least_sure(decoded[-1])
        positions = torch.cat([positions, least_sure], dim=1)
        tokens = torch.cat([tokens, decoded[-1].tokens.gather(1, least_sure)], dim=1)
    return Decoded(
        torch.stack([each.tokens for each in decoded]), torch.stack([each.probabilities for each in decoded])
    )


def _least_sure(decoded: Decoded) -> Tensor:
    """The position of the least probable token that counts, int64 [B, 1]."""
    padding = decoded.tokens == PAD_IDX
    later_padding = padding & (padding.cumsum(1) > 1)
    return decoded.probabilities.masked_fill(later_padding, 2.0).argmin(1, keepdim=True)
