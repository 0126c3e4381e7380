"""Seconds of a training step of the flat classifier, beside the plain path: all of CANINE, every row padded to 128.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.flat_step --train-data FOLDER

A small encoder with random weights, on the descriptions of a folder of CSV files or of the shipped sample. The two take
turns, so that a busy machine slows both down; outputs and gradients are compared on the first batch.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from histocc.dataloader import load_data
from histocc.model_assets import CANINEOccupationClassifier
from histocc.trainer import flat_loss

_MAX_LEN = 128
ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_hash_functions": 4,
    "num_hash_buckets": 512,
    "max_position_embeddings": 512,
}


def padded(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch at the greatest length; its padding is 0, and so is the mask there."""
    width = (0, _MAX_LEN - batch["input_ids"].shape[1])
    texts = {name: nn.functional.pad(batch[name], width) for name in ("input_ids", "attention_mask")}
    return {**texts, "targets": batch["targets"]}


class Path:
    """A model with its optimizer, and a step of training."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.loss_fn = nn.BCEWithLogitsLoss()

    def step(self, batch: dict[str, Any]) -> float:
        """Train on a batch; seconds."""
        if (device := next(self.model.parameters()).device).type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        flat_loss(self.model, moved, self.loss_fn)["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


def differences(ours: nn.Module, plain: nn.Module, batch: dict[str, Any], dense: dict[str, Any]) -> tuple[float, float]:
    """Largest difference of the logits, and distance of the gradients in parts of their norm; without dropout."""
    outputs, gradients = [], []
    for model, run in ((ours, batch), (plain, dense)):
        model = copy.deepcopy(model).cpu().eval()
        groups = {"groups": run["groups"]} if "groups" in run else {}
        outputs.append(model(run["input_ids"], run["attention_mask"], **groups).detach())
        flat_loss(model, run, nn.BCEWithLogitsLoss())["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    distance = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return float((outputs[0] - outputs[1]).abs().max()), float(distance)


def main(argv: Sequence[str] | None = None) -> tuple[float, float]:
    """Print seconds per step of both paths and their ratio; the differences of logits and gradients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-data", default=None, help="folder of CSV files (the shipped sample)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="steps; the first is not counted")
    parser.add_argument("--canine-s", action="store_true", help="an encoder of full size")
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error("--steps must be at least 2: the first is not counted")

    from transformers import CanineConfig

    source = {"toyload": True} if args.train_data is None else {"train_data": args.train_data}
    data = load_data(upsample_below=0, sample_size=10, max_len=_MAX_LEN, batch_size=args.batch_size, **source)
    loader = data["data_loader_train"]
    batches = list(islice(loader, args.steps))
    dense = [padded(batch) for batch in batches]
    torch.manual_seed(0)
    config = CanineConfig(**({} if args.canine_s else ENCODER))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = CANINEOccupationClassifier(data["N_CLASSES"], encoder=config).to(device)
    plain = CANINEOccupationClassifier(data["N_CLASSES"], encoder=config, fast_encoder=False).to(device)
    plain.load_state_dict(ours.state_dict())
    output, gradient = differences(ours, plain, batches[0], dense[0])

    paths = {"ours": Path(ours), "plain": Path(plain)}
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for batch, whole in zip(batches, dense):
        seconds["ours"].append(paths["ours"].step(batch))
        seconds["plain"].append(paths["plain"].step(whole))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    share = sum(rows * width for b in batches for rows, width in b["groups"]) / sum(
        _MAX_LEN * len(b["rows"]) for b in batches
    )
    ratio = medians["plain"] / medians["ours"]
    print(f"{len(batches)} steps of {args.batch_size} rows; characters run: {share:.0%} of those of the plain path")
    print(f"plain {medians['plain']:.4f} s a step, ours {medians['ours']:.4f} s: {ratio:.1f} times")
    print(f"largest difference of a logit {output:.1e}; of the gradients {gradient:.1e} of their norm")
    return output, gradient


if __name__ == "__main__":
    main()
