"""What `torch.compile` is told, in every version of torch that the package works with."""

from __future__ import annotations

from typing import Any

import torch


def allow_graphs(number: int) -> None:
    """Let the compiler make at least `number` graphs of one function before it gives up; never fewer than before."""
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # torch 2.6
    setattr(config, name, max(getattr(config, name), number))


def compiler_options(device: torch.device) -> dict[str, Any] | None:
    """The `options` of `torch.compile` that suit a device."""
    # Compiled random numbers are drawn one by one on a CPU, which takes longer than all that compiling saves.
    return {"fallback_random": True} if device.type == "cpu" else None
