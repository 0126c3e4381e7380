"""Tokenizers of the user's own: whether one is CANINE's, and the ids of a text from one that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from histocc.dataloader.encoding import encode_input
from histocc.errors import UsageError


def gives_canine_ids(tokenizer: Any, max_len: int) -> bool:
    """Whether a tokenizer is transformers' `CanineTokenizer`, or None, and so its ids are those of `encode_input`.

    Settings of the tokenizer (on which side it pads, say) are found out by trying it on a short and on a long text.
    """
    if tokenizer is None:
        return True
    kind = type(tokenizer)
    if kind.__name__ != "CanineTokenizer" or not kind.__module__.startswith("transformers."):
        return False
    for text in ("en[SEP]æ", "x" * max_len):
        ids, mask = encode_input(text, max_len)
        its_ids, its_mask = encode_with(tokenizer, text, max_len)
        if not (np.array_equal(ids, its_ids.numpy()) and np.array_equal(mask, its_mask.numpy())):
            return False
    return True


def encode_with(tokenizer: Any, text: str, max_len: int) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask` of a text, int64 [L], from a tokenizer that is called as those of transformers.

    Raises
    ------
    UsageError
        What the tokenizer gives are not `max_len` ids with a mask.
    """
    encoded = tokenizer(
        text,
        padding="max_length",
        max_length=max_len,
        truncation=True,
        return_attention_mask=True,
        return_token_type_ids=False,
        return_tensors="pt",
    )
    ids, mask = (torch.as_tensor(encoded[name]).to(torch.int64).flatten() for name in ("input_ids", "attention_mask"))
    if not len(ids) == len(mask) == max_len:
        raise UsageError(
            f"Of {text!r:.70} the tokenizer {type(tokenizer).__name__} makes {len(ids)} ids and a mask of {len(mask)}, "
            f"but was asked for {max_len} (padding='max_length', truncation=True)"
        )
    return ids, mask
