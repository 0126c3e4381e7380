"""Running a `CanineModel` without the work that our use of it does not need.

The parts are transformers' own; only their composition stands here. Against `CanineModel.forward`, for the same
numbers: masks are [B, 1, 1, L] and made once, not [B, L, L] and once per layer; the one token type is looked up once,
not once per character; nothing asks the device for a value; and `encode_pooled` leaves out all that the pooled
encoding does not depend on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CanineModel


def encode(encoder: CanineModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The last hidden state and the pooled encoding.

    Parameters
    ----------
    encoder
        The model, converted by `use_fused_attention` or not.
    input_ids
        int64 [B, L].
    attention_mask
        [B, L], 1 at characters, 0 at padding; every row has a character among its first four.

    Returns
    -------
    tuple[Tensor, Tensor]
        `last_hidden_state` [B, L, hidden] and `pooler_output` [B, hidden].
    """
    characters, molecules, molecule_bias = _to_molecules(encoder, input_ids, attention_mask)
    molecules = encoder.encoder(molecules, molecule_bias)[0]
    pooled = encoder.pooler(molecules)

    # Back to characters: molecule 0 is [CLS], and the last one stands for its neighbour that was cut off as well.
    length, rate = characters.size(1), encoder.config.downsampling_rate
    shifted = torch.cat([molecules[:, 1:], molecules[:, -1:]], dim=1)
    repeated = shifted.repeat_interleave(rate, dim=1)
    if length % rate:
        repeated = torch.cat([repeated, shifted[:, -1:].expand(-1, length % rate, -1)], dim=1)
    hidden = encoder.projection(torch.cat([characters, repeated], dim=-1))
    hidden = encoder.final_char_encoder(hidden, _bias(attention_mask))[0]
    return hidden, pooled


def encode_pooled(encoder: CanineModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The pooled encoding alone, [B, hidden]; arguments as for `encode`.

    Neither the way back to characters runs, nor the last layer for positions other than [CLS]. The result does not
    depend on padding: it is the same at any L that is a multiple of the downsampling rate (4) and holds the text.
    Parameters that are left out get no gradient (None), as with the complete model.
    """
    _, hidden, bias = _to_molecules(encoder, input_ids, attention_mask)
    *lower, top = encoder.encoder.layer
    for layer in lower:
        hidden = layer(hidden, bias)[0]
    first = hidden[:, :1]
    first = top.attention.output(top.attention.self(first, hidden, bias)[0], first)
    return encoder.pooler(top.feed_forward_chunk(first))


def _to_molecules(encoder: CanineModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Characters [B, L, hidden], molecules [B, L // rate, hidden] as they enter the deep encoder, and their bias."""
    batch, length = input_ids.shape
    rate = encoder.config.downsampling_rate
    embedded = encoder.char_embeddings(input_ids=input_ids, token_type_ids=input_ids.new_zeros(1, 1))
    if length <= encoder.config.local_transformer_stride:
        # One window: the slices that the layer takes of a [B, 1, 1, L] mask are the mask itself.
        local_mask = _bias(attention_mask)
    else:
        local_mask = attention_mask.to(embedded.dtype).unsqueeze(1).expand(-1, length, -1)
    characters = encoder.initial_char_encoder(embedded, local_mask)[0]
    molecule_mask = attention_mask[:, : length // rate * rate].reshape(batch, -1, rate).amax(dim=-1)
    return characters, encoder.chars_to_molecules(characters), _bias(molecule_mask)


def _bias(mask: Tensor) -> Tensor:
    """Float32 [B, 1, 1, L] to add to attention scores: 0 where the mask is 1, hugely negative where it is 0.

    Half of float32's range: kernels that rescale the scores by log2(e) must not overflow.
    """
    return (1.0 - mask[:, None, None, :].to(torch.float32)) * (torch.finfo(torch.float32).min / 2)
