"""What the compiler is told under each name that versions of torch have for it."""

from types import SimpleNamespace

import pytest
import torch

from histocc.training.compilation import allow_graphs


@pytest.mark.parametrize("names", [["recompile_limit"], ["cache_size_limit"], ["recompile_limit", "cache_size_limit"]])
def test_more_graphs_and_never_fewer(monkeypatch, names):
    config = SimpleNamespace(**dict.fromkeys(names, 8))
    monkeypatch.setattr(torch._dynamo, "config", config)
    allow_graphs(20)
    assert getattr(config, names[0]) == 20
    allow_graphs(4)
    assert getattr(config, names[0]) == 20
