"""A run with `--compile` in which dynamo traces as ever, but no compiler runs: it would take most of a minute."""

from __future__ import annotations

from typing import Any

from tests.running import script


def train_traced(argv: list[str]) -> int:
    """Train with `--compile`; print how many graphs were made. A break in a graph is an error."""
    from torch import nn
    from torch._dynamo.utils import counters

    compile_ = nn.Module.compile

    def without_compiler(self: nn.Module, *, dynamic: bool, options: dict[str, Any] | None) -> None:
        compile_(self, dynamic=dynamic, backend="eager", fullgraph=True)

    nn.Module.compile = without_compiler
    code = script([*argv, "--compile"])
    print(f"graphs {counters['stats']['unique_graphs']}, breaks {sum(counters['graph_break'].values())}")
    return code
