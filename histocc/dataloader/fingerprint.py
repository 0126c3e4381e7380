"""What tells one data set from another: all that a model could learn from it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_ARRAYS = ("language_index", "labels", "classes", "rows")
_NAMES = ("languages", "codes")


def fingerprint(dataset: Any) -> str:
    """A hash of texts, languages, labels and their order, 16 hexadecimal digits.

    Parameters
    ----------
    dataset
        A data set of this package, in memory. Augmentation does not count.
    """
    digest = hashlib.blake2b(digest_size=8)
    for array in (dataset.text.offsets, dataset.text.data, *(getattr(dataset, name, None) for name in _ARRAYS)):
        if array is not None:
            array = np.ascontiguousarray(array)
            digest.update(f"{array.dtype} {array.shape} ".encode())
            digest.update(array.data)
    for name in _NAMES:
        digest.update(repr(list(getattr(dataset, name, []))).encode())
    return digest.hexdigest()
