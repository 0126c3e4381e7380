"""A run with `--compile` in which dynamo traces as ever, but no compiler runs: it would take most of a minute."""

from __future__ import annotations

import atexit
from typing import Any

from tests.running import script


def train_traced(argv: list[str]) -> int:
    """Train with `--compile`; print how many graphs were made. A break in a graph is an error."""
    from torch import nn
    from torch._dynamo.utils import counters

    compile_ = nn.Module.compile

    def without_compiler(self: nn.Module, *, dynamic: bool, options: dict[str, Any] | None) -> None:
        compile_(self, dynamic=dynamic, backend="eager", fullgraph=True)

    def tell() -> None:
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        print(f"graphs {graphs}, breaks {breaks}", flush=True)

    nn.Module.compile = without_compiler
    # One of several processes ends with the script, a single one comes back.
    atexit.register(tell)
    code = script([*argv, "--compile"])
    tell()
    return code
