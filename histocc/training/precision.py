"""Numerical precision of training: float32 (TensorFloat-32 or strict) or automatic mixed precision.

Scale, unscale, clip and step stand in one place, `Precision`, so that no loop can get their order wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

AMP_DTYPES = ("auto", "bfloat16", "float16")


class Precision:
    """Autocast, loss scaling and the optimizer step.

    Parameters
    ----------
    device
        Device that computes.
    use_amp
        Run the forward pass in mixed precision. The loss is computed in float32 all the same.
    amp_dtype
        'bfloat16', 'float16' (with loss scaling) or 'auto': bfloat16 where the hardware has it, else float16.
    """

    def __init__(self, device: torch.device, use_amp: bool = False, amp_dtype: str = "auto") -> None:
        if amp_dtype not in AMP_DTYPES:
            raise ValueError(f"amp_dtype is {amp_dtype!r}; it must be one of {', '.join(AMP_DTYPES)}")
        self.device = device
        self.dtype = _resolve(device, amp_dtype) if use_amp else torch.float32
        # Only float16 has too small a range for gradients; scaling bfloat16 would cost and gain nothing.
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None
        self.skipped_steps = 0

    @property
    def uses_amp(self) -> bool:
        """Whether the forward pass runs in mixed precision."""
        return self.dtype is not torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Context for forward passes, in training and evaluation alike."""
        if not self.uses_amp:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of `loss` (0-dim), scaled where the precision needs it."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip(self, optimizer: Optimizer, parameters: Iterable[Tensor], max_grad_norm: float) -> Tensor:
        """Unscale the gradients, clip their global norm to `max_grad_norm` and return the norm before clipping."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        return clip_grad_norm_(parameters, max_grad_norm)

    def step(self, optimizer: Optimizer) -> bool:
        """Update the parameters; False if the scaler skipped the update because of an overflow."""
        if self.scaler is None:
            optimizer.step()
            return True
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        stepped = self.scaler.get_scale() >= before
        self.skipped_steps += not stepped
        return stepped

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the precision, the scaler's state and the number of skipped steps."""
        scaler = None if self.scaler is None else self.scaler.state_dict()
        return {"dtype": str(self.dtype), "scaler": scaler, "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; a run that changes its precision starts with a fresh scaler."""
        self.skipped_steps = int(state["skipped_steps"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def describe(self) -> str:
        """Precision in the words of the header."""
        if self.uses_amp:
            return f"mixed, {str(self.dtype).removeprefix('torch.')}" + (" with loss scaling" if self.scaler else "")
        if self.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
            return "float32 (TensorFloat-32 products)"
        return "float32"


def _resolve(device: torch.device, amp_dtype: str) -> torch.dtype:
    if amp_dtype == "auto":
        # Before Ampere torch emulates bfloat16, which is slower than float32.
        native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float16
    return getattr(torch, amp_dtype)


def set_tf32(enabled: bool) -> None:
    """Allow or forbid TensorFloat-32 in products and convolutions (it has an effect on Ampere and newer only)."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled
