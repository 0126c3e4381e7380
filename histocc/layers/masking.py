"""Masks for the decoder."""

from __future__ import annotations

import torch
from torch import Tensor


def generate_square_subsequent_mask(seq_len: int, device: torch.device | str | None = None) -> Tensor:
    """Causal mask, float32 [seq_len, seq_len]: 0 on and below the diagonal, -inf above it; None: on a GPU if any."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.full((seq_len, seq_len), -torch.inf, device=device).triu(diagonal=1)


def create_mask(target_input: Tensor, pad_idx: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Causal mask, float32 [T-1, T-1], and padding mask, float32 [B, T-1], of decoder inputs [B, T-1].

    The padding mask holds 1.0 at PAD. Being a float mask it is *added* to the attention scores: padded keys stay
    visible, with a bonus of one. Trained checkpoints depend on that.
    """
    device = target_input.device if device is None else device
    padding_mask = (target_input == pad_idx).to(device=device, dtype=torch.float32)
    return generate_square_subsequent_mask(target_input.shape[1], device), padding_mask
