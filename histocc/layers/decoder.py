"""The transformer decoder that writes codes token by token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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


class TokenEmbedding(nn.Module):
    """Embeds tokens, scaled by the square root of the width."""

    def __init__(self, vocab_size: int, emb_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, emb_size)
        self.scale = math.sqrt(emb_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Take integers [...], return [..., hidden]."""
        return self.embedding(tokens.long()) * self.scale


class TransformerDecoder(nn.Module):
    """Token embedding, positions, torch's `nn.TransformerDecoder` (ReLU, post-norm) and a linear head.

    Args:
        num_decoder_layers: layers of the decoder.
        emb_size: hidden width, a multiple of `nhead`.
        nhead: attention heads.
        vocab_size: tokens on the target side, V.
        dim_feedforward: width of the feed-forward part.
        dropout: rate of every dropout in the decoder.
    """

    def __init__(
        self,
        num_decoder_layers: int,
        emb_size: int,
        nhead: int,
        vocab_size: int,
        dim_feedforward: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(emb_size, nhead, dim_feedforward=dim_feedforward, dropout=dropout)
        self.nhead = nhead
        self.token_emb = TokenEmbedding(vocab_size, emb_size)
        self.positional_encoding = PositionalEncoding(emb_size, dropout)
        self.decoder = nn.TransformerDecoder(layer, num_decoder_layers)
        self.head = nn.Linear(emb_size, vocab_size)

    def forward(
        self,
        memory: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits for the token after each position.

        Args:
            memory: encoder output [B, L, hidden]; every position is attended to.
            target: integer tokens [B, T].
            target_mask: float [T, T], added to the self-attention scores (0 or -inf for a causal mask).
            target_padding_mask: float [B, T], added to the scores of each key.

        Returns:
            [B, T, V].
        """
        hidden = self.positional_encoding(self.token_emb(target.transpose(0, 1)))
        hidden = self.decoder(
            hidden,
            memory.transpose(0, 1).contiguous(),  # one copy here instead of one in every layer
            tgt_mask=self._joint_mask(target_mask, target_padding_mask),
            # Left to itself, torch compares the mask with a causal one, and waits for the device to answer.
            tgt_is_causal=False,
            memory_is_causal=False,
        )
        return self.head(hidden.transpose(0, 1))

    def _joint_mask(self, mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """Both masks in one, [B * heads, T, T]: added up once here instead of in every layer."""
        if padding is None:
            return mask
        joint = padding[:, None, None, :] if mask is None else mask + padding[:, None, None, :]
        length = padding.size(1)
        return joint.expand(-1, self.nhead, length, length).flatten(0, 1)
