"""What only a GPU can show: mixed precision in both types, resuming, TensorFloat-32 and the compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROOT = Path(__file__).parents[2]


def train(argv: list[str], *options: str) -> str:
    """A run of train_mixer.py in a process of its own; its output."""
    done = subprocess.run(
        [sys.executable, *options, "train_mixer.py", *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def val_loss(output: str) -> float:
    return float(re.findall(r"val_loss ([\d.]+)", output)[-1])


def state(folder: Path) -> dict:
    return torch.load(folder / "last.bin", weights_only=True, map_location="cpu")


@pytest.fixture(scope="module")
def plain(inputs, tmp_path_factory) -> float:
    """Validation loss of a run in strict float32."""
    from tests.running import command

    folder = tmp_path_factory.mktemp("plain")
    tables = inputs / "encoder", inputs / "train.csv", inputs / "val.csv"
    return val_loss(train(command(folder, *tables, "--num-epochs", 2, "--no-tf32")))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--use-amp", "--amp-dtype", "bfloat16"], "mixed, bfloat16"),
        (["--use-amp", "--amp-dtype", "float16"], "mixed, float16 with loss scaling"),
        ([], "float32"),
        (["--compile"], "compiled"),
        (["--use-amp", "--compile"], "compiled"),
    ],
)
def test_every_precision_trains_to_about_the_same_loss(flags, words, plain, argv, tmp_path):
    output = train(argv(tmp_path / "run", "--num-epochs", 2, *flags))
    assert words in output
    assert val_loss(output) == pytest.approx(plain, rel=0.03)
    assert state(tmp_path / "run")["step"] == 26


@pytest.mark.parametrize(
    "flags",
    [["--no-tf32"], ["--use-amp", "--amp-dtype", "bfloat16"], ["--use-amp", "--amp-dtype", "float16"]],
    ids=["float32", "bfloat16", "float16"],
)
def test_a_run_resumed_in_an_epoch_ends_close_to_one_left_alone(flags, argv, tmp_path):
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    more = ["--num-epochs", 2, "--save-interval", 5, *flags]
    train(argv(alone, *more))
    resumed.mkdir()
    shutil.copy(alone / "5.bin", resumed / "last.bin")
    train(argv(resumed, *more))
    a, b = state(alone), state(resumed)
    assert a["step"] == b["step"]
    assert a["precision"] == b["precision"]
    # Sums on a GPU are in no fixed order, which Adam amplifies where the true gradient is zero (biases of keys).
    for name, tensor in a["model"].items():
        if tensor.is_floating_point() and not name.endswith(("key.bias", "in_proj_bias")):
            assert float((tensor - b["model"][name]).norm()) <= 5e-2 * float(tensor.norm()) + 2e-3, name


def test_tf32_is_used_where_asked_for():
    from histocc.training.precision import Precision, set_tf32

    device = torch.device("cuda")
    torch.manual_seed(0)
    a, b = torch.randn(2, 512, 512, device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        set_tf32(False)
        strict = a @ b
        assert Precision(device).describe() == "float32"
        set_tf32(True)
        assert Precision(device).describe() == "float32 (TensorFloat-32 products)"
        differs = not torch.equal(a @ b, strict)
        assert differs == (torch.cuda.get_device_capability(device) >= (8, 0))
    finally:
        set_tf32(before)


def test_a_process_too_many_for_the_gpus_is_refused():
    from histocc.errors import UsageError
    from histocc.processes.distributed import pick_device

    count = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"this machine has {count} GPU"):
        pick_device(count)


def test_nccl_serves_torchrun(argv, tmp_path):
    count = min(2, torch.cuda.device_count())
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", str(count))
    output = train(argv(tmp_path / "run", "--num-epochs", 1), *launcher)
    assert "Trained to step" in output
