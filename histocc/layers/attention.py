"""CANINE's self-attention on torch's fused `scaled_dot_product_attention`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import CanineModel


class FusedSelfAttention(nn.Module):
    """Takes the place of a CANINE layer's `attention.self`: same parameters, same names, same numbers.

    Parameters
    ----------
    plain
        The module to stand in for; its linear maps and dropout are taken over, not copied.
    """

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.num_attention_heads = plain.num_attention_heads
        self.attention_head_size = plain.attention_head_size
        self.query, self.key, self.value = plain.query, plain.key, plain.value
        self.dropout = plain.dropout
        self.training = plain.training

    def forward(
        self, from_tensor: Tensor, to_tensor: Tensor, attention_mask: Tensor | None = None, *options: object
    ) -> tuple[Tensor, ...]:
        """Attend from [B, F, hidden] to [B, T, hidden].

        Parameters
        ----------
        from_tensor
            The positions that ask.
        to_tensor
            The positions that answer.
        attention_mask
            [B, F, T] with 1 at keys to attend to and 0 elsewhere, or anything of four dimensions
            that broadcasts to [B, heads, F, T] and is added to the scores.
        options
            What transformers hands on, by position: in version 4 a head mask, then in all versions whether
            to return the attention weights.

        Returns
        -------
        tuple[Tensor, ...]
            ([B, F, hidden],), or with the weights asked for ([B, F, hidden], [B, heads, F, T]).
        """
        *head_mask, output_attentions = options or (False,)
        query, key, value = self.query(from_tensor), self.key(to_tensor), self.value(to_tensor)
        heads = self.num_attention_heads
        dropout = self.dropout.p if self.training else 0.0
        windowed = attention_mask is not None and attention_mask.ndim == 3
        if windowed:
            # Half of the range: the scores must not make an infinity of it.
            lowest = torch.finfo(query.dtype).min / 2
            attention_mask = (1.0 - attention_mask.to(query.dtype)).unsqueeze(1) * lowest
        elif attention_mask is not None:
            attention_mask = attention_mask.to(query.dtype)
        # A window may be all padding, whose gradient the fused kernels get wrong.
        if windowed or output_attentions or any(mask is not None for mask in head_mask):
            context, weights = _attend_plainly(query, key, value, heads, attention_mask, dropout, head_mask)
            return (context, weights) if output_attentions else (context,)
        return (attend(query, key, value, heads, attention_mask, dropout),)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Multi-head attention: softmax(q k' / sqrt(hidden / heads) + bias) v, head by head.

    Parameters
    ----------
    query
        [B, F, hidden].
    key
        [B, T, hidden].
    value
        [B, T, hidden].
    heads
        Number of heads, which divides hidden.
    bias
        Added to the scores, of the queries' dtype, broadcasts to [B, heads, F, T].
    dropout
        Rate of dropout on the weights.

    Returns
    -------
    Tensor
        [B, F, hidden].
    """
    # On the CPU the fused kernel has no dropout, and its gradient takes longer than that of the plain products.
    if query.device.type == "cpu" and (dropout or torch.is_grad_enabled()):
        return _attend_plainly(query, key, value, heads, bias, dropout)[0]
    query, key, value = (_split_heads(part, heads) for part in (query, key, value))
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2)


def _attend_plainly(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    bias: Tensor | None,
    dropout: float,
    head_mask: Sequence[Tensor | None] = (),
) -> tuple[Tensor, Tensor]:
    """The same from single products; also the weights [B, heads, F, T]."""
    query, key, value = (_split_heads(part, heads) for part in (query, key, value))
    scores = (query / math.sqrt(query.size(-1))) @ key.transpose(-1, -2)
    weights = F.dropout((scores if bias is None else scores + bias).softmax(-1), dropout)
    for mask in head_mask:
        weights = weights if mask is None else weights * mask
    return (weights @ value).transpose(1, 2).flatten(2), weights


def _split_heads(hidden: Tensor, heads: int) -> Tensor:
    return hidden.unflatten(-1, (heads, -1)).transpose(1, 2)


def use_fused_attention(encoder: CanineModel) -> CanineModel:
    """Convert the self-attention of every layer, in place; parameters and their names stay.

    Idempotent. Returns the same object. Raises ValueError for an encoder with relative positions, which the fused
    kernel cannot add.
    """
    if getattr(encoder.config, "position_embedding_type", "absolute") != "absolute":
        raise ValueError("fused attention needs absolute positions (config.position_embedding_type)")
    for stack in (encoder.initial_char_encoder, encoder.encoder, encoder.final_char_encoder):
        for layer in stack.layer:
            if not isinstance(layer.attention.self, FusedSelfAttention):
                layer.attention.self = FusedSelfAttention(layer.attention.self)
    return encoder
