"""What codes texts: the interface between a model and whoever has texts to be coded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Coded(NamedTuple):
    """Predictions for B texts: A of them for each (the alternatives, best first), each of up to K codes.

    Attributes
    ----------
    codes
        Codes as text, object [B, A, K]; the empty string behind the last code of a prediction.
    code_confidence
        Probability of each code, float64 [B, A, K]; NaN where there is none. Where a method knows the probability of a
        prediction as a whole, all its codes have that one.
    confidence
        Probability of each prediction, float64 [B, A]: of a set of codes by the decoder, of the first code by the flat
        head.
    """

    codes: np.ndarray
    code_confidence: np.ndarray
    confidence: np.ndarray

    def keep_above(self, thresholds: np.ndarray) -> Coded:
        """The same predictions without the codes whose probability is not above a threshold, float [B]."""
        kept = self.code_confidence > thresholds[:, None, None]
        return Coded(np.where(kept, self.codes, ""), np.where(kept, self.code_confidence, np.nan), self.confidence)

    def first(self, number: int) -> Coded:
        """The same predictions with at most so many codes each."""
        return Coded(self.codes[:, :, :number], self.code_confidence[:, :, :number], self.confidence)

    def or_first(self, every_code: Coded) -> Coded:
        """The same predictions, but the first code of `every_code` where no code is left."""
        codes, confidence = self.codes.copy(), self.code_confidence.copy()
        empty = (codes == "").all(axis=2)
        codes[empty, 0] = every_code.codes[empty, 0]
        confidence[empty, 0] = every_code.code_confidence[empty, 0]
        return Coded(codes, confidence, self.confidence)

    def sets(self, alternative: int = 0) -> list[tuple[str, ...]]:
        """The codes of each text, by one of its alternatives."""
        return [tuple(filter(None, row)) for row in self.codes[:, alternative].tolist()]


def join_coded(parts: Sequence[Coded]) -> Coded:
    """Predictions for several lots of texts as one."""
    return Coded(*(np.concatenate(arrays) for arrays in zip(*parts)))


class Coder(Protocol):
    """Codes texts with a model and a method.

    Attributes
    ----------
    method
        'flat', 'greedy' or 'full'.
    max_codes
        K, how many codes a prediction has at most.
    alternatives
        A, predictions for each text.
    """

    method: str
    max_codes: int
    alternatives: int

    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> Coded:
        """Predictions for texts, each in its language; they do not depend on each other."""
