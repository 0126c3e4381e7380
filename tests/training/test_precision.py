"""Mixed precision, loss scaling, TensorFloat-32, and a schedule that advances only with the optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from histocc.runs.command_line import run_script
from histocc.training.context import Plan, RunContext
from histocc.training.loop import TrainingLoop
from histocc.training.precision import Precision, set_tf32
from histocc.training.schedule import linear_schedule
from tests.running import Running, script

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("use_amp", "amp_dtype", "dtype", "words"),
    [
        (False, "float16", torch.float32, "float32"),
        (True, "auto", torch.bfloat16, "mixed, bfloat16"),
        (True, "bfloat16", torch.bfloat16, "mixed, bfloat16"),
        (True, "float16", torch.float16, "mixed, float16 with loss scaling"),
    ],
)
def test_the_precision_asked_for_is_the_one_used(use_amp, amp_dtype, dtype, words):
    precision = Precision(CPU, use_amp, amp_dtype)
    with precision.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype
    assert precision.describe() == words
    assert (precision.scaler is not None) == (dtype is torch.float16)


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="'half'; it must be one of auto, bfloat16, float16"):
        Precision(CPU, True, "half")


@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_switched_by_its_flag(enabled):
    from train_mixer import build_parser

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    args = build_parser().parse_args([] if enabled else ["--no-tf32"])
    seen = []
    try:
        set_tf32(not enabled)
        run_script(lambda *_: seen.append(torch.backends.cuda.matmul.allow_tf32) or 0, args)
        assert seen == [enabled]
        assert torch.backends.cudnn.allow_tf32 == enabled
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_skips_optimizer_and_schedule_and_is_counted(fused):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, fused=fused)
    scheduler = linear_schedule(optimizer, 0, 10)
    rates, weights = [], []

    def loss(module, batch):
        rates.append(scheduler.get_last_lr()[0])
        weights.append(module.weight.detach().clone())
        return {"loss": 0.1 * module(batch["x"]).float().mean()}

    def batch(value):
        return {"input_ids": torch.ones(1, 1), "x": torch.full((1, 2), value)}

    context = RunContext.on(CPU, use_amp=True, amp_dtype="float16")
    precision = context.precision
    loop = TrainingLoop(model, loss, optimizer, scheduler, Plan(4, log_interval=None), context, show_progress=False)
    # A gradient of 100 is within float16's range, 65536 times that is not.
    loop.run(lambda _: [batch(1.0), batch(1e3), batch(1.0), batch(1.0)])
    assert loop.step == 4
    assert rates == pytest.approx([1.0, 0.9, 0.9, 0.8])
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    assert precision.skipped_steps == 1
    assert scheduler.last_epoch == 3


def test_the_scale_survives_a_resume():
    first, second = (Precision(CPU, True, "float16") for _ in range(2))
    optimizer = torch.optim.AdamW([weight := nn.Parameter(torch.ones(1))], fused=True)
    first.backward(weight.sum() * float("inf"))
    first.clip(optimizer, [weight], 1.0)
    assert not first.step(optimizer)
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == first.scaler.get_scale() == 2.0**15
    assert second.skipped_steps == 1
    # A run that goes on in another precision has no use for it.
    Precision(CPU).load_state_dict(first.state_dict())


def test_mixed_precision_is_close_to_float32(argv, tmp_path):
    """The script's flags reach the loop; losses are computed in float32."""
    losses = {}
    runs = {
        name: Running(script, argv(tmp_path / name, "--max-steps", 3, *flags), log=tmp_path / f"{name}.log")
        for name, flags in {
            "float32": [],
            "bfloat16": ["--use-amp", "--amp-dtype", "bfloat16"],
            "float16": ["--use-amp", "--amp-dtype", "float16"],
        }.items()
    }
    for name, run in runs.items():
        assert run.wait() == 0, run.output
        assert name in run.wait_for(r"precision +(.*)")[1]
        state = torch.load(tmp_path / name / "last.bin", weights_only=True)
        assert all(tensor.dtype is not torch.bfloat16 for tensor in state["model"].values())
        losses[name] = float(run.wait_for(r"val_loss ([\d.]+)")[1])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.02)
