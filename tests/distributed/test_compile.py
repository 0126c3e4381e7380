"""`--compile`: few graphs, whole ones, and the same run."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.utils import counters
from torch.profiler import profile

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, TrainBatchSampler, make_loader
from histocc.formatter import PAD_IDX, hisco_blocky5
from histocc.layers import TransformerDecoder
from histocc.layers.masking import create_mask
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.runs.mixer import compile_model
from histocc.seq2seq_mixer_engine import build_loop
from histocc.training.context import Plan, RunContext
from tests.distributed.compiled import train_traced
from tests.rounding import assert_equal_but_for_rounding
from tests.running import Running, script, start_ranks

# 100 rows make 12 whole batches of 8 and a short one; 16 steps reach into the second epoch, with one evaluation.
RUN = ("--max-steps", 16, "--eval-interval", 9, "--warmup-pct", 0)


PATIENCE = 300.0  # tracing is a matter of the processor alone, and takes long where that is busy


def weights(folder):
    return torch.load(folder / "last.bin", weights_only=True)["model"]


@pytest.mark.compiler
def test_one_graph_for_training_and_one_for_evaluation(argv, tmp_path):
    plain = Running(script, argv(tmp_path / "plain", *RUN), log=tmp_path / "plain.log")
    traced = Running(train_traced, argv(tmp_path / "traced", *RUN), log=tmp_path / "traced.log")
    assert plain.wait(PATIENCE) == 0, plain.output
    assert traced.wait(PATIENCE) == 0, traced.output
    assert "graphs 2, breaks 0" in traced.output
    assert ", compiled" in traced.output
    expected, got = weights(tmp_path / "plain"), weights(tmp_path / "traced")
    assert list(got) == list(expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)  # what is traced, and not compiled, runs the same


@pytest.mark.compiler
def test_each_trimmed_length_is_a_graph(argv, tmp_path):
    flags = ("--trim-padding", "--max-len", 64, "--max-steps", 14, "--augmentation-prob", 1.0)
    run = Running(train_traced, argv(tmp_path / "run", *flags), log=tmp_path / "log")
    assert run.wait(PATIENCE) == 0, run.output
    assert any(f"graphs {n}, breaks 0" in run.output for n in (3, 4, 5)), run.output


@pytest.mark.compiler
def test_wrapped_for_several_processes(argv, tmp_path):
    runs = start_ranks(train_traced, argv(tmp_path / "run", *RUN), world_size=2, folder=tmp_path)
    for run in runs:
        assert run.wait(PATIENCE) == 0, run.output
        assert "graphs 2, breaks 0" in run.output
    names = list(weights(tmp_path / "run"))
    assert not any("module." in name or "_orig_mod" in name for name in names)


@pytest.mark.compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++) on a CPU")
def test_compiled_numbers_are_the_same(tmp_path, monkeypatch):
    # A cache of its own: what a killed compiler left in the shared one cannot be loaded.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # A part of the model in evaluation alone: compiling all of it for training takes minutes.
    torch.manual_seed(0)
    decoder = TransformerDecoder(1, 16, 2, vocab_size=5, dim_feedforward=16).eval()
    memory, target = torch.randn(2, 8, 16), torch.randint(0, 5, (2, 6))
    with torch.inference_mode():
        expected = decoder(memory, target, *create_mask(target, PAD_IDX))
        compile_model(decoder)
        got = decoder(memory, target, *create_mask(target, PAD_IDX))
    assert counters["stats"]["unique_graphs"] > 0
    assert_equal_but_for_rounding(got, expected)


@pytest.mark.compiler
def test_a_step_asks_the_device_for_nothing_but_whether_all_is_finite(inputs, tiny_canine_config):
    formatter = hisco_blocky5()
    data = OccDatasetMixerInMemMultipleFiles(inputs / "train.csv", formatter, None, 32, 1919)
    model = Seq2SeqMixerOccCANINE("", formatter.num_classes, 1919, encoder=tiny_canine_config)
    # On a CPU, and only there, AdamW reads its step count off a tensor for each parameter.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss_fn = LossMixer(BlockOrderInvariantLoss(PAD_IDX), torch.nn.BCEWithLogitsLoss())
    loader = make_loader(data, TrainBatchSampler(len(data), 10, seed=42))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    loop = build_loop(model, None, loss_fn, optimizer, schedule, Plan(10, log_interval=1000), RunContext.on("cpu"))
    with profile() as trace:
        loop.run_epoch(loader)
    counts = {event.key: event.count for event in trace.key_averages()}
    assert loop.step == 10
    # One a step is the verdict, which on a GPU is read two steps later, from memory of the host; a few are the epoch's.
    assert counts["aten::_local_scalar_dense"] <= 10 + 3
    assert not {"aten::nonzero", "aten::masked_select", "aten::unique_dim"} & counts.keys()
