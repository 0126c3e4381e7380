"""Compiling the flat classifier: a graph for each width, whatever the number of rows."""

import pytest
import torch
from torch._dynamo.utils import counters

from histocc.model_assets import CANINEOccupationClassifier
from histocc.runs.flat import compile_encoder
from tests.rounding import assert_equal_but_for_rounding


@pytest.mark.compiler
def test_a_graph_for_each_width_and_any_number_of_rows(tiny_canine_config, monkeypatch):
    tiny_canine_config.num_hidden_layers = 1
    model = CANINEOccupationClassifier(7, encoder=tiny_canine_config).eval()
    ids = torch.randint(97, 123, (12, 32))
    ids[:8, 16:] = 0
    mask = (ids > 0).long()
    divisions = [[(8, 16), (4, 32)], [(5, 16), (7, 32)], [(2, 16), (10, 32)]]
    with torch.inference_mode():
        expected = [model(ids, mask, groups) for groups in (None, *divisions)]
        compiler = torch.compile
        # What is traced is the matter here; making code of it would take minutes.
        monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function, backend="eager"))
        compile_encoder(model, max_len=32)
        before = counters["stats"]["unique_graphs"]
        for groups, wanted in zip(divisions[1:], expected[2:]):
            assert_equal_but_for_rounding(model(ids, mask, groups), wanted)
        model(ids, mask, divisions[0])
    assert counters["stats"]["unique_graphs"] - before == 2
