"""The transformer decoder that writes codes token by token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histocc.layers.attention import attend

MAX_TARGET_LENGTH = 128


class PositionalEncoding(nn.Module):
    """Adds sines (even features) and cosines (odd features) of the position, base 10000, then applies dropout.

    After Vaswani et al. (2017), "Attention is all you need", section 3.5. The table is a saved buffer
    `pos_embedding`, float32 [128, 1, hidden].
    """

    def __init__(self, emb_size: int, dropout: float, maxlen: int = MAX_TARGET_LENGTH) -> None:
        super().__init__()
        frequency = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
        angle = torch.arange(0, maxlen).reshape(maxlen, 1) * frequency
        table = torch.zeros(maxlen, emb_size)
        table[:, 0::2] = torch.sin(angle)
        table[:, 1::2] = torch.cos(angle)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pos_embedding", table.unsqueeze(1))

    def forward(self, token_embedding: Tensor) -> Tensor:
        """Take and return [T, B, hidden], T at most 128."""
        return self.dropout(token_embedding + self.pos_embedding[: token_embedding.size(0)])

    def at(self, positions: Tensor) -> Tensor:
        """The rows of the table at int64 positions [n], [n, hidden]."""
        return self.pos_embedding[:, 0].index_select(0, positions)


class TokenEmbedding(nn.Module):
    """Embeds tokens, scaled by the square root of the width."""

    def __init__(self, vocab_size: int, emb_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, emb_size)
        self.emb_size = emb_size

    def forward(self, tokens: Tensor) -> Tensor:
        """Take integers [...], return [..., hidden]."""
        return self.embedding(tokens.long()) * math.sqrt(self.emb_size)


class TransformerDecoder(nn.Module):
    """Token embedding, positions, torch's `nn.TransformerDecoder` (ReLU, post-norm) and a linear head.

    Parameters
    ----------
    num_decoder_layers
        Layers of the decoder.
    emb_size
        Hidden width, a multiple of `nhead`.
    nhead
        Attention heads.
    vocab_size
        Tokens on the target side, V.
    dim_feedforward
        Width of the feed-forward part.
    dropout
        Rate of every dropout in the decoder.
    """

    def __init__(
        self,
        num_decoder_layers: int,
        emb_size: int,
        nhead: int,
        vocab_size: int,
        dim_feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(emb_size, nhead, dim_feedforward=dim_feedforward, dropout=dropout)
        self.token_emb = TokenEmbedding(vocab_size, emb_size)
        self.positional_encoding = PositionalEncoding(emb_size, dropout)
        self.decoder = nn.TransformerDecoder(layer, num_decoder_layers)
        self.head = nn.Linear(emb_size, vocab_size)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """What the first layer gets, [B, n, hidden], for integer tokens [B, n] at int64 positions [n]; no dropout."""
        return self.token_emb(tokens) + self.positional_encoding.at(positions)

    def forward(
        self,
        memory: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits for the token after each position.

        Parameters
        ----------
        memory
            Encoder output [B, L, hidden]; every position is attended to.
        target
            Integer tokens [B, T].
        target_mask
            float [T, T], added to the self-attention scores (0 or -inf for a causal mask).
        target_padding_mask
            float [B, T], added to the scores of each key.

        Returns
        -------
        Tensor
            [B, T, V].
        """
        return self.head(self.forward_features(memory, target, target_mask, target_padding_mask))

    def forward_features(
        self,
        memory: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """What the linear head gets, [B, T, hidden]; arguments as in `forward`."""
        hidden = self.positional_encoding(self.token_emb(target.transpose(0, 1))).transpose(0, 1)
        bias = _joint_mask(target_mask, target_padding_mask)
        for layer in self.decoder.layers:
            hidden = _run_layer(layer, hidden, memory, bias)
        return hidden


def _joint_mask(mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """Both masks in one, made once for all layers; broadcasts to [B, heads, T, T]."""
    if padding is None:
        return mask
    padding = padding[:, None, None, :]
    return padding if mask is None else mask + padding


def _run_layer(layer: nn.TransformerDecoderLayer, hidden: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
    """What `layer` (post-norm, ReLU) computes, from [B, T, hidden] and [B, L, hidden].

    torch's own forward does the same sequence first, with copies for the change of layout around each attention, and
    inspects the masks in every layer.
    """
    query, key, value = project_target(layer, hidden)
    dropout = layer.self_attn.dropout if layer.training else 0.0
    attended = attend(query, key, value, layer.self_attn.num_heads, _in_dtype_of(query, bias), dropout)
    hidden = join_target(layer, hidden, attended)
    hidden = attend_to_memory(layer, hidden, *project_memory(layer, memory))
    return feed_forward(layer, hidden)


# The steps of a layer one by one, for decoding, which keeps keys and values.


def project_target(layer: nn.TransformerDecoderLayer, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the self-attention, [B, T, hidden] each, from [B, T, hidden]."""
    attention = layer.self_attn
    return F.linear(hidden, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)


def join_target(layer: nn.TransformerDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """Add what the self-attention of the heads gave, [B, T, hidden], to what went in, and normalise."""
    return layer.norm1(hidden + layer.dropout1(layer.self_attn.out_proj(attended)))


def project_memory(layer: nn.TransformerDecoderLayer, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the attention to the memory, [B, L, hidden] each, from [B, L, hidden]."""
    attention, width = layer.multihead_attn, memory.size(-1)
    return F.linear(memory, attention.in_proj_weight[width:], attention.in_proj_bias[width:]).chunk(2, dim=-1)


def attend_to_memory(layer: nn.TransformerDecoderLayer, hidden: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from [B, T, hidden] to the memory's keys and values, [B, L, hidden] each; every position is seen.

    `hidden` may be [1, T, hidden], the same for all memories.
    """
    attention, width = layer.multihead_attn, hidden.size(-1)
    query = F.linear(hidden, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    dropout = attention.dropout if attention.training else 0.0
    attended = attend(query.expand(len(key), -1, -1), key, value, attention.num_heads, dropout=dropout)
    return layer.norm2(hidden + layer.dropout2(attention.out_proj(attended)))


def feed_forward(layer: nn.TransformerDecoderLayer, hidden: Tensor) -> Tensor:
    """The end of a layer, from and to [B, T, hidden]."""
    widened = layer.dropout(layer.linear1(hidden).relu())
    return layer.norm3(hidden + layer.dropout3(layer.linear2(widened)))


def _in_dtype_of(query: Tensor, bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.to(query.dtype)  # under autocast the products are in half precision
