"""Encoded texts as a decoder attends to them."""

from __future__ import annotations

import torch
from torch import Tensor

from histocc.layers.decoder import TransformerDecoder, project_memory
from histocc.model_assets import Seq2SeqOccCANINE


class DecoderMemory:
    """Keys and values of encoded texts for every layer of a decoder, computed once for all that is decoded from them.

    Parameters
    ----------
    decoder
        The decoder of a model.
    memory
        What the encoder gave, [B, L, hidden]; padded positions are attended to like all others.
    """

    def __init__(self, decoder: TransformerDecoder, memory: Tensor) -> None:
        self.decoder = decoder
        self.layers = [project_memory(layer, memory) for layer in decoder.decoder.layers]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Seq2SeqOccCANINE, input_ids: Tensor, attention_mask: Tensor) -> DecoderMemory:
        """Encode int64 ids and mask [B, L] with a model that has a decoder."""
        encoded = model.encode(input_ids, attention_mask)
        return cls(model.decoder, encoded[0] if isinstance(encoded, tuple) else encoded)

    def __len__(self) -> int:
        return len(self.layers[0][0])

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.layers[0][0].device

    def rows(self, index: Tensor | slice) -> DecoderMemory:
        """The memory of some of the texts: int64 [n] on its device, or a slice, which copies nothing."""
        chosen = object.__new__(DecoderMemory)
        chosen.decoder = self.decoder
        chosen.layers = [(key[index], value[index]) for key, value in self.layers]
        return chosen
