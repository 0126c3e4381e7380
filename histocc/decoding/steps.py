"""A decoder one token at a time, with a cache of its own keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from histocc.decoding.memory import DecoderMemory
from histocc.layers.attention import attend
from histocc.layers.decoder import attend_to_memory, feed_forward, join_target, project_target
from histocc.layers.masking import generate_square_subsequent_mask


class DecodingSteps:
    """Logits of the next token, step by step, with a causal mask and without a padding mask.

    All shapes stay the same from step to step, and nothing asks the device for a value.

    Parameters
    ----------
    memory
        The texts, B of them.
    length
        How many tokens are put in at most, BOS included.
    """

    def __init__(self, memory: DecoderMemory, length: int) -> None:
        self._memory = memory
        self._causal = generate_square_subsequent_mask(length, memory.device)
        self._cache = [
            (torch.zeros_like(key[:, :1]).repeat(1, length, 1), torch.zeros_like(value[:, :1]).repeat(1, length, 1))
            for key, value in memory.layers
        ]

    def __call__(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Put in one token for each text.

        Parameters
        ----------
        tokens
            Integers [B].
        position
            Where they stand, int64 [1]: 0 in the first call, then one more in each.

        Returns
        -------
        Tensor
            Logits of the token after it, float32 [B, V].
        """
        decoder = self._memory.decoder
        hidden = decoder.embed(tokens[:, None], position)
        bias = self._causal.index_select(0, position)
        for layer, memory, (keys, values) in zip(decoder.decoder.layers, self._memory.layers, self._cache):
            query, key, value = project_target(layer, hidden)
            keys.index_copy_(1, position, key.to(keys.dtype))
            values.index_copy_(1, position, value.to(values.dtype))
            attended = attend(query, keys, values, layer.self_attn.num_heads, bias.to(query.dtype))
            hidden = join_target(layer, hidden, attended)
            hidden = feed_forward(layer, attend_to_memory(layer, hidden, *memory))
        return decoder.head(hidden[:, 0]).float()
