"""Code of the user's own in place of ours: what it is recognised by, and the random numbers that it gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from histocc.dataloader.augmentation import OWN_ITEM
from histocc.dataloader.draws import Draws
from histocc.formatter.base import BlockFormatter

Method = TypeVar("Method", bound=Callable[..., Any])

_OURS: dict[str, Callable[..., Any]] = {}


def may_be_overridden(method: Method) -> Method:
    """Mark a method of the data set that a subclass or an object may replace, see `overrides`."""
    _OURS[method.__name__] = method
    return method


def overrides(dataset: Any, name: str) -> bool:
    """Whether a data set has its own in place of a marked method: in its class, in itself, or put into our class."""
    return getattr(type(dataset), name) is not _OURS[name] or name in vars(dataset)


def makes_blocks(formatter: Any) -> bool:
    """Whether a formatter's labels are the blocks of its `encode_block`, so that codes can be tokenised once each.

    So they are unless its class, or the object itself, has a `transform_label` or `sanitize` of its own.
    """
    return isinstance(formatter, BlockFormatter) and all(
        getattr(getattr(formatter, name), "__func__", None) is getattr(BlockFormatter, name)
        for name in ("transform_label", "sanitize")
    )


class Uses:
    """Random numbers for something that may be done to a row more than once, as by code that wants two noisy views."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._uses = 0

    def next(self) -> Draws:
        """Those of the first use are the row's own, later ones others."""
        self._uses += 1
        return self._draws.again(self._uses - 1)


class ReadyParts(NamedTuple):
    """Parts of the items of some rows that were made at once; None where they are made row by row.

    Attributes
    ----------
    own_record
        Whether records are the user's own.
    texts
        Description and language of each row, with noise.
    encoded
        `input_ids` and `attention_mask`, int64 [B, L].
    tokens
        `targets_seq2seq`, int64 [B, T].
    linear
        `targets_linear`, float32 [B, C].
    """

    own_record: bool
    texts: list[tuple[str, str]] | None
    encoded: tuple[Tensor, Tensor] | None
    tokens: Tensor | None
    linear: Tensor | None

    @property
    def need_records(self) -> bool:
        """Whether anything is made of records."""
        return self.own_record or self.texts is None or self.tokens is None or self.linear is None


@dataclass
class Fetch:
    """Rows that an overridden `__getitem__` makes, one after the other, perhaps of our items.

    Attributes
    ----------
    places
        Places of the rows in the data set, int64 [B].
    draws
        Their random numbers; None where rows stay as they are.
    seeded
        Whether Python's `random` is seeded by these.
    position
        Which of the rows is being made.
    uses
        How many of our items it has asked for.
    items
        Our items of all the rows, once they are made.
    """

    places: np.ndarray
    draws: Draws | None
    seeded: bool
    position: int = -1
    uses: int = 0
    items: list[dict[str, Any]] | None = None

    def begin_row(self) -> int | None:
        """Go on to the next row; returns the seed of Python's `random` for it."""
        self.position, self.uses = self.position + 1, 0
        return self._row_draws().seed(OWN_ITEM) if self.seeded and self.draws is not None else None

    def next_draws(self) -> Draws | None:
        """The random numbers of another item for the row."""
        self.uses += 1
        return None if self.draws is None else self._row_draws().again(self.uses - 1)

    def _row_draws(self) -> Draws:
        return self.draws.at(np.array([self.position]))


@contextmanager
def seeded_random(seed: int | None) -> Iterator[None]:
    """Let Python's `random` begin at `seed`, if it is one, and afterwards go on as if nothing had been drawn."""
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
