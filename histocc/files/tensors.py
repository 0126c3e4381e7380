"""Tensors of a stored file: what they must be before anything computes with them.

A file may hold tensors that a model's code would read or write beyond their memory, or never end with: without data,
sparse, or one number repeated over a shape of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from histocc.files.entries import Check, Unexpected

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def tensor(
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    *,
    contiguous: bool = False,
    finite: bool = True,
    low: float = -math.inf,
) -> Check[Tensor]:
    """A dense tensor on the CPU, each number of which is there.

    Parameters
    ----------
    shape
        Its shape; None allows any.
    dtype
        Its type; None allows any.
    contiguous
        Its numbers stand one behind the other, as an optimizer that updates them in place needs it.
    finite
        Its numbers are finite.
    low
        The least number allowed where they are finite.
    """
    expected = "a dense tensor" + (f" of {str(dtype).removeprefix('torch.')}" if dtype is not None else "")
    expected += f" {list(shape)}" if shape is not None else ""
    bounds = f"from {low:g} on" if low > -math.inf else "that are finite"

    def check(value: Any) -> Tensor:
        if not isinstance(value, Tensor) or not _is_dense(value):
            raise Unexpected(expected)
        if (shape is not None and list(value.shape) != list(shape)) or (dtype is not None and value.dtype != dtype):
            raise Unexpected(expected)
        if not _has_all_numbers(value) or (contiguous and not value.is_contiguous()):
            raise Unexpected(f"{expected}, each number in a place of its own,")
        if finite and value.is_floating_point() and value.numel():
            # One pass; a NaN anywhere becomes both of them.
            least, greatest = (float(bound) for bound in value.detach().aminmax())
            if not (low <= least and -math.inf < least and greatest < math.inf):
                raise Unexpected(f"{expected} of numbers {bounds}", "", least if not low <= least else greatest)
        return value.detach()

    return check


def weight_differences(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """How the entries of a state dict differ from those of a model in name or shape, in words; empty if they do not."""
    wanted = model.state_dict()
    lines = []
    for name, own in wanted.items():
        if name not in weights:
            lines.append(f"it lacks {name}")
        elif weights[name].shape != own.shape:
            lines.append(f"{name} is {list(weights[name].shape)} there and {list(own.shape)} here")
    return lines + [f"it has {name:.100}, which is not here" for name in weights if name not in wanted]


def _is_dense(value: Tensor) -> bool:
    return (
        value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex() or value.is_nested or value.is_neg())
        and (value.dtype in _FLOATS or not value.is_floating_point())
    )


def _has_all_numbers(value: Tensor) -> bool:
    """Whether no two numbers share a place in memory: over a shape of any size, one number fits into a small file."""
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
