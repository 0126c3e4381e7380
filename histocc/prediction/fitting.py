"""Batches as large as the device's memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class FittingSize:
    """Halves what does not fit into memory, and remembers what does.

    Parameters
    ----------
    warn
        Told once for each size that was too much.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._most: int | None = None

    def parts(self, number: int, answer: Callable[[slice], T]) -> Iterator[T]:
        """What `answer` gives for consecutive parts of `number` texts.

        Raises
        ------
        torch.OutOfMemoryError
            Not even one text fits.
        """
        start = 0
        while start < number:
            size = min(self._most or number, number - start)
            fits = True
            try:
                answered = answer(slice(start, start + size))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                fits = False
            if fits:
                yield answered
                start += size
            else:  # outside the handler, which holds on to what was too much
                self._most = size // 2
                torch.cuda.empty_cache()
                self._warn(f"Warning: {size} texts at a time are too much for the memory; it goes on with {self._most}")
