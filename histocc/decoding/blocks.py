"""The probability that the first code of a text is this or that one."""

from __future__ import annotations

import torch
from torch import Tensor

from histocc.decoding.memory import DecoderMemory
from histocc.formatter import BOS_IDX
from histocc.layers.attention import attend
from histocc.layers.decoder import attend_to_memory, feed_forward, join_target, project_target
from histocc.layers.masking import generate_square_subsequent_mask


@torch.no_grad()
def block_probabilities(memory: DecoderMemory, blocks: Tensor) -> Tensor:
    """The probability of some codes of each text's own, as the first block of its label.

    Parameters
    ----------
    memory
        The texts, B of them.
    blocks
        Tokens of N codes for each text, int64 [B, N, S].

    Returns
    -------
    Tensor
        The product of the probabilities of each block's S tokens, float32 [B, N].
    """
    rows, number, size = blocks.shape
    decoder = memory.decoder
    before = torch.cat([torch.full_like(blocks[..., :1], BOS_IDX), blocks[..., :-1]], dim=-1).flatten(1)
    positions = torch.arange(size, device=blocks.device).repeat(number)
    hidden = decoder.embed(before, positions)
    # Blocks stand side by side, and each sees itself alone.
    causal = generate_square_subsequent_mask(size, blocks.device)
    bias = torch.full((number, size, number, size), -torch.inf, device=blocks.device)
    bias[torch.arange(number), :, torch.arange(number)] = causal
    bias = bias.reshape(number * size, number * size)
    for layer, attended_memory in zip(decoder.decoder.layers, memory.layers):
        query, key, value = project_target(layer, hidden)
        attended = attend(query, key, value, layer.self_attn.num_heads, bias.to(query.dtype))
        hidden = join_target(layer, hidden, attended)
        hidden = feed_forward(layer, attend_to_memory(layer, hidden, *attended_memory))
    log_probabilities = decoder.head(hidden).float().log_softmax(-1)
    chosen = log_probabilities.gather(2, blocks.flatten(1)[:, :, None])
    return chosen.reshape(rows, number, size).sum(-1).exp()
