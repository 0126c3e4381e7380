"""What a batch holds."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """B rows as loaders give them; which entries there are depends on the data set.

    Attributes
    ----------
    input_ids, attention_mask
        CANINE's ids, and 1 where there is one, both int64 [B, L].
    rows
        Places of the rows in the data set, int64 [B].
    targets_seq2seq
        Mixer: the labels as tokens, int64 [B, T].
    targets_classes
        The rows' class indices, int64 [B, K], -1 where a row has no further class.
    targets_linear
        Mixer, in place of `targets_classes`: the classes as a multi-hot, float32 [B, C].
    targets
        Flat classifier, beside `targets_classes` where it is asked for: the classes as a multi-hot, float32 [B, C].
    groups
        Flat classifier: (rows, width) of each group of rows of similar length, in order.
    occ1
        The input texts, where the rows were made one by one.
    filler
        Bool [], there and true where the rows belong to another process and only keep this one in step.
    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    targets_seq2seq: Tensor
    targets_classes: Tensor
    targets_linear: Tensor
    targets: Tensor
    groups: tuple[tuple[int, int], ...]
    occ1: list[str]
    filler: Tensor
