from __future__ import annotations

import torch

from histocc.layers.masking import create_mask, generate_square_subsequent_mask


def test_causal_mask_hides_what_comes_later():
    mask = generate_square_subsequent_mask(seq_len=3, device="cpu")
    inf = torch.inf
    assert mask.dtype == torch.float32
    assert mask.tolist() == [[0, -inf, -inf], [0, 0, -inf], [0, 0, 0]]


def test_padding_mask_is_a_float_that_marks_padding():
    mask, padding = create_mask(torch.tensor([[2, 7, 1], [2, 1, 1]]), 1, torch.device("cpu"))
    assert mask.shape == (3, 3)
    assert padding.dtype == torch.float32
    assert padding.tolist() == [[0, 0, 1], [0, 1, 1]]


def test_device_defaults_to_that_of_the_input():
    mask, padding = create_mask(torch.zeros(2, 4, dtype=torch.int64, device="meta"), 1)
    assert mask.device == padding.device == torch.device("meta")
