"""Numbers of float32 that two ways of computing them give: how far rounding may take them apart.

The order of additions, and so the rounding, is a matter of the processor and of the libraries that know it. A bound
taken from one machine fails on the next; these follow from the values.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A number goes through some hundreds of roundings in a row here (five layers of attention, normalisation and sums over
# 32 to 64 features, and in a gradient the same again), each of half a unit in the last place, which partly cancel:
# 30 units of the largest value were seen forwards and 120 backwards. A wrong mask is off by some million units.
UNITS = 1000
FAR = 100


def allowed(expected: Tensor, at_least: float = 0.0) -> float:
    """What rounding may do to a tensor, in proportion to its largest value, or to `at_least` where that is larger."""
    return UNITS * torch.finfo(torch.float32).eps * max(expected.abs().max().item(), at_least)


def assert_equal_but_for_rounding(got: Tensor, expected: Tensor, what: str = "", at_least: float = 0.0) -> None:
    assert got.shape == expected.shape, what
    distance, bound = (got - expected).abs().max().item(), allowed(expected, at_least)
    assert distance <= bound, f"{what}: off by {distance:.3g}, and rounding explains {bound:.3g}"


def assert_more_than_rounding(got: Tensor, expected: Tensor) -> None:
    """The distance of a wrong answer: many times what the comparison lets pass."""
    assert got.shape == expected.shape
    distance, bound = (got - expected).abs().max().item(), allowed(expected)
    assert distance > FAR * bound, f"off by {distance:.3g}, where rounding explains {bound:.3g}"
