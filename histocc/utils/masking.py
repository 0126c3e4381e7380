"""Masks for the decoder, under the original's name."""

from histocc.layers.masking import create_mask, generate_square_subsequent_mask

__all__ = ["create_mask", "generate_square_subsequent_mask"]
